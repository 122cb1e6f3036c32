"""The page: the figures' curves to hover over, in one HTML file that needs nothing else.

The script (plotly.js, inlined) draws in the browser from the records that the page carries; here is only
what goes into it. The page's parts lie in ``page/``.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from msbal.plotting.extra import need
from msbal.plotting.panels import Panel, choose_panels
from msbal.plotting.series import Floats, GroupSeries, RunSeries, merge_names
from msbal.plotting.style import PALETTES, action_colors, level_colors
from msbal.records.atomic import write_text

DIGITS = 6
"""Significant digits that the page carries: more than a screen shows, half the size of all."""

_SAYS = {
    "loss": "each level's unweighted loss, a point an interval",
    "weights": "eq 5: what each level's loss is multiplied by; a lane spans the range of all levels",
    "probabilities": "eq 7, and below what was taken: in full colour where it was rewarded",
    "rewards": "eq 6: +1 where the summed loss fell against the interval before",
    "variance": "eq 3, of the loss within an interval",
    "reduction": "eq 4: above the line where the variance fell",
    "share": "of the sum of the levels' losses",
}


def write_page(
    runs: Sequence[RunSeries],
    path: Path,
    *,
    what: Sequence[str],
    palette: str = "paper",
    smooth: int = 1,
    overlay: bool = False,
    title: str = "",
) -> Path:
    """Writes the page of ``runs`` to ``path``.

    Raises:
        BackendError: plotly is missing.
        SpecError: an unknown palette.
    """
    need("plotly")
    from plotly.offline import get_plotlyjs

    content = payload(runs, choose_panels(runs, what), palette=palette, smooth=smooth, overlay=overlay)
    parts = {
        "title": html.escape(title or f"Level losses of {', '.join(run.name for run in runs)}"),
        "style": _part("page.css"),
        "records": to_script(content),
        "plotly": get_plotlyjs(),
        "script": _part("page.js"),
    }
    # One pass: what a part contains is not searched again.
    page = re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _part("page.html"))
    write_text(path, page)
    return path


def payload(
    runs: Sequence[RunSeries], panels: Sequence[Panel], *, palette: str, smooth: int, overlay: bool
) -> dict[str, Any]:
    """All that the page shows, as JSON's types; NaN is None, lists of levels are [K][I]."""
    levels = merge_names(group.levels for run in runs for group in run.groups)
    actions = merge_names(group.actions for run in runs for group in run.groups)
    level_colors(levels, palette)  # refuses an unknown palette
    return {
        "options": {"palette": palette, "smooth": smooth, "overlay": overlay},
        "levels": list(levels),
        "palettes": {name: level_colors(levels, name) for name in PALETTES},
        "actionColors": action_colors(actions),
        "panels": [_panel(panel) for panel in panels],
        "runs": [
            {
                "name": run.name,
                "source": run.source,
                "notes": list(run.notes),
                "groups": [_group(group, panels) for group in run.groups],
            }
            for run in runs
        ],
    }


def to_script(content: Any) -> str:
    """JSON that may stand inside a <script>: no "<" is left that could end it."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "key": f"{panel.group}/{panel.key}",
        "kind": panel.kind,
        "group": panel.group,
        "title": re.sub(r"\s*\$[^$]*\$", "", panel.title),  # mathtext is matplotlib's own
        "says": _SAYS[panel.kind],
        "term": panel.term,
        "weighted": panel.key == "share-weighted",
        "overlays": panel.overlays,
    }


def _group(group: GroupSeries, panels: Sequence[Panel]) -> dict[str, Any]:
    mine = [panel for panel in panels if panel.group == group.name and panel.has_data(group)]
    return {
        "name": group.name,
        "levels": list(group.levels),
        "actions": list(group.actions),
        "has": sorted({panel.kind for panel in mine}),
        "start": group.start,
        "iteration": group.iteration.tolist(),
        "count": group.count.tolist(),
        "loss": _columns(group.loss),
        "lossByTerm": {term: _columns(values) for term, values in group.loss_by_term.items()},
        "variance": _columns(group.variance),
        "varianceReduction": _columns(group.variance_reduction),
        "weights": _columns(group.weights),
        "previousWeights": _columns(group.previous_weights),
        "reward": _numbers(group.reward),
        "outcome": _numbers(group.outcome()),
        "action": list(group.action),
        "probabilities": _columns(group.probabilities),
        "nonfinite": [
            {key: getattr(loss, key) for key in ("iteration", "term", "level", "rank", "value")}
            for loss in group.nonfinite
        ],
        "summary": _summary(group),
    }


def _summary(group: GroupSeries) -> dict[str, Any]:
    """The line of the page's table: where the run stands, and what its choices earned."""
    known = np.flatnonzero(~group.missing)
    total = group.mean_loss().sum(axis=1)
    earned = group.outcome()
    taken = np.array(group.action)
    names = group.actions or tuple(dict.fromkeys(name for name in group.action if name))
    return {
        "intervals": len(known),
        "iterations": int(group.iteration[-1]),
        "length": group.length,
        "first": _number(total[known[0]]),
        "last": _number(total[known[-1]]),
        "weights": _numbers(group.weights[-1]),
        "actions": [
            {
                "name": name,
                "taken": int((taken == name).sum()),
                "rewarded": int((earned[taken == name] > 0).sum()),
                # Eq 6 judges the action of an interval by the next one: the newest has no verdict yet.
                "judged": int(np.isfinite(earned[taken == name]).sum()) if group.actions else 0,
            }
            for name in names
        ],
    }


def _columns(values: Floats) -> list[list[float | None]]:
    """[I, K] -> [K][I]."""
    return [_numbers(column) for column in values.T]


def _numbers(values: Floats) -> list[float | None]:
    return [_number(value) for value in values.tolist()]


def _number(value: float) -> float | None:
    if not np.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded


def _part(name: str) -> str:
    return resources.files("msbal.plotting").joinpath("page", name).read_text(encoding="utf-8")
