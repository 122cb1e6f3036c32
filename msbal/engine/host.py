"""Shortcuts for tensors that the host can read without waiting: on the CPU a branch costs less than a kernel.

They change no number, and nothing else depends on them: every function of the engine is right without.
"""

from __future__ import annotations

import torch
from torch import Tensor


def readable(tensor: Tensor) -> bool:
    """Whether a value can be read for nothing: on the CPU, and not while a compiler traces."""
    return tensor.is_cpu and not torch.compiler.is_compiling()


def read(condition: Tensor) -> Tensor | bool:
    """A bool scalar as a Python bool where that costs nothing, to be read once and used often."""
    return bool(condition) if readable(condition) else condition


def choose(condition: Tensor | bool, yes: Tensor, no: Tensor) -> Tensor:
    """`torch.where` for one condition, a bool scalar; where it is readable, `yes` or `no` itself."""
    condition = condition if isinstance(condition, bool) else read(condition)
    if isinstance(condition, bool):
        return yes if condition else no
    return torch.where(condition, yes, no)
