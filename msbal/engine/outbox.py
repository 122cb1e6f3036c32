"""Reports on their way from the device to the host."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

from msbal.engine.report import IntervalReport, Layout, Packed, split, unpack


class Outbox:
    """A queue of packed reports; each interval's leaves it once, in order."""

    def __init__(self) -> None:
        self._pending: deque[tuple[Packed | Tensor, Any]] = deque()  # each with its CUDA event
        self._last = 0  # interval that was handed out

    def __len__(self) -> int:
        return len(self._pending)

    def send(self, report: Packed | Tensor) -> None:
        """Start the copy to the host; from CUDA into pinned memory, without waiting."""
        if isinstance(report, Packed):
            self._pending.append((report, None))
        elif not report.is_cuda:
            self._pending.append((report.cpu(), None))
        else:
            host = torch.empty(report.shape, dtype=report.dtype, pin_memory=True)
            with torch.cuda.device(report.device):
                host.copy_(report, non_blocking=True)
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record()
            self._pending.append((host, event))

    def take(self, layout: Layout, knows_positives: bool, wait: bool) -> list[IntervalReport]:
        """The reports that have arrived, oldest first.

        Args:
            wait: wait for those still on their way (a synchronisation).

        Raises:
            RuntimeError: where the ranks have not counted the same intervals.
        """
        finished: list[IntervalReport] = []
        while self._pending:
            report, event = self._pending[0]
            if event is not None and not event.query():
                if not wait:
                    break
                event.synchronize()
            self._pending.popleft()
            packed = report if isinstance(report, Packed) else split(report, layout)
            interval = int(packed.numbers[0])
            # A device that counts on its own is asked again and again, whether or not an interval has ended.
            if interval > self._last:
                self._last = interval
                finished.append(unpack(packed, layout, knows_positives))
        return finished
