"""Figures of what a run recorded. Reads records, never live objects, and imports no torch.

`read_runs` and `choose_panels` need nothing but NumPy; `draw_figure`, `draw_files` need matplotlib and
`write_page` plotly (both in the extra ``plots``).
"""

from __future__ import annotations

from msbal.plotting.figure import draw_figure, draw_files, save_figure
from msbal.plotting.html import write_page
from msbal.plotting.panels import WHAT, choose_panels, parse_what
from msbal.plotting.reading import read_runs
from msbal.plotting.series import GroupSeries, RunSeries

__all__ = [
    "WHAT",
    "GroupSeries",
    "RunSeries",
    "choose_panels",
    "draw_figure",
    "draw_files",
    "parse_what",
    "read_runs",
    "save_figure",
    "write_page",
]
