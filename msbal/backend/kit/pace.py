"""Telling the monitor how fast it goes, a few times a second."""

from __future__ import annotations

import time

import torch

from msbal.backend.protocol import Monitor

SECONDS = 0.25


class Pace:
    """Counts images and reports them.

    Args:
        monitor: told at most every quarter of a second, and of the last iteration.
        images: per iteration, over all processes.
        total: iterations of the run.
    """

    def __init__(self, monitor: Monitor, images: int, total: int, device: torch.device) -> None:
        self.monitor, self.images, self.total, self.device = monitor, images, total, device
        self._since, self._last = 0, time.perf_counter()

    def tick(self, iteration: int, learning_rate: float) -> None:
        """An iteration ended."""
        self._since += 1
        now = time.perf_counter()
        elapsed = now - self._last
        if elapsed < SECONDS and iteration < self.total:
            return
        scalars = {
            "images_per_second": self._since * self.images / max(elapsed, 1e-9),
            "learning_rate": learning_rate,
        }
        if self.device.type == "cuda":
            scalars["memory_bytes"] = float(torch.cuda.max_memory_allocated(self.device))
        self.monitor.stepped(iteration, scalars)
        self._since, self._last = 0, now

    def restart(self) -> None:
        """Forget the time that something else took: an evaluation, a checkpoint."""
        self._since, self._last = 0, time.perf_counter()
