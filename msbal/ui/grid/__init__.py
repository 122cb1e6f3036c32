"""The view of `msbal ablate`: arms x seeds, with what each run is at.

`make_grid` gives a live table on a terminal, else one line for each change of a run's state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rich.console import Console

from msbal.ui.grid.live import LiveGrid
from msbal.ui.grid.plain import PlainGrid
from msbal.ui.grid.quiet import QuietGrid
from msbal.ui.grid.state import State
from msbal.ui.monitor import Mode, can_be_live


class GridMonitor(Protocol):
    """What watches an ablation."""

    def planned(self, arms: Sequence[str], seeds: Sequence[int]) -> None:
        """The grid: every arm runs with every seed. All runs are queued."""

    def updated(
        self,
        arm: str,
        seed: int,
        state: State,
        ap: float | None = None,
        eta: float | None = None,
        progress: float | None = None,
    ) -> None:
        """A run has changed.

        Args:
            state: ``queued``, ``running``, ``done``, ``failed``, or ``kept`` where an earlier call
                finished it.
            ap: its last evaluation, 0..1; None leaves it as it was.
            eta: seconds that it still needs.
            progress: 0..1 of its iterations.
        """

    def message(self, text: str) -> None:
        """Something that a person should read, one line."""

    def close(self) -> None:
        """The end; the last view stays on the screen."""


def make_grid(mode: Mode, console: Console, title: str = "", metric: str = "AP") -> GridMonitor:
    """The grid view for a console; `mode` as in `make_monitor`, `metric` what to call the numbers."""
    if mode == "quiet":
        return QuietGrid(console)
    if mode != "plain" and can_be_live(console):
        return LiveGrid(console, title, metric=metric)
    return PlainGrid(console, title, metric=metric)
