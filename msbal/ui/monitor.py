"""The monitors of a run, as one, none of which can stop the training."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from msbal.backend import LevelGroup, Monitor
from msbal.ui.display import QuietMonitor, RunDisplay
from msbal.ui.screen import can_be_live
from msbal.ui.state import Ending, RunHeader
from msbal.ui.text import one_line

if TYPE_CHECKING:
    from msbal.engine.record import IntervalRecord

Mode = Literal["auto", "live", "plain", "quiet"]

__all__ = ["Ending", "Fanout", "Mode", "RunHeader", "make_monitor"]


def make_monitor(
    mode: Mode,
    console: Console,
    header: RunHeader,
    *,
    log_file: Path | None = None,
    trackers: Iterable[Monitor] = (),
    history: Iterable[IntervalRecord] = (),
    start_up: Monitor | None = None,
) -> Fanout:
    """Return the monitors of a run, as one. Close it at the end, or use it in a ``with`` statement.

    Args:
        mode: ``auto`` and ``live`` draw on a terminal and print lines elsewhere.
        console: where to print.
        header: what the run is.
        log_file: also append lines to this file.
        trackers: monitors of other tools, which are told of the run, too.
        history: the records so far of a run that is resumed, for the trends.
        start_up: what is shown until the training begins, of which it is told first.

    Raises:
        ValueError: for an unknown mode.
    """
    if mode not in ("auto", "live", "plain", "quiet"):
        raise ValueError(f"Mode should be auto, live, plain or quiet. Found {mode!r}.")
    monitors: list[Monitor] = [] if start_up is None else [start_up]
    if mode == "quiet":
        monitors.append(QuietMonitor(console))
    else:
        live = mode != "plain" and can_be_live(console)
        monitors.append(RunDisplay(console, header, live=live, history=history))
    if log_file is not None:
        monitors.append(RunDisplay.to_file(log_file, header))
    return Fanout([*monitors, *trackers])


class Fanout(Monitor):
    """Passes every call on to each of `monitors`.

    A monitor that raises is closed and left out from then on; the others are told once, or stderr
    if none is left. Interrupts and exits pass through.

    Used in a ``with`` statement it closes them all: as ``failed`` if an exception leaves the block,
    as ``stopped`` for Ctrl-C.
    """

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        self._monitors = list(monitors)
        self._open = list(monitors)

    def started(self, iteration: int, total: int, groups: Sequence[LevelGroup]) -> None:
        self._each("started", iteration, total, groups)

    def stepped(self, iteration: int, scalars: Mapping[str, float]) -> None:
        self._each("stepped", iteration, scalars)

    def interval(self, record: IntervalRecord) -> None:
        self._each("interval", record)

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        self._each("evaluated", iteration, metrics)

    def drawn(self, iteration: int, name: str, path: Path) -> None:
        self._each("drawn", iteration, name, path)

    def interval_so_far(self, record: IntervalRecord) -> None:
        self._each("interval_so_far", record)

    def progress(self, what: str, done: int, total: int) -> None:
        self._each("progress", what, done, total)

    def message(self, text: str) -> None:
        self._each("message", text)

    def close(self, ending: Ending | None = None) -> None:
        """Close the monitors that are still open and can be closed.

        The terminal, the first of them, says "finished" only once the trackers have sent everything or failed to, but
        "interrupted" at once.
        """
        at_once = ending is not None and ending.how == "interrupted"
        while self._open:
            self._tell(self._open.pop(0 if at_once else -1), "close", ending)

    def __enter__(self) -> Fanout:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.close(Ending("stopped" if issubclass(kind, KeyboardInterrupt) else "failed"))

    def _each(self, call: str, *arguments: object) -> None:
        for monitor in list(self._monitors):
            self._tell(monitor, call, *arguments)

    def _tell(self, monitor: Monitor, call: str, *arguments: object) -> None:
        try:
            _call(monitor, call, *arguments)
        except Exception as error:
            self._leave_out(monitor, error)

    def _leave_out(self, monitor: Monitor, error: Exception) -> None:
        if monitor not in self._monitors:
            return
        self._monitors.remove(monitor)
        if monitor in self._open:
            self._open.remove(monitor)
        with contextlib.suppress(Exception):  # the first failure is the one to tell
            _call(monitor, "close", None)
        name = getattr(monitor, "name", type(monitor).__name__)
        text = one_line(f"{name} failed and is left out: {type(error).__name__}: {error}")
        if self._monitors:
            self.message(text)
        else:
            print(text, file=sys.stderr)


def _call(monitor: Monitor, name: str, *arguments: object) -> None:
    if name != "close" or hasattr(monitor, name):  # a monitor need not be closed
        getattr(monitor, name)(*arguments)
