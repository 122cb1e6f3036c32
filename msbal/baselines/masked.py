"""Weights that sum to K, levels without positives left out: of one iteration, on the losses' device."""

from __future__ import annotations

import torch
from torch import Tensor


def rescale(raw: Tensor, empty: Tensor) -> Tensor:
    """Weights proportional to `raw` where not empty, else 1; their sum is K.

    Args:
        raw: ``[K]``, above 0; anything at all where empty.
        empty: ``[K]`` mask.
    """
    kept = raw.masked_fill(empty, 0.0)
    return (kept / kept.sum() * (~empty).sum()).masked_fill(empty, 1.0)


def rescale_softmax(logits: Tensor, empty: Tensor) -> Tensor:
    """`rescale` of ``exp(logits)``, without overflow; `logits` are finite where not empty."""
    share = logits.masked_fill(empty, -torch.inf).softmax(0)
    return (share * (~empty).sum()).masked_fill(empty, 1.0)
