"""Of the grid only what went wrong, and the counts."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from msbal.ui.grid.drawing import counts_text
from msbal.ui.grid.state import Grid, State
from msbal.ui.text import one_line


class QuietGrid:
    """Failed runs, and the counts at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._grid = Grid()

    def planned(self, arms: Sequence[str], seeds: Sequence[int]) -> None:
        self._grid.planned(arms, seeds)

    def updated(
        self,
        arm: str,
        seed: int,
        state: State,
        ap: float | None = None,
        eta: float | None = None,
        progress: float | None = None,
    ) -> None:
        if self._grid.updated(arm, seed, state, ap, eta, progress) and state == "failed":
            self._console.print(
                Text(f"{one_line(arm)}, seed {seed}: failed"), soft_wrap=True, highlight=False
            )

    def message(self, text: str) -> None:
        pass

    def close(self) -> None:
        self._console.print(counts_text(self._grid), soft_wrap=True, highlight=False)
