"""The report as one HTML page that needs nothing else: no script library, no network, small enough to mail.

Its parts lie in ``page/``; the style sheet of `msbal plot-losses`' page comes before its own.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from msbal.ablation.collect import Outcomes
from msbal.ablation.formats import html_table
from msbal.ablation.grid import Grid
from msbal.ablation.reporting import plots
from msbal.ablation.reporting.layout import TableLayout
from msbal.ablation.reporting.words import headline
from msbal.ablation.spec import AblationSpec
from msbal.ablation.statistics import Conclusion, Summary, pair, summarize
from msbal.errors import MsbalError
from msbal.evaluation.tables import FULL_NAMES, Table
from msbal.plotting.reading import read_runs
from msbal.plotting.series import GroupSeries, merge_names
from msbal.plotting.style import level_colors
from msbal.records import RunDirectory

MARKS = {"better": "▲", "worse": "▼", "within seed noise": "≈", "unknown": "?"}
PAPER = {"table": "As in the paper", "published": "Beside the published metrics"}
PALETTE = "paper"
SIZES = ("AP_S", "AP_M", "AP_L")


def render_page(
    ablation: AblationSpec,
    grid: Grid,
    outcomes: Outcomes,
    summaries: Mapping[str, Summary],
    conclusions: Mapping[str, Conclusion],
    tables: Mapping[str, Table],
    layout: TableLayout | None,
    smoke: bool,
) -> str:
    """The whole page.

    Args:
        tables: by file name, as the other formats have them.
        layout: where published metrics come from.
    """
    name = grid.output.name
    metric = FULL_NAMES.get(ablation.metric, ablation.metric)
    levels = merge_names([list(weights) for weights in outcomes.weights.values()])
    colors = level_colors(levels, PALETTE)
    far = plots.far_out(conclusions)
    parts = {
        "title": html.escape(f"Ablation {name}"),
        "style": _part("msbal.plotting", "page.css") + _part("msbal.ablation.reporting", "page.css"),
        "script": _part("msbal.ablation.reporting", "page.js"),
        "headline": html.escape(headline(conclusions, ablation.metric)),
        "facts": "".join(_fact(*fact) for fact in _facts(ablation, grid, outcomes)),
        "notes": _notes(grid, outcomes, smoke),
        "verdicts": "".join(_verdict(conclusion) for conclusion in conclusions.values()),
        "comparison": html_table(tables["comparison"], "comparison"),
        "paper": "".join(
            _section(key, title, html_table(tables[key], key)) for key, title in PAPER.items() if key in tables
        ),
        "differences": _differences(metric, ablation, grid, conclusions),
        "metrics": _metrics(metric, ablation, grid, summaries, layout, far, smoke),
        "sizes": _sizes(grid, outcomes, colors, far) + html_table(tables["sizes"], "sizes"),
        "courses": _courses(outcomes),
        "runs": html_table(tables["runs"], "runs"),
    }  # fmt: skip
    # One pass: what a part contains is not searched again.
    template = _part("msbal.ablation.reporting", "page.html")
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)


def _facts(ablation: AblationSpec, grid: Grid, outcomes: Outcomes) -> list[tuple[str, str]]:
    """What was run, in short."""
    specs = [next(cell.spec for cell in grid.cells if cell.arm == arm) for arm in grid.arms]
    done = sum(len(runs) for runs in outcomes.metrics.values())
    models = dict.fromkeys(_model_name(spec.model) for spec in specs)
    data = dict.fromkeys(_data_name(spec.data) for spec in specs)
    return [
        ("arms", str(len(grid.arms))),
        ("seeds", _shortened(map(str, grid.seeds), 10)),
        ("runs", f"{done} of {len(grid)} finished"),
        ("metric", FULL_NAMES.get(ablation.metric, ablation.metric)),
        ("baseline", ", ".join(grid.groups) if len(grid.groups) <= 3 else f"{len(grid.groups)}, one a block"),
        ("model", _shortened(models, 3)),
        ("backend", ", ".join(dict.fromkeys(spec.backend for spec in specs))),
        ("data", _shortened(data, 2)),
    ]


def _fact(name: str, value: str) -> str:
    return f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"


def _model_name(model: Any) -> str:
    if config := getattr(model, "config", None):
        return str(config).rpartition("/")[2].rpartition(".")[0]
    return " ".join(str(getattr(model, key)) for key in ("name", "backbone") if getattr(model, key, None))


def _data_name(data: Any) -> str:
    root = getattr(data, "root", None)
    return f"{data.format} {root.name}" if root is not None else str(data.format)


def _shortened(words: Iterable[str], most: int) -> str:
    known = list(words)
    return ", ".join(known[:most]) + (f" and {len(known) - most} more" if len(known) > most else "")


def _notes(grid: Grid, outcomes: Outcomes, smoke: bool) -> str:
    notes = []
    if smoke:
        notes.append("A smoke run: everything was shrunk to try the whole out. Its metrics mean nothing.")
    missing = len(grid) - sum(len(runs) for runs in outcomes.metrics.values())
    if missing:
        notes.append(f"{missing} of {len(grid)} runs are not finished; what is said here may still change.")
    return "".join(f'<div class="note">{html.escape(note)}</div>' for note in notes)


def _verdict(conclusion: Conclusion) -> str:
    arm, _, rest = conclusion.words.partition(": ")
    sign = f'<span class="sign" aria-hidden="true">{MARKS[conclusion.verdict]}</span>'
    return (
        f'<li data-verdict="{conclusion.verdict}">{sign}'
        f"<span><b>{html.escape(arm)}</b>: {html.escape(rest)}</span></li>"
    )


def _differences(
    metric: str, ablation: AblationSpec, grid: Grid, conclusions: Mapping[str, Conclusion]
) -> str:
    drawn = plots.differences(ablation.metric, conclusions, grid.baselines)
    if not drawn:
        return ""
    boot = any(conclusion.images is not None for conclusion in conclusions.values())
    says = (
        "A dot is one seed: the arm less its baseline, points. The diamond is their mean, the bar its 95 % interval "
        "(Student's t over the seeds). Where the bar reaches over the line of 0, the seeds alone could have made it."
    )
    if plots.far_out(conclusions):
        says += " An arrow at the edge is an arm far beyond the scale."
    if boot:
        says += " The thin line below draws seeds and images anew."
    return _section("differences", f"{metric}: difference to the baseline", _card(drawn, says))


def _metrics(
    metric: str,
    ablation: AblationSpec,
    grid: Grid,
    summaries: Mapping[str, Summary],
    layout: TableLayout | None,
    far: frozenset[str],
    smoke: bool,
) -> str:
    published = {}
    if layout is not None and ablation.metric in layout.columns and not smoke:
        place = layout.columns.index(ablation.metric)
        rows = {row.arm: row.published[place] for row in layout.rows if row.arm and row.published}
        published = {arm: value for arm, value in rows.items() if arm and value is not None}
    drawn = plots.metrics(ablation.metric, summaries, published, grid.baselines, far)
    if not drawn:
        return ""
    says = (
        "A dot is one run, the upright line the mean over the seeds, the bar one standard deviation to each side. "
        "Thin lines lead from each run to that of its baseline with the same seed."
    )
    if published:
        says += " Triangles are published metrics."
    return _section("metrics", f"{metric} of each arm, %", _card(drawn, says))


def _sizes(grid: Grid, outcomes: Outcomes, colors: Mapping[str, str], far: frozenset[str]) -> str:
    values = {metric: outcomes.values(metric) for metric in SIZES}
    pairs = {}
    for arm in grid.arms:
        base = grid.baselines[arm]
        if arm == base or not outcomes.metrics[arm]:
            continue
        by_metric = {f: pair(summarize(values[f][base]), summarize(values[f][arm])) for f in SIZES}
        # A data set without large objects has no AP_L.
        pairs[arm] = {f: paired for f, paired in by_metric.items() if paired.n}
    pairs = {arm: by_metric for arm, by_metric in pairs.items() if by_metric}
    left = plots.sizes({arm: pairs[arm] for arm in pairs if arm not in far})
    for arm in far & set(pairs):
        left |= plots.sizes({arm: pairs[arm]})
    right = plots.mean_weights({arm: outcomes.weights[arm] for arm in pairs if outcomes.weights[arm]}, colors)
    cards = [
        f'<section class="card"><h3>{html.escape(arm)}</h3><div class="two">'
        f'<figure><figcaption>difference to {html.escape(grid.baselines[arm])}, points</figcaption>{left[arm]}</figure>'
        + (f"<figure><figcaption>mean weight of each level</figcaption>{right[arm]}</figure>" if arm in right else "")
        + "</div></section>"
        for arm in pairs
    ]  # fmt: skip
    if not cards:
        return ""
    says = (
        "By object size, beside the weights that the pyramid's levels got, the finest level first: small objects are "
        "found on fine levels. The bars on the left are 95 % intervals that are not corrected for the number of arms "
        "and sizes: look at them for ideas, not for proof."
    )
    return f'<p class="soft">{says}</p><div class="row cards">{"".join(cards)}</div>'


def _courses(outcomes: Outcomes) -> str:
    found: dict[str, plots.Course] = {}
    still: dict[str, str] = {}
    for arm, runs in outcomes.cells.items():
        for group, series in _series(arm, outcomes).items():
            course = plots.course_of(series)
            if course is None:
                continue
            panel = arm if group == "all" else f"{arm} · {group}"
            if course.constant and len(runs):
                weights = dict(zip(course.levels, course.mean[-1].tolist(), strict=True))
                one = {round(w, 9) for w in weights.values()} == {1.0}
                still[panel] = "1" if one else ", ".join(f"{k} {w:g}" for k, w in weights.items())
            else:
                found[panel] = course
    levels = merge_names(course.levels for course in found.values())
    colors = level_colors(levels, PALETTE)
    drawn = plots.courses(found, colors)
    if not drawn and not still:
        return ""
    cards = "".join(
        f'<section class="card"><h3>{html.escape(name)}</h3>{plot}</section>' for name, plot in drawn.items()
    )
    legend = "".join(
        f'<span class="value"><span class="dot" style="--own:{colors[level]};background:var(--own)"></span>'
        f"{html.escape(level)}</span>"
        for level in levels
    )
    says = ["Lines are the mean over the seeds, bands reach from the least to the largest."] if drawn else []
    says += [f"{arm}: constant, {weight}." for arm, weight in still.items()]
    content = f'<p class="soft">{html.escape(" ".join(says))}</p>'
    if drawn:
        content += f'<p class="legend">{legend}</p><div class="row cards">{cards}</div>'
    return _section("courses", "Weights over the iterations", content)


def _series(arm: str, outcomes: Outcomes) -> dict[str, list[GroupSeries]]:
    """The recorded intervals of an arm's runs, by group of levels."""
    groups: dict[str, list[GroupSeries]] = {}
    for cell in outcomes.cells[arm].values():
        try:
            (run,) = read_runs([RunDirectory(cell.spec.output).intervals_file])
        except (MsbalError, OSError):
            continue
        for group in run.groups:
            groups.setdefault(group.name, []).append(group)
    return groups


def _card(drawn: str, says: str) -> str:
    return f'<section class="card"><p>{html.escape(says)}</p>{drawn}</section>'


def _section(name: str, title: str, content: str) -> str:
    return (
        f'<section aria-labelledby="h-{name}"><h2 id="h-{name}">{html.escape(title)}</h2>{content}</section>'
    )


def _part(package: str, name: str) -> str:
    return resources.files(package).joinpath("page", name).read_text(encoding="utf-8")
