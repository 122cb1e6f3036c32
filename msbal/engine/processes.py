"""Collectives of the processes of a run; each is a no-op in a single process."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

_T = TypeVar("_T")


def world_size() -> int:
    """Return the number of processes in the default group; 1 without a group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number."""
    return dist.get_rank() if world_size() > 1 else 0


def all_gather(flat: Tensor) -> Tensor:
    """Gather ``[N]`` of every rank as ``[R, N]``; not reduced, so that ranks average alike and a NaN keeps its rank."""
    if world_size() == 1:
        return flat.unsqueeze(0)
    gathered = flat.new_empty(world_size() * flat.numel())
    dist.all_gather_into_tensor(gathered, flat)
    return gathered.view(-1, flat.numel())


def all_gather_objects(own: _T) -> list[_T]:
    """Gather each rank's object, in the order of the ranks; pickles them."""
    found = [own] * world_size()
    if len(found) > 1:
        dist.all_gather_object(found, own)
    return found
