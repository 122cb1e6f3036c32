"""Weights that sum to K, without the levels that lack positives.

Those of an iteration are tensors on the losses' device, those of an interval NumPy arrays.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msbal.engine.statistics import Array, IntervalStatistics


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


def has_loss(statistics: IntervalStatistics) -> NDArray[np.bool_]:
    """Return the ``[K]`` mask of the levels with positives in the interval and a loss above 0."""
    found = statistics.loss > 0
    return found if statistics.positives is None else found & (statistics.positives > 0)


def fill_softmax(logits: Array, kept: NDArray[np.bool_]) -> Array:
    """Return ``[K]`` weights of an interval: proportional to ``exp(logits)`` where kept, else 1; their sum is K.

    Args:
        logits: of the kept levels only; an infinite one counts as 1e300.
        kept: ``[K]`` mask.
    """
    weights = np.ones(len(kept))
    if kept.any():
        logits = np.clip(logits, -1e300, 1e300)
        raw = np.exp(logits - logits.max())
        weights[kept] = raw * (kept.sum() / raw.sum())
    return weights
