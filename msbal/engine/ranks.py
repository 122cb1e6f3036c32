"""What the balancers of several processes tell each other.

Shapes: R ranks, A iterations of an interval, T terms, K levels.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

_AVAILABLE = dist.is_available()


def ranks() -> int:
    """Processes of the default group; 1 without one."""
    return dist.get_world_size() if _AVAILABLE and dist.is_initialized() else 1


def all_gather(flat: Tensor) -> Tensor:
    """``[N]`` of every rank as ``[R, N]``."""
    gathered = flat.new_empty(ranks() * flat.numel())
    dist.all_gather_into_tensor(gathered, flat)
    return gathered.view(-1, flat.numel())


def gather_ranks(losses: Tensor, positives: Tensor, intervals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All ranks' losses ``[R, A, T, K]``, the sum of their positives, and their intervals ``[R]``.

    Gathered, not reduced: every rank then averages in the same order, and a NaN keeps its rank.
    """
    rows = all_gather(torch.cat([losses.flatten(), positives, intervals.to(losses.dtype).view(1)]))
    end = losses.numel()
    return rows[:, :end].reshape(-1, *losses.shape[1:]), rows[:, end:-1].sum(dim=0), rows[:, -1]


def average_ranks(losses: Tensor, positives: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """One iteration's level losses, averaged, and positives, summed over ranks: the same on all of them."""
    if positives is None:
        return all_gather(losses).mean(dim=0), None
    rows = all_gather(torch.cat([losses, positives.to(losses.dtype)]))
    k = losses.numel()
    return rows[:, :k].mean(dim=0), rows[:, k:].sum(dim=0)
