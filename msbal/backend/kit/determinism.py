"""Full float32 and the same bits every time, as far as the device can."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def precise() -> Iterator[None]:
    """Compute in full float32 with reproducible convolutions; restore the settings afterwards.

    By default torch convolves on a GPU in TF32, with ten bits of mantissa, and two gradients of one loss then differ
    by some thousandths. On a CPU this is a no-op.
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
    """Be `precise`, and use deterministic algorithms where they exist; warn of an operation that has none.

    Some are slow: torchvision, for one, compiles RoIAlign anew.
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
