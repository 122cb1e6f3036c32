"""Eq 5: from a choice of levels to weights."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from msbal.engine.host import unless_nowhere
from msbal.engine.numbers import Numbers


def select_top(score: Tensor, top_k: int) -> Tensor:
    """The `top_k` levels of the highest score, as a ``[K]`` mask; of equals the finer level wins.

    By counting, not sorting: torch.topk does not say which of two equals it takes.
    """
    own = score.unsqueeze(1)
    above = score > own  # [K, K]: whether the column's level is above the row's
    tied_finer = (score == own).tril(-1)
    return (above | tied_finer).sum(dim=1) < top_k


def amplify(selected: Tensor, loss: Tensor, amplification: float) -> Tensor:
    """Eq 5: ``w_j = 1 + lambda * L_j / sum(L)`` for the selected levels, 1 for the others.

    Args:
        selected: ``[K]`` mask.
        loss: ``[K]`` interval losses. With a total of zero nothing is amplified. The share is kept
            within [0, 1], which changes nothing unless a loss is negative.
        amplification: lambda.

    Returns:
        ``[K]`` weights within [1, 1 + lambda].
    """
    # Divided by the largest first: a sum of losses near the end of float64 would overflow.
    scaled = loss / loss.abs().amax().clamp_min(torch.finfo(loss.dtype).tiny)
    total = scaled.sum()
    share = (scaled / total).masked_fill(total <= 0, 0.0).clamp(0.0, 1.0)
    return 1.0 + amplification * (share * selected)


def amplify_top(score: Any, loss: Any, top_k: int, amplification: float) -> Any:
    """Eq 5 for the `top_k` levels of the highest score: `select_top` and `amplify` in one, ``[K]`` weights.

    Of `Numbers` both at once, in a tenth of the steps.
    """
    if isinstance(score, Numbers):
        return Numbers(_amplified_top(score.values, loss.tolist(), top_k, amplification))
    return amplify(select_top(score, top_k), loss, amplification)


def _amplified_top(scores: list[float], losses: list[float], top_k: int, amplification: float) -> list[float]:
    largest = max(map(abs, losses)) or 1.0
    scaled = [loss / largest for loss in losses]
    total = sum(scaled)
    weights = [1.0] * len(losses)
    if total > 0.0:
        # The sort is stable: of equals the finer level stays before the coarser.
        for level in sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:top_k]:
            weights[level] += amplification * min(max(scaled[level] / total, 0.0), 1.0)
    return weights


def empty_levels(losses: Tensor, positives: Tensor | None) -> Tensor | None:
    """The levels that a ratio of losses says nothing about: a ``[K]`` mask, or None where the host sees none.

    A level without positive samples has a loss of zero, or one of background alone, of which a
    logarithm, an inverse or a ratio makes anything.

    Args:
        losses: ``[K]``.
        positives: ``[K]``, or None where they are unknown.
    """
    empty: Tensor = losses <= 0.0 if positives is None else (losses <= 0.0) | (positives <= 0)
    return cast("Tensor | None", unless_nowhere(empty))


def either(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The union of two masks that may be None, for nowhere."""
    if one is None or other is None:
        return other if one is None else one
    return one | other


def keep_empty(empty: Tensor | None, old: Tensor, new: Tensor) -> Tensor:
    """`new`, but `old` where a level is empty."""
    return new if empty is None else old.where(empty, new)


def rescale(raw: Tensor, empty: Tensor | None) -> Tensor:
    """Weights proportional to `raw` where not empty, else 1; their sum is K.

    Args:
        raw: ``[K]``, above 0; anything at all where empty.
        empty: ``[K]`` mask, or None.
    """
    if empty is None:
        return raw / raw.mean()
    kept = raw.masked_fill(empty, 0.0)
    return (kept / kept.sum() * (empty.numel() - empty.sum())).masked_fill(empty, 1.0)


def rescale_softmax(logits: Tensor, empty: Tensor | None) -> Tensor:
    """`rescale` of ``exp(logits)``, without overflow; `logits` are finite where not empty."""
    if empty is None:
        return logits.softmax(0) * float(logits.numel())
    share = logits.masked_fill(empty, -torch.inf).softmax(0)
    return (share * (empty.numel() - empty.sum())).masked_fill(empty, 1.0)
