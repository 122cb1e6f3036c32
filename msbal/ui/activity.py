"""A line that says what goes on before there is anything else to show."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Lock

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from msbal.backend import LevelGroup, Monitor
from msbal.ui.look import QUIET, STRONG, bar_line, line
from msbal.ui.printing import print_line
from msbal.ui.screen import Screen, can_be_live
from msbal.ui.state import Activity
from msbal.ui.text import duration, one_line

BAR_WIDTH = 80
LINE_SECONDS = 10.0  # at least, between two lines where there is no terminal


def activity_line(activity: Activity, now: float, width: int) -> Text:
    """Return what goes on, ``evaluating 12/64``, with a bar and the time left, or how long it has taken so far."""
    counts = line((activity.counts, STRONG))
    if activity.total <= 1:
        return line(counts, "  ", duration(now - activity.begun))
    when = line(("ETA ", QUIET), duration(activity.remaining(now)))
    return bar_line(activity.done / activity.total, "magenta", counts, when, width)


class ActivityLine(Monitor):
    """Shows the line until the training begins, and then erases it.

    Without a terminal, a line is printed now and then instead.

    Args:
        console: where to show it.
        shown: False shows nothing.
        clock: seconds, monotonic.
    """

    def __init__(
        self, console: Console, shown: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._shown, self._clock = console, shown, clock
        self._activity: Activity | None = None
        self._next = clock() + LINE_SECONDS
        self._screen: Screen | None = None
        if shown and can_be_live(console):
            self._screen = Screen(console, self, Lock(), lambda error: None, transient=True)

    def __enter__(self) -> ActivityLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def progress(self, what: str, done: int, total: int) -> None:
        """Show what goes on; the line appears with the first call."""
        now, before = self._clock(), self._activity
        begun = before.begun if before is not None and before.what == what else now
        self._activity = Activity(what, done, total, begun)
        if self._screen is not None:
            self._screen.start()
        elif self._shown and now >= self._next and done < total:
            self._next = now + LINE_SECONDS
            print_line(self._console, one_line(self._activity.counts))

    def started(self, iteration: int, total: int, groups: Sequence[LevelGroup]) -> None:
        self.close()

    def close(self, ending: object = None) -> None:
        """Erase the line. Again: no effect."""
        self._shown = False
        if self._screen is not None:
            screen, self._screen = self._screen, None
            screen.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if (activity := self._activity) is not None:
            yield activity_line(activity, self._clock(), min(BAR_WIDTH, options.max_width))
