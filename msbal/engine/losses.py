"""One iteration's losses, gathered as a ``[terms, levels]`` tensor.

Shapes: T terms (``cls``, ``bbox``, ...), K pyramid levels, finest first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

_WIDE = (torch.float32, torch.float64)


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
    values, positives = gather_flat(losses, terms, levels)
    return LevelLosses(values.view(len(terms), len(levels)), positives)


def gather_flat(losses: Losses, terms: Sequence[str], levels: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """`gather`, as values ``[T * K]``, term by term, and positives: the form that costs least."""
    positives = None
    if isinstance(losses, Tensor):
        values = _flat(losses, terms, levels)
    elif isinstance(losses, LevelLosses):
        values, positives = _flat(losses.values, terms, levels), losses.positives
    elif isinstance(losses, Mapping):
        values = _flat_terms(losses, terms, levels)
    elif isinstance(losses, Sequence):
        values = _flat(_join(torch.stack, losses), terms, levels)
    else:
        raise ValueError(
            f"losses should be a tensor, a mapping or a sequence. Found {type(losses).__name__}."
        )
    if values.dtype not in _WIDE:
        values = values.float()
    return values, positives


def _flat(values: Tensor, terms: Sequence[str], levels: Sequence[str]) -> Tensor:
    if values.dim() == 1 and len(terms) == 1 and values.numel() == len(levels):
        return values
    if values.shape == (len(terms), len(levels)):
        return values.reshape(-1)
    raise ValueError(
        f"losses should have shape {[len(terms), len(levels)]}, terms {list(terms)} by levels {list(levels)}. "
        f"Found {list(values.shape)}."
    )


def _flat_terms(
    losses: Mapping[str, Tensor] | Mapping[str, Sequence[Tensor]], terms: Sequence[str], levels: Sequence[str]
) -> Tensor:
    if losses.keys() != set(terms):
        raise ValueError(f"losses should have the terms {sorted(terms)}. Found {sorted(losses)}.")
    rows = [losses[term] for term in terms]
    for term, row in zip(terms, rows, strict=True):
        fits = row.shape == (len(levels),) if isinstance(row, Tensor) else len(row) == len(levels)
        if not fits:
            found = list(row.shape) if isinstance(row, Tensor) else len(row)
            raise ValueError(
                f"losses[{term!r}] should have {len(levels)} losses, one a level. Found {found}."
            )
    if all(isinstance(row, Tensor) for row in rows):
        return _join(torch.cat, rows)
    # One stack of all scalars: a stack for each term would cost a kernel each.
    values = _join(torch.stack, [scalar for row in rows for scalar in row])
    if values.dim() != 1:
        raise ValueError(f"Each loss should be a scalar. Found shape {list(values.shape[1:])}.")
    return values


def _join(how: Callable[[Any], Tensor], tensors: Sequence[Any]) -> Tensor:
    try:
        return how(tensors)
    except (TypeError, RuntimeError) as error:
        found = [list(t.shape) if isinstance(t, Tensor) else type(t).__name__ for t in tensors]
        raise ValueError(f"losses should be tensors of one shape. Found {found}.") from error
