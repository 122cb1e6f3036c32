"""Eq 5: from a choice of levels to weights."""

from __future__ import annotations

import torch
from torch import Tensor


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


def empty_levels(losses: Tensor, positives: Tensor | None) -> Tensor:
    """The levels that a ratio of losses says nothing about, as a ``[K]`` mask.

    A level without positive samples has a loss of zero, or one of background alone, of which a
    logarithm, an inverse or a ratio makes anything.

    Args:
        losses: ``[K]``.
        positives: ``[K]``, or None where they are unknown.
    """
    return losses <= 0 if positives is None else (losses <= 0) | (positives <= 0)


def rescale(raw: Tensor, empty: Tensor) -> Tensor:
    """Weights proportional to `raw` where not empty, else 1; their sum is K.

    Args:
        raw: ``[K]``, above 0; anything at all where empty.
        empty: ``[K]`` mask.
    """
    kept = raw.masked_fill(empty, 0.0)
    return (kept * ((empty.numel() - empty.sum()) / kept.sum())).masked_fill(empty, 1.0)


def rescale_softmax(logits: Tensor, empty: Tensor) -> Tensor:
    """`rescale` of ``exp(logits)``, without overflow; `logits` are finite where not empty."""
    share = torch.softmax(logits.masked_fill(empty, -torch.inf), dim=0)
    return (share * (empty.numel() - empty.sum())).masked_fill(empty, 1.0)
