"""Ctrl-C and a scheduler's SIGTERM ask for a checkpoint and an end; a second Ctrl-C ends a run at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from msbal.engine.processes import world_size

INTERRUPTED = 130
"""The exit code of a run that was stopped."""

GRACE = 5.0
"""Seconds that an interrupted run has to come to its end, whatever it waits for."""


class StopRequest:
    """Catches SIGINT and SIGTERM while it is entered.

    The first signal asks to stop. A second SIGINT raises `KeyboardInterrupt`; later ones change nothing.

    Args:
        say: called with what happens next, from a thread of its own, as the signal may come while anything is locked.
        last_words: called from that thread before the process is ended, where an interrupt has not ended it in `GRACE`
            seconds. None leaves the process alone.

    Attributes:
        requested: whether a signal has come.
        at_once: let the first SIGINT or SIGTERM interrupt too, as there is nothing to save.
        interrupted: whether `KeyboardInterrupt` has been raised.
        doing: what is completed before the run stops.
    """

    def __init__(
        self, say: Callable[[str], None] | None = None, last_words: Callable[[], None] | None = None
    ) -> None:
        self.requested = self.at_once = self.interrupted = False
        self.doing = "this iteration"
        self._say, self._last_words = say, last_words
        self._previous: dict[int, Any] = {}
        # The one thing that a signal handler may safely do, whatever it has interrupted, is to put something in here.
        self._signals: SimpleQueue[int | None] = SimpleQueue()
        self._over = threading.Event()

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            threading.Thread(target=self._watch, name="msbal stop", daemon=True).start()
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._signals.put(None)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def request(self) -> None:
        """Ask for a checkpoint and an end, as a signal does."""
        self.requested = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            return
        again, self.requested = self.requested, True
        self.interrupted = self.at_once or (again and number == signal.SIGINT)
        self._signals.put(number)
        if self.interrupted:
            raise KeyboardInterrupt

    def _watch(self) -> None:
        while (number := self._signals.get()) is not None:
            if not self.interrupted:
                if self._say is not None:
                    again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
                    self._say(f"stopping after {self.doing}{again}")
            elif self._last_words is not None and not self._over.wait(GRACE):
                self._last_words()
                os._exit(INTERRUPTED)


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
