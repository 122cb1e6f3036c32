"""The host's own arithmetic: what is in its memory it reads and writes itself, and computes as `Numbers`.

On the CPU that costs less than kernels. On a device, and where a compiler traces, everything stays a tensor, and
nothing here waits for one.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from msbal.engine.numbers import Numbers

_FORMATS = {torch.float64: "d", torch.float32: "f", torch.int64: "q"}


def readable(tensor: Tensor) -> bool:
    """Whether the host can compute with it: on the CPU, and not while a compiler traces."""
    return tensor.is_cpu and not torch.compiler.is_compiling()


def writer(rows: Tensor) -> Callable[..., None] | None:
    """Writes a row of a contiguous float64 or int64 tensor ``[M, N]`` straight into its memory.

    Returns:
        a function of the row's offset in bytes and its N numbers, which costs a tenth of `Tensor.copy_`; None
        where the memory is not the host's.
    """
    if not readable(rows):
        return None
    row = struct.Struct(f"{rows.shape[1]}{_FORMATS[rows.dtype]}")
    return partial(row.pack_into, memoryview(rows.numpy().data).cast("B"))


def numbers_of(tensor: Tensor) -> Any:
    """A ``[K]`` tensor as `Numbers`, a scalar as a Python number."""
    found = tensor.tolist()
    return Numbers(found) if isinstance(found, list) else found


def tensor_of(numbers: list[float], dtype: torch.dtype) -> Tensor:
    """`torch.tensor` on the CPU; of float32 and float64 at a third of its cost."""
    if dtype not in _FORMATS:
        return torch.tensor(numbers, dtype=dtype)
    return torch.frombuffer(array(_FORMATS[dtype], numbers), dtype=dtype)


def choose(condition: Tensor | bool, yes: Any, no: Any) -> Any:
    """`torch.where` for one condition; `yes` or `no` itself where it is a Python bool."""
    if isinstance(condition, bool):
        return yes if condition else no
    return torch.where(condition, yes, no)


def all_finite(*vectors: Any) -> Tensor | bool:
    """Whether no element of vectors of one shape is NaN or infinite: of tensors a bool scalar, of `Numbers` a bool."""
    if isinstance(vectors[0], Numbers):
        return all(all(map(math.isfinite, vector.values)) for vector in vectors)
    total = vectors[0]
    for vector in vectors[1:]:
        total = total + vector
    finite: Tensor = (
        total * 0.0
    ).sum() == 0  # times 0, only what is finite is 0; fewer kernels than isfinite
    return finite


def unless_nowhere(mask: Any) -> Any:
    """`mask`, or None where the host sees that it is nowhere true: what it guards against need not run then."""
    return None if isinstance(mask, Numbers) and True not in mask.values else mask
