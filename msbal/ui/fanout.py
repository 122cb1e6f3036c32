"""Several monitors as one, none of which can stop the training."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from msbal.ui.text import one_line

if TYPE_CHECKING:
    from msbal.backend import LevelGroup, Monitor
    from msbal.engine.record import IntervalRecord
    from msbal.ui.state import Ending


class Fanout:
    """Passes every call on to each of `monitors`.

    A monitor that raises is closed and left out from then on; the others are told once, or stderr
    where none is left. Interrupts and exits pass through.

    Used in a ``with`` statement it closes them all: as ``failed`` where an exception leaves the block,
    as ``stopped`` for Ctrl-C.
    """

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        self._monitors = list(monitors)
        self._closed = False

    def started(self, iteration: int, total: int, groups: Sequence[LevelGroup]) -> None:
        self._each(lambda m: m.started(iteration, total, groups))

    def stepped(self, iteration: int, scalars: Mapping[str, float]) -> None:
        self._each(lambda m: m.stepped(iteration, scalars))

    def interval(self, record: IntervalRecord) -> None:
        self._each(lambda m: m.interval(record))

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        self._each(lambda m: m.evaluated(iteration, metrics))

    def message(self, text: str) -> None:
        self._each(lambda m: m.message(text))

    def close(self, ending: Ending | None = None) -> None:
        """Close those monitors that can be closed. Again: no effect."""
        if self._closed:
            return
        self._closed = True
        self._each(lambda m: _close(m, ending))

    def __enter__(self) -> Fanout:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        from msbal.ui.state import Ending

        if kind is None:
            self.close()
        else:
            self.close(Ending("stopped" if issubclass(kind, KeyboardInterrupt) else "failed"))

    def _each(self, call: Callable[[Monitor], None]) -> None:
        for monitor in list(self._monitors):
            try:
                call(monitor)
            except Exception as error:
                self._leave_out(monitor, error)

    def _leave_out(self, monitor: Monitor, error: Exception) -> None:
        if monitor not in self._monitors:
            return
        self._monitors.remove(monitor)
        try:
            _close(monitor, None)
        except Exception as second:
            error = error or second
        text = one_line(f"{type(monitor).__name__} failed and is left out: {type(error).__name__}: {error}")
        if self._monitors:
            self._each(lambda m: m.message(text))
        else:
            print(text, file=sys.stderr)


def _close(monitor: Monitor, ending: Ending | None) -> None:
    close = getattr(monitor, "close", None)
    if close is not None:
        close(ending)
