"""Processes that load data."""

from __future__ import annotations

import signal
from collections.abc import Callable


def outlive_interrupts(worker: int, then: Callable[[int], object] | None = None) -> None:
    """Ignore Ctrl-C, which a terminal sends to all processes, since batches are needed until the training stops.

    A ``worker_init_fn`` of `torch.utils.data.DataLoader`.

    Args:
        then: the framework's own ``worker_init_fn``.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if then is not None:
        then(worker)
