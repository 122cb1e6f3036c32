"""As exact as the device can compute: the same bits every time, in whole float32."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def precise() -> Iterator[None]:
    """Whole float32, and convolutions that repeat; what was set before comes back afterwards.

    On a GPU torch otherwise convolves with ten bits of mantissa (TF32): two gradients of one loss then differ by some
    thousandths. On a CPU nothing changes.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32
    if torch.cuda.is_available():
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = False, True, False, False
    try:
        yield
    finally:
        if torch.cuda.is_available():
            cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = before


@contextmanager
def deterministic() -> Iterator[None]:
    """`precise`, and deterministic algorithms wherever there are some.

    An operation that has none is warned of. Some are slow: torchvision compiles RoIAlign anew, for one.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with precise():
        if torch.cuda.is_available():
            torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
