"""The interval that a checkpoint finds unfinished: each rank's own losses, all of them in one file.

They are no buffers, which DistributedDataParallel overwrites on all ranks by those of rank 0 at every forward.

Shapes: R ranks, A iterations of an interval, T terms, K levels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from msbal.engine.ranks import all_gather, ranks

# Marks the iterations of the interval that have not happened yet: the position within the interval is then
# part of the losses, and a checkpoint, a captured graph and the host cannot disagree about it. No float32
# loss can have this value.
EMPTY = torch.finfo(torch.float64).min


class Unfinished(NamedTuple):
    """What ranks have seen since the last interval's end.

    Attributes:
        losses: ``[R, A, T, K]`` float64, `EMPTY` where nothing has happened yet.
        positives: ``[R, K]`` float64.
    """

    losses: Tensor
    positives: Tensor


def gather_unfinished(losses: Tensor, positives: Tensor) -> Unfinished:
    """Every rank's ``[A, T, K]`` losses and ``[K]`` positives. A collective."""
    rows = all_gather(torch.cat([losses.flatten(), positives]))
    count = losses.numel()
    return Unfinished(rows[:, :count].reshape(-1, *losses.shape), rows[:, count:].clone())


def is_current(gathered: Unfinished, losses: Tensor) -> bool:
    """Whether this rank's part is still its losses ``[A, T, K]``: those that came since make it outdated."""
    return torch.equal(_bits(gathered.losses[dist.get_rank()]), _bits(losses))  # as bits, for NaN


def part_of_rank(saved: Tensor, summed: bool) -> Tensor:
    """This rank's part of what R ranks saved; of another number of ranks, an equal part.

    Args:
        saved: one of `Unfinished`.
        summed: whether ranks are summed, not averaged, at the interval's end.
    """
    count = ranks()
    if saved.shape[0] == count:
        return saved[dist.get_rank() if count > 1 else 0]
    if summed:
        return saved.sum(dim=0) / count
    return torch.where(saved[0] == EMPTY, EMPTY, saved.mean(dim=0))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int64)
