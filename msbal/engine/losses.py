"""One iteration's losses, gathered as a ``[terms, levels]`` tensor.

Shapes: T terms (``cls``, ``bbox``, ...), K pyramid levels, finest first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True)
class LevelLosses:
    """The losses of one iteration, split by term and pyramid level, still attached to the graph.

    Attributes:
        values: ``[T, K]``, each the scalar loss that the framework would have summed, with the
            framework's own normalisers and term weights applied.
        positives: ``[K]`` number of positive samples (anchors, points, RoIs) per level, on the losses'
            device, or None where the seam cannot tell. Only strategies that count positives or mask
            empty levels read it.
    """

    values: Tensor
    positives: Tensor | None = None


Losses: TypeAlias = (
    LevelLosses | Tensor | Sequence[Tensor] | Mapping[str, Tensor] | Mapping[str, Sequence[Tensor]]
)


def gather(losses: Losses, terms: Sequence[str], levels: Sequence[str]) -> LevelLosses:
    """Bring any accepted form of losses into ``LevelLosses``, in float32 or better.

    Args:
        losses: ``LevelLosses``; a ``[K]`` or ``[T, K]`` tensor; a sequence of K scalars; or a mapping
            from each term to a ``[K]`` tensor or K scalars. Levels are finest first.
        terms: the T names that a mapping must have.
        levels: the K names.

    Raises:
        ValueError: where names or shapes do not fit.
    """
    shape = (len(terms), len(levels))
    positives = None
    if isinstance(losses, Tensor):
        values = losses
    elif isinstance(losses, LevelLosses):
        values, positives = losses.values, losses.positives
    elif isinstance(losses, Mapping):
        values = _stack_terms(losses, terms, shape)
    elif isinstance(losses, Sequence):
        values = _stack(losses)
    else:
        raise ValueError(
            f"losses should be a tensor, a mapping or a sequence. Found {type(losses).__name__}."
        )
    if values.shape != shape:
        if values.shape != shape[1:] or shape[0] != 1:
            raise ValueError(
                f"losses should have shape {list(shape)}, terms {list(terms)} by levels {list(levels)}. "
                f"Found {list(values.shape)}."
            )
        values = values.unsqueeze(0)
    if values.dtype not in (torch.float32, torch.float64):
        values = values.float()
    return LevelLosses(values, positives)


def _stack_terms(
    losses: Mapping[str, Tensor] | Mapping[str, Sequence[Tensor]],
    terms: Sequence[str],
    shape: tuple[int, int],
) -> Tensor:
    if losses.keys() != set(terms):
        raise ValueError(f"losses should have the terms {sorted(terms)}. Found {sorted(losses)}.")
    rows = [losses[term] for term in terms]
    if all(isinstance(row, Tensor) for row in rows):
        return _stack(rows)
    for term, row in zip(terms, rows, strict=True):
        if not isinstance(row, Tensor | Sequence) or len(row) != shape[1]:
            found = len(row) if isinstance(row, Tensor | Sequence) else type(row).__name__
            raise ValueError(f"losses[{term!r}] should have {shape[1]} losses, one a level. Found {found}.")
    # One stack of all scalars: a stack for each term would cost a kernel each.
    stacked = _stack([scalar for row in rows for scalar in row])
    return stacked.view(shape) if stacked.dim() == 1 else stacked


def _stack(tensors: Sequence[Tensor | Sequence[Tensor]]) -> Tensor:
    try:
        return torch.stack(tensors)  # type: ignore[arg-type]
    except (TypeError, RuntimeError) as error:
        found = [list(t.shape) if isinstance(t, Tensor) else type(t).__name__ for t in tensors]
        raise ValueError(f"losses should be tensors of one shape. Found {found}.") from error
