"""Figures of what a run recorded. Reads records, never live objects, and imports no torch.

`read_runs` and `describe_panels` need nothing but NumPy; `draw_figure` and `draw_files` need matplotlib, `write_page`
plotly (both in the extra ``plots``).
"""

from __future__ import annotations

from msbal.plotting.describe import WHAT, describe_panels, parse_what
from msbal.plotting.figure import draw_diagnosis, draw_figure, draw_files, save_figure
from msbal.plotting.html import write_page
from msbal.plotting.reading import read_runs
from msbal.plotting.series import GroupSeries, RunSeries

__all__ = [
    "WHAT",
    "GroupSeries",
    "RunSeries",
    "describe_panels",
    "draw_diagnosis",
    "draw_figure",
    "draw_files",
    "parse_what",
    "read_runs",
    "save_figure",
    "write_page",
]
