"""Ctrl-C and a scheduler's SIGTERM ask for a checkpoint and an end, not for a traceback."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """Catches SIGINT and SIGTERM while it is entered; a second SIGINT interrupts at once.

    Attributes:
        requested: whether one has come.
        at_once: interrupt by the first one too: nothing is left to be saved.
    """

    def __init__(self) -> None:
        self.requested = self.at_once = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def request(self) -> None:
        """Ask for a checkpoint and an end, as a signal does."""
        self.requested = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if self.at_once or (again and number == signal.SIGINT):
            raise KeyboardInterrupt
