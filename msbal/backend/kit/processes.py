"""What the processes of a run tell each other."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist

from msbal.engine.processes import ranks

_T = TypeVar("_T")


def all_gather_objects(own: _T) -> list[_T]:
    """What each rank gives, in their order; a collective of what can be pickled."""
    found = [own] * ranks()
    if len(found) > 1:
        dist.all_gather_object(found, own)
    return found
