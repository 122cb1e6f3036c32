"""What a person sees of an ablation: a live view, or a line for each change, or next to nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from msbal.metric_text import points
from msbal.ui.grid.state import GridMonitor, State
from msbal.ui.grid.view import STYLES, GridView, counts_text, mean_text
from msbal.ui.output import Output
from msbal.ui.printing import print_line
from msbal.ui.text import duration, one_line

PROGRESS_SECONDS = 30.0


class GridDisplay(GridMonitor):
    """Prints a line for each change of a run's state, and on progress now and then; or draws, if `live`.

    Args:
        console: where to print; a terminal if `live`.
        title: what is run.
        live: draw; should that ever fail, the ablation goes on with lines.
        clock: seconds, monotonic.
        metric: what to call the numbers.
    """

    def __init__(
        self,
        console: Console,
        title: str = "",
        *,
        live: bool = False,
        clock: Callable[[], float] = time.monotonic,
        metric: str = "AP",
    ) -> None:
        super().__init__(clock, metric)
        self._title = title
        self._out = Output(console, self.lock, GridView(self, title) if live else None, kind_width=6)
        self._next = 0.0
        self._closed = False

    def planned(self, arms: Sequence[str], seeds: Sequence[int]) -> None:
        super().planned(arms, seeds)
        self._next = self.clock() + PROGRESS_SECONDS
        self._out.begin()
        size = f"{len(arms)} arms x {len(seeds)} seeds = {len(arms) * len(seeds)} runs"
        self._out.event("grid", one_line(self._title), size)

    def updated(self, arm: str, seed: int, state: State, **found: Any) -> bool:
        changed = super().updated(arm, seed, state, **found)
        now = self.clock()
        if (changed and state != "skipped") or now >= self._next:
            self._next = now + PROGRESS_SECONDS
            run = self.runs[arm, seed]
            taken, what = self.elapsed_of(run), "took" if run.seconds is not None else "elapsed"
            self._out.event(
                "run",
                f"arm {self._name(arm)}",
                f"seed {seed}",
                Text(f"{state:<7}", style=STYLES[state]),
                "" if run.progress is None else f"{100 * run.progress:.0f}%",
                run.doing,
                "" if run.ap is None else f"{self.metric} {points(run.ap, 1)}",
                "" if taken is None else f"{what} {duration(taken)}",
                self._counts(),
            )
        return changed

    def message(self, text: str) -> None:
        super().message(text)
        self._out.event("note", one_line(text))

    def close(self) -> None:
        """Leave the last view, or print the means. Again: no effect."""
        if self._closed:
            return
        self._closed = True
        if self._out.drawing:
            self._out.end()
            return
        for arm in self.arms:
            failed = self.states(arm).count("failed")
            mean = mean_text(self.aps(arm), "+-")
            self._out.event(
                "arm", self._name(arm), f"mean {self.metric} {mean}", f"{failed} failed" if failed else ""
            )
        self._out.event("end", self._counts(), f"after {duration(self.elapsed())}")

    def _name(self, arm: str) -> str:
        return one_line(arm).ljust(max(map(len, self.arms)))

    def _counts(self) -> str:
        failed = self.count("failed")
        finished = f"{self.count('done', 'kept')}/{self.planned_runs} finished"
        return f"({finished}{f', {failed} failed' if failed else ''}, eta {duration(self.remaining())})"


class QuietGrid(GridMonitor):
    """Prints failed runs, and the counts at the end."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def updated(self, arm: str, seed: int, state: State, **found: Any) -> bool:
        changed = super().updated(arm, seed, state, **found)
        if changed and state == "failed":
            print_line(self._console, f"{one_line(arm)}, seed {seed}: failed")
        return changed

    def close(self) -> None:
        print_line(self._console, counts_text(self))
