"""Weights of one iteration that sum to K, without the levels that lack positives; on the losses' device."""

from __future__ import annotations

import torch
from torch import Tensor


def rescale(raw: Tensor, empty: Tensor) -> Tensor:
    """Return weights proportional to `raw` where not empty, else 1; their sum is K.

    Args:
        raw: ``[K]``, above 0; any value where empty.
        empty: ``[K]`` mask.
    """
    kept = raw.masked_fill(empty, 0.0)
    return (kept / kept.sum() * (~empty).sum()).masked_fill(empty, 1.0)


def rescale_softmax(logits: Tensor, empty: Tensor) -> Tensor:
    """Return `rescale` of ``exp(logits)``, without overflow; `logits` are finite where not empty."""
    share = logits.masked_fill(empty, -torch.inf).softmax(0)
    return (share * (~empty).sum()).masked_fill(empty, 1.0)
