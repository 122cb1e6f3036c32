"""The grid as lines, where no terminal can be redrawn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from msbal.ui.grid.drawing import STYLES, mean_text
from msbal.ui.grid.state import Grid, State
from msbal.ui.text import duration, one_line

PROGRESS_SECONDS = 30.0


class PlainGrid:
    """A line for each change of a run's state, and the counts now and then."""

    def __init__(
        self,
        console: Console,
        title: str = "",
        clock: Callable[[], float] = time.monotonic,
        metric: str = "AP",
    ) -> None:
        self._console, self._title = console, title
        self._grid = Grid(clock, metric)
        self._next = 0.0

    def planned(self, arms: Sequence[str], seeds: Sequence[int]) -> None:
        self._grid.planned(arms, seeds)
        self._next = self._grid.clock() + PROGRESS_SECONDS
        self._print(
            "grid",
            one_line(self._title),
            f"{len(arms)} arms x {len(seeds)} seeds = {len(arms) * len(seeds)} runs",
        )

    def updated(
        self,
        arm: str,
        seed: int,
        state: State,
        ap: float | None = None,
        eta: float | None = None,
        progress: float | None = None,
    ) -> None:
        grid = self._grid
        changed = grid.updated(arm, seed, state, ap, eta, progress)
        now = grid.clock()
        if not changed and now < self._next:
            return
        self._next = now + PROGRESS_SECONDS
        run = grid.runs[arm, seed]
        width = max(len(name) for name in grid.arms)
        parts: list[str | Text] = [
            f"arm {one_line(arm):<{width}}",
            f"seed {seed}",
            Text(f"{state:<7}", style=STYLES[state]),
        ]
        if run.progress is not None:
            parts.append(f"{100 * run.progress:.0f}%")
        if run.ap is not None:
            parts.append(f"{grid.metric} {run.ap:.4f}")
        if run.seconds is not None:
            parts.append(f"took {duration(run.seconds)}")
        self._print("run", *parts, self._counts())

    def _counts(self) -> str:
        grid = self._grid
        failed = grid.count("failed")
        finished = f"{grid.count('done', 'kept')}/{len(grid.runs)} finished"
        return f"({finished}{f', {failed} failed' if failed else ''}, eta {duration(grid.remaining())})"

    def message(self, text: str) -> None:
        self._print("note", one_line(text))

    def close(self) -> None:
        grid = self._grid
        width = max((len(arm) for arm in grid.arms), default=0)
        for arm in grid.arms:
            failed = sum(grid.runs[arm, s].state == "failed" for s in grid.seeds if (arm, s) in grid.runs)
            mean = mean_text(grid.aps(arm)).replace("±", "+-")
            self._print(
                "arm",
                f"{one_line(arm):<{width}}",
                f"mean {grid.metric} {mean}",
                f"{failed} failed" if failed else "",
            )
        self._print("end", self._counts(), f"after {duration(grid.clock() - grid.begun)}")

    def _print(self, kind: str, *parts: str | Text) -> None:
        line = Text(f"{kind:<6}")
        for i, part in enumerate(part for part in parts if str(part)):
            line.append("  " if i else "")
            line.append_text(part if isinstance(part, Text) else Text(part))
        line.rstrip()
        self._console.print(line, soft_wrap=True, highlight=False)
