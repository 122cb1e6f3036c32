"""What the balancers of several processes tell each other."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

_T = TypeVar("_T")


def ranks() -> int:
    """Processes of the default group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if ranks() > 1 else 0


def all_gather(flat: Tensor) -> Tensor:
    """``[N]`` of every rank as ``[R, N]``. Not reduced: all then average in one order, and a NaN keeps its rank."""
    if ranks() == 1:
        return flat.unsqueeze(0)
    gathered = flat.new_empty(ranks() * flat.numel())
    dist.all_gather_into_tensor(gathered, flat)
    return gathered.view(-1, flat.numel())


def all_gather_objects(own: _T) -> list[_T]:
    """What each rank gives, in their order; a collective of what can be pickled."""
    found = [own] * ranks()
    if len(found) > 1:
        dist.all_gather_object(found, own)
    return found
