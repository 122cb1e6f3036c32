"""Processes that load data."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

DEFAULT_WORKERS = 4
"""With a GPU. A model that trains on the CPU needs the cores itself."""


def outlive_interrupts(worker: int, then: Callable[[int], object] | None = None) -> None:
    """Ignore Ctrl-C, which a terminal sends to all processes, since batches are needed until the training stops.

    A ``worker_init_fn`` of `torch.utils.data.DataLoader`.

    Args:
        then: the framework's own ``worker_init_fn``.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if then is not None:
        then(worker)


def load_batches(
    stream: Dataset[Any], positions: Sampler[list[int]], collate: Callable[[list[Any]], Any], workers: int | None,
    device: torch.device,
) -> DataLoader[Any]:  # fmt: skip
    """Return the batches of a loop that ends its workers itself.

    Args:
        positions: in the stream, of each batch.
        workers: how many; None for the default of the device.
    """
    if workers is None:
        workers = DEFAULT_WORKERS if device.type == "cuda" else 0
    return DataLoader(
        stream,
        batch_sampler=positions,
        num_workers=workers,
        worker_init_fn=_outlive_signals,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        # Its draws decide nothing, but without a generator of its own it would draw from the global one.
        generator=torch.Generator(),
    )


def _outlive_signals(worker: int) -> None:
    """A scheduler's SIGTERM reaches all processes: those that load data go on until the training has stopped."""
    outlive_interrupts(worker)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
