"""Shortcuts for tensors that the host can read without waiting: on the CPU a branch costs less than a kernel.

They change no number, and nothing else depends on them: every function of the engine is right without.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from msbal.engine.numbers import Numbers


def readable(tensor: Tensor) -> bool:
    """Whether a value can be read for nothing: on the CPU, and not while a compiler traces."""
    return tensor.is_cpu and not torch.compiler.is_compiling()


def writer(rows: Tensor) -> Callable[..., None] | None:
    """Writes a row of a contiguous float64 tensor ``[M, N]`` straight into its memory.

    Returns:
        a function of the row's offset in bytes and its N numbers, which costs a tenth of `Tensor.copy_`; None
        where the memory is not the host's.
    """
    if not readable(rows):
        return None
    return partial(struct.Struct(f"{rows.shape[1]}d").pack_into, memoryview(rows.numpy().data).cast("B"))


def tensor_of(numbers: list[float], dtype: torch.dtype) -> Tensor:
    """`torch.tensor` of float32 or float64 on the CPU, at a third of its cost."""
    return torch.frombuffer(array("f" if dtype == torch.float32 else "d", numbers), dtype=dtype)


def read(condition: Tensor) -> Tensor | bool:
    """A bool scalar as a Python bool where that costs nothing, to be read once and used often."""
    return bool(condition) if readable(condition) else condition


def choose(condition: Tensor | bool, yes: Tensor, no: Tensor) -> Tensor:
    """`torch.where` for one condition, a bool scalar; where it is readable, `yes` or `no` itself."""
    condition = condition if isinstance(condition, bool) else read(condition)
    if isinstance(condition, bool):
        return yes if condition else no
    return torch.where(condition, yes, no)


def all_finite(*tensors: Tensor) -> Tensor | bool:
    """Whether no element of tensors of one shape is NaN or infinite: a bool scalar, where it is readable a bool."""
    if all(map(readable, tensors)):
        return all(all(map(math.isfinite, _numbers(tensor))) for tensor in tensors)
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return (total * 0.0).sum() == 0  # times 0, only what is finite is 0; fewer kernels than isfinite


def _numbers(tensor: Tensor) -> list[float]:
    return tensor.tolist() if tensor.dim() == 1 else tensor.flatten().tolist()


def unless_nowhere(mask: Tensor) -> Tensor | None:
    """`mask`, or None where it is readable and nowhere true: what it guards against need not run then."""
    seen = isinstance(mask, Numbers) or readable(mask)
    return None if seen and True not in mask.tolist() else mask
