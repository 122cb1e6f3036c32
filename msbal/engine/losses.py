"""Gathers one iteration's losses into one vector: T terms (``cls``, ``bbox``, ...) of K levels each, finest first."""

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
        values: ``[T, K]``, the scalar losses that the framework would sum, with its own normalisers and term weights
            applied.
        positives: ``[K]`` positive samples (anchors, points, RoIs) per level, on the losses' device, or None.
    """

    values: Tensor
    positives: Tensor | None = None


Losses: TypeAlias = (
    LevelLosses | Tensor | Sequence[Tensor] | Mapping[str, Tensor] | Mapping[str, Sequence[Tensor]]
)


def gather(losses: Losses, terms: Sequence[str], levels: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """Turn any accepted form of losses into values ``[T * K]``, in float32 or better, and positives ``[K]``.

    Args:
        losses: ``LevelLosses``; a ``[T, K]`` tensor (of one term also ``[K]``); of one term a sequence of K scalars;
            or a mapping from each term to a ``[K]`` tensor or K scalars. Levels are finest first.

    Raises:
        ValueError: where names, shapes or devices do not fit.
    """
    positives, shape = None, (len(terms), len(levels))
    if isinstance(losses, LevelLosses):
        positives = losses.positives
        losses = losses.values
    if isinstance(losses, Tensor):
        if losses.shape != shape and not (len(terms) == 1 and losses.shape == shape[1:]):
            raise ValueError(
                f"losses should have shape {list(shape)}, terms {list(terms)} by levels {list(levels)}. "
                f"Found {list(losses.shape)}."
            )
        values = losses if losses.dim() == 1 else losses.reshape(-1)
    elif isinstance(losses, Mapping):
        if losses.keys() != set(terms):
            raise ValueError(f"losses should have the terms {sorted(terms)}. Found {sorted(losses)}.")
        values = _join([part for term in terms for part in _row(losses[term], f"losses[{term!r}]", levels)])
    elif isinstance(losses, Sequence) and len(terms) == 1:
        values = _join(_row(losses, "losses", levels))
    else:
        raise ValueError(
            f"losses should be a {list(shape)} tensor, or a mapping with the terms {list(terms)}. "
            f"Found a {type(losses).__name__}."
        )
    if positives is not None and (positives.shape != shape[1:] or positives.device != values.device):
        raise ValueError(
            f"positives should have shape {[len(levels)]}, one number a level, on {values.device} as the losses. "
            f"Found {list(positives.shape)} on {positives.device}."
        )
    return values if values.dtype in (torch.float32, torch.float64) else values.float(), positives


def _row(losses: Any, name: str, levels: Sequence[str]) -> list[Tensor]:
    """Return one term's losses as one ``[K]`` tensor or K scalars."""
    row, dim = ([losses], 1) if isinstance(losses, Tensor) else (list(losses), 0)
    # Where T equals K, a list of one vector per level could otherwise pass for one vector per term.
    wrong = [loss for loss in row if not isinstance(loss, Tensor) or loss.dim() != dim]
    count = sum(loss.numel() for loss in row if not wrong)
    if count != len(levels):
        words = [f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__ for x in wrong]
        raise ValueError(
            f"{name} should be a vector or a list of {len(levels)} scalars, one loss a level. "
            f"Found {words[0] if words else count}."
        )
    return row


def _join(parts: list[Tensor]) -> Tensor:
    devices = sorted({str(part.device) for part in parts})
    if len(devices) > 1:
        raise ValueError(f"losses should be on one device. Found them on {' and '.join(devices)}.")
    if all(part.dim() == 0 for part in parts):
        return torch.stack(parts)  # one kernel for all scalars, not one for each term
    return torch.cat([part.view(-1) for part in parts])
