"""Ctrl-C and a scheduler's SIGTERM ask for a checkpoint and an end."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from msbal.engine.processes import world_size


class StopRequest:
    """Catches SIGINT and SIGTERM while it is entered; a second SIGINT interrupts at once.

    Attributes:
        requested: whether one has come.
        at_once: let the first one interrupt too, as nothing is left to save.
    """

    def __init__(self) -> None:
        self.requested = self.at_once = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def request(self) -> None:
        """Ask for a checkpoint and an end, as a signal does."""
        self.requested = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if self.at_once or (again and number == signal.SIGINT):
            raise KeyboardInterrupt


class StopAgreement:
    """Tells whether any rank was asked to stop, as one that stopped alone would leave the others waiting.

    All ranks call it once an iteration. They exchange their answers only at every `EVERY`-th call, since that waits for
    the device.
    """

    EVERY = 20

    def __init__(self, stop: StopRequest) -> None:
        self._stop, self._calls, self._agreed = stop, 0, False

    @property
    def stopped(self) -> bool:
        """What all ranks have agreed on so far."""
        return self._agreed if world_size() > 1 else self._stop.requested

    def __call__(self) -> bool:
        self._calls += 1
        if world_size() > 1 and not self._agreed and self._calls % self.EVERY == 0:
            flag = torch.tensor([int(self._stop.requested)])
            if dist.get_backend() == "nccl":
                flag = flag.cuda()
            dist.all_reduce(flag, dist.ReduceOp.MAX)
            self._agreed = bool(flag)
        return self.stopped
