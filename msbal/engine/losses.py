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
        positives: ``[K]`` number of positive samples (anchors, points, RoIs) per level, or None where
            the seam cannot tell. Only strategies that count positives or mask empty levels read it.
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
    positives = None
    if isinstance(losses, LevelLosses):
        values, positives = losses.values, losses.positives
    elif isinstance(losses, Tensor):
        values = losses
    elif isinstance(losses, Mapping):
        if set(losses) != set(terms):
            raise ValueError(f"Losses should have the terms {sorted(terms)}. Found {sorted(losses)}.")
        rows = [losses[term] for term in terms]
        if all(isinstance(row, Tensor) for row in rows):
            values = torch.stack([row for row in rows if isinstance(row, Tensor)])
        else:
            # One stack for all scalars: a stack per term would cost a kernel each.
            scalars = [scalar for row in rows for scalar in row]
            if len(scalars) != len(terms) * len(levels):
                raise ValueError(
                    f"Each term should have {len(levels)} losses, one per level {list(levels)}. "
                    f"Found {[len(row) for row in rows]} for {list(terms)}."
                )
            values = torch.stack(scalars).view(len(terms), len(levels))
    else:
        values = torch.stack(list(losses))
    if values.dim() == 1:
        values = values.unsqueeze(0)
    if values.shape != (len(terms), len(levels)):
        raise ValueError(
            f"Losses should have shape [{len(terms)} terms, {len(levels)} levels]. Found {list(values.shape)}."
        )
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    return LevelLosses(values, positives)
