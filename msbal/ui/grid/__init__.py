"""The view of `msbal ablate`: arms x seeds, with what each run is at."""

from __future__ import annotations

from rich.console import Console

from msbal.ui.grid.display import GridDisplay, QuietGrid
from msbal.ui.grid.state import GridMonitor
from msbal.ui.monitor import Mode
from msbal.ui.screen import can_be_live

__all__ = ["GridDisplay", "GridMonitor", "QuietGrid", "make_grid"]


def make_grid(mode: Mode, console: Console, title: str = "", metric: str = "AP") -> GridMonitor:
    """Return the view for a console; `mode` as in `make_monitor`, `metric` what to call the numbers."""
    if mode == "quiet":
        return QuietGrid(console)
    live = mode != "plain" and can_be_live(console)
    return GridDisplay(console, title, live=live, metric=metric)
