"""The grid as a live table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from msbal.ui.grid.drawing import grid_lines
from msbal.ui.grid.state import Grid, State
from msbal.ui.look import Look
from msbal.ui.screen import Screen
from msbal.ui.text import one_line


class LiveGrid:
    """The grid at the foot of a terminal."""

    def __init__(
        self,
        console: Console,
        title: str = "",
        clock: Callable[[], float] = time.monotonic,
        metric: str = "AP",
    ) -> None:
        self._console, self._title = console, title
        self._look = Look.of(console)
        self._grid = Grid(clock, metric)
        self._screen: Screen | None = None

    def planned(self, arms: Sequence[str], seeds: Sequence[int]) -> None:
        self._grid.planned(arms, seeds)
        if self._screen is None:
            self._screen = Screen(self._console, self._look, self._frame, self._drawing_failed)
            self._screen.start()
        self._screen.changed()

    def updated(
        self,
        arm: str,
        seed: int,
        state: State,
        ap: float | None = None,
        eta: float | None = None,
        progress: float | None = None,
    ) -> None:
        self._grid.updated(arm, seed, state, ap, eta, progress)
        if self._screen is not None:
            self._screen.changed()

    def message(self, text: str) -> None:
        self._grid.messages.append(one_line(text))
        if self._screen is None:
            self._console.print(Text(one_line(text)), highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._screen is not None:
            self._screen.stop(self._frame(self._console.width, 10_000))
            self._screen = None

    def _frame(self, width: int, height: int) -> list[Text]:
        with self._grid.lock:
            return grid_lines(self._grid, width, height, self._look, self._title)

    def _drawing_failed(self, error: Exception) -> None:
        self._screen = None
        self._console.print(f"the live view failed ({type(error).__name__}: {error}); the runs go on")
