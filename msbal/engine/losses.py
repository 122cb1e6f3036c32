"""One iteration's losses, gathered as ``[T, K]``: T terms (``cls``, ``bbox``, ...) by K levels, finest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True)
class LevelLosses:
    """The losses of one iteration, split by term and pyramid level, still attached to the graph.

    Attributes:
        values: ``[T, K]``, each the scalar loss that the framework would have summed, with the framework's own
            normalisers and term weights applied.
        positives: ``[K]`` positive samples (anchors, points, RoIs) per level, on the losses' device, or None.
    """

    values: Tensor
    positives: Tensor | None = None


Losses: TypeAlias = (
    LevelLosses | Tensor | Sequence[Tensor] | Mapping[str, Tensor] | Mapping[str, Sequence[Tensor]]
)


def gather(losses: Losses, terms: Sequence[str], levels: Sequence[str]) -> LevelLosses:
    """Bring any accepted form of losses into ``LevelLosses``, in float32 or better.

    Args:
        losses: ``LevelLosses``; a ``[T, K]`` tensor (of one term also ``[K]``); of one term a sequence of K scalars;
            or a mapping from each term to a ``[K]`` tensor or K scalars. Levels are finest first.

    Raises:
        ValueError: where names, shapes or devices do not fit.
    """
    positives, shape = None, (len(terms), len(levels))
    if isinstance(losses, LevelLosses):
        values, positives = losses.values, losses.positives
    elif isinstance(losses, Tensor):
        values = losses
    elif isinstance(losses, Mapping):
        if losses.keys() != set(terms):
            raise ValueError(f"losses should have the terms {sorted(terms)}. Found {sorted(losses)}.")
        values = _join([_row(losses[term], f"losses[{term!r}]", levels) for term in terms])
    elif isinstance(losses, Sequence) and len(terms) == 1:
        values = _join([_row(losses, "losses", levels)])
    else:
        raise ValueError(
            f"losses should be a {list(shape)} tensor, or a mapping with the terms {list(terms)}. "
            f"Found a {type(losses).__name__}."
        )
    if values.shape != shape and not (len(terms) == 1 and values.shape == shape[1:]):
        raise ValueError(
            f"losses should have shape {list(shape)}, terms {list(terms)} by levels {list(levels)}. "
            f"Found {list(values.shape)}."
        )
    if positives is not None and (positives.shape != shape[1:] or positives.device != values.device):
        raise ValueError(
            f"positives should have shape {[len(levels)]}, one number a level, on {values.device} as the losses. "
            f"Found {list(positives.shape)} on {positives.device}."
        )
    wide = values if values.dtype in (torch.float32, torch.float64) else values.float()
    return LevelLosses(wide.reshape(shape), positives)


def _row(losses: Any, name: str, levels: Sequence[str]) -> list[Tensor]:
    """One term's losses: one ``[K]`` tensor, or K scalars."""
    row, dim = ([losses], 1) if isinstance(losses, Tensor) else (list(losses), 0)
    # A list of one vector a level would otherwise pass for one of one vector a term where T equals K.
    wrong = [loss for loss in row if not isinstance(loss, Tensor) or loss.dim() != dim]
    count = sum(loss.numel() for loss in row if not wrong)
    if count != len(levels):
        words = [f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__ for x in wrong]
        raise ValueError(
            f"{name} should be a vector or a list of {len(levels)} scalars, one loss a level. "
            f"Found {words[0] if words else count}."
        )
    return row


def _join(rows: list[list[Tensor]]) -> Tensor:
    parts = [part for row in rows for part in row]
    devices = sorted({str(part.device) for part in parts})
    if len(devices) > 1:
        raise ValueError(f"losses should be on one device. Found them on {' and '.join(devices)}.")
    if all(
        part.dim() == 0 for part in parts
    ):  # one stack of all scalars: one for each term would cost a kernel each
        return torch.stack(parts).view(len(rows), -1)
    return torch.cat([part.view(-1) for part in parts]).view(len(rows), -1)
