"""Write the panels as one HTML file to hover over, zoom and filter, which needs nothing else.

Plotly's Python objects are the figures (`plotly_panel`) and its library, inlined, draws them. A short script of our
own, ``page/page.js``, applies the page's controls and a zoom to all of them, where plotly's buttons reach only the
figure that they stand in.
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

from msbal.plotting.describe import Row, describe_panels, make_look
from msbal.plotting.kinds import Look
from msbal.plotting.panel import Panel
from msbal.plotting.plotly_panel import plotly_panel, without_mathtext
from msbal.plotting.series import GroupSeries, RunSeries
from msbal.plotting.style import DASHES, MARKERS, PALETTES, check_overlay, level_colors, need
from msbal.records.atomic import write_text


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
    """Write the page of `runs` to `path`.

    Raises:
        BackendError: plotly is missing.
        SpecError: an unknown palette, nothing to show, or more runs to overlay than line styles.
    """
    need("plotly")
    if overlay:
        check_overlay(len(runs))
    look = make_look(runs, palette)
    cards, figures = _cards(runs, describe_panels(runs, what))
    from plotly.offline import get_plotlyjs

    content = {
        "figures": figures,
        "palettes": {name: level_colors(list(look.levels), name) for name in PALETTES},
    }
    parts = {
        "title": html.escape(title or f"Level losses of {', '.join(run.name for run in runs)}"),
        "style": _part("page.css"),
        "levels": "".join(_chip("level", name, _sign(look, name), its.label) for name, its in look.levels.items()),
        "runs": "".join(_chip("run", str(n), _dash(n), run.name) for n, run in enumerate(runs)),
        "one": "hidden" if len(runs) < 2 else "",
        "smooth": f'max="{max(101, smooth)}" value="{smooth}"',
        "palettes": "".join(_option(name, name == palette) for name in PALETTES),
        "layouts": _option("side", not overlay, "side by side")
        + _option("overlay", overlay, "overlaid") * (len(runs) <= len(DASHES)),
        "notes": "".join(
            f'<div class="note">{html.escape(f"{run.name}: {note}")}</div>' for run in runs for note in run.notes
        ),
        "summary": _summary(runs, look),
        "panels": cards,
        "figures": to_script(content),
        "plotly": get_plotlyjs(),
        "script": _part("page.js"),
    }  # fmt: skip
    # One pass: what a part contains is not searched again.
    write_text(path, re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _part("page.html")))
    return path


def to_script(content: Any) -> str:
    """Return JSON that may stand inside a <script>: no "<" is left that could end it."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _cards(runs: Sequence[RunSeries], rows: Sequence[Row]) -> tuple[str, list[dict[str, Any]]]:
    """Return the cards of all panels, and the figure of each: side by side, and overlaid where a kind allows it."""
    text, figures, diagnosed = "", [], False
    heading, several = "", len({row.panels[0].group for row in rows if row.panels[0].group}) > 1
    for row in rows:
        first = row.panels[0]
        if not first.over_iterations and not diagnosed:
            diagnosed, heading = True, ""
            text += "".join(
                _findings(n, run, several=len(runs) > 1) for n, run in enumerate(runs) if run.diagnosis
            )
        if first.group != heading:
            heading = first.group
            text += f"<h2>{html.escape(heading)}</h2>" * several
        cards = []
        for n, (run, panel) in enumerate(zip(runs, row.alone, strict=True)):
            layout = "side" if row.together or not panel else ""
            cards.append(
                _card(panel or first, layout, str(n), run.name if len(runs) > 1 else "", empty=not panel)
            )
        if row.together:
            cards.append(_card(row.together, "overlay", "", ""))
        figures += [plotly_panel(panel) for panel in (*row.alone, row.together) if panel]
        text += f'<div class="row">{"".join(cards)}</div>'
    return text, figures


def _findings(number: int, run: RunSeries, *, several: bool) -> str:
    """Return what `msbal diagnose` found, in words."""
    diagnosis = run.diagnosis
    assert diagnosis is not None
    groups = len({finding.group for finding in diagnosis.findings}) > 1
    found = "".join(
        f"<li>{html.escape(f'{finding.group}: ' * groups + finding.text)}</li>"
        for finding in diagnosis.findings
    )
    name = f" of {html.escape(run.name)}" if several else ""
    return (
        f'<section class="findings" data-run="{number}"><h2>The levels{name}, by <code>msbal diagnose</code></h2>'
        f"<p>Means over {diagnosis.batches} batches of {diagnosis.batch_size} training images, with 95 % intervals "
        f"over batches.</p><ul>{found}</ul></section>"
    )


def _card(panel: Panel, layout: str, run: str, name: str, *, empty: bool = False) -> str:
    title = html.escape(without_mathtext(panel.title))
    where = f'class="card{" empty" * empty}" data-layout="{layout}" data-run="{run}"'
    if empty:
        return f"<section {where}>{title}: nothing recorded by {html.escape(name)}</section>"
    name = f'<span class="soft">  {html.escape(name)}</span>' if name else ""
    key = html.escape(f"{panel.group}/{panel.key}")
    return (
        f"<section {where}><h3>{title}{name}</h3><p>{html.escape(panel.says)}</p>"
        f'<div class="plot" data-panel="{key}"></div></section>'
    )


def _chip(kind: str, value: str, sign: str, text: str) -> str:
    box = f'<input type="checkbox" name="{kind}" value="{html.escape(value)}" checked>'
    return f'<label class="chip">{box}{sign}{html.escape(text)}</label>'


def _sign(look: Look, level: str) -> str:
    """Return a level's mark; the page's script colours it by the chosen palette."""
    sign = MARKERS[look.levels[level].marker][1]
    return f'<span class="sign" data-level="{html.escape(level)}">{sign}</span>'


def _dash(run: int) -> str:
    pattern = ("none", "7 3", "2 3", "7 3 2 3")[run % len(DASHES)]
    line = (
        f'<line x2="26" y1="4" y2="4" stroke="currentColor" stroke-width="2" stroke-dasharray="{pattern}"/>'
    )
    return f'<svg width="26" height="8">{line}</svg>'


def _option(value: str, selected: bool, text: str = "") -> str:
    return f'<option value="{value}"{" selected" * selected}>{text or value}</option>'


def _summary(runs: Sequence[RunSeries], look: Look) -> str:
    """Return the table's rows: one for each group of each run."""
    return "".join(
        f'<tr data-run="{n}"><td title="{html.escape(run.source)}">{html.escape(run.name)}'
        f"{html.escape(f' · {group.name}') if len(run.groups) > 1 else ''}</td>{_summary_cells(run, group, look)}</tr>"
        for n, run in enumerate(runs)
        for group in run.groups
    )


def _summary_cells(run: RunSeries, group: GroupSeries, look: Look) -> str:
    known = np.flatnonzero(~group.missing)
    total = group.mean_loss().sum(axis=1)
    first, last = (f"{value:.4g}" if np.isfinite(value) else "–" for value in total[known[[0, -1]]])
    metrics = [
        f'<span class="value">{name} {values[-1]:.1f}</span>'
        for name, values in run.metrics.items()
        if np.isfinite(values[-1])
    ]
    weights = [
        f'<span class="value">{_sign(look, level)} {html.escape(look.levels[level].label)} {weight:.3g}</span>'
        for level, weight in zip(group.levels, np.nanmean(group.previous_weights, axis=0), strict=True)
    ]
    taken, actions = np.array(group.in_force()[0]), []
    for name in group.actions or dict.fromkeys(name for name in taken if name):
        judged = (
            group.reward[(taken == name) & np.isfinite(group.reward)] if group.actions else group.reward[:0]
        )
        share = f' <span class="soft">({(judged > 0).mean():.0%})</span>' if judged.size else ""
        dot = f'<span class="dot" style="background:{look.actions.get(name, "#666666")}"></span>'
        count = int((taken == name).sum())
        actions.append(f'<span class="value">{dot}{html.escape(name)} {count}{share}</span>')
    iterations = f'{group.iteration[-1]:,} <span class="soft">{len(known)} × {group.length}</span>'
    return "".join(
        f'<td data-label="{label}"><div>{cell}</div></td>'
        for label, cell in (
            ("Iterations", iterations), ("Mean loss, first → last interval", f"{first} → {last}"),
            ("Last evaluation", " ".join(metrics) or "–"), ("Mean weights in force", " ".join(weights)),
            ("Actions in force (rewarded)", " ".join(actions)),
        )
    )  # fmt: skip


def _part(name: str) -> str:
    return resources.files("msbal.plotting").joinpath("page", name).read_text(encoding="utf-8")
