"""Processes that load data."""

from __future__ import annotations

import signal
from collections.abc import Callable


def outlive_interrupts(worker: int, then: Callable[[int], object] | None = None) -> None:
    """Go on loading after a terminal's Ctrl-C, which reaches all processes, until the training has stopped.

    A ``worker_init_fn`` of `torch.utils.data.DataLoader`.

    Args:
        then: the framework's own one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if then is not None:
        then(worker)
