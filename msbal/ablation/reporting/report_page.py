"""The report as one HTML page that needs nothing else: no script library, no network, small enough to mail.

Its template, style sheet and script lie in ``page/``; the style sheet of `msbal plot-losses`' page comes before
its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from msbal.ablation.collect import Outcomes
from msbal.ablation.grid import Comparison, Grid
from msbal.ablation.paper_layout import TableLayout
from msbal.ablation.reporting import row_charts
from msbal.ablation.reporting.arm_tables import SIZES
from msbal.ablation.reporting.weight_history import History, history_drawings, history_of
from msbal.ablation.spec import AblationSpec
from msbal.ablation.statistics.conclude import Study
from msbal.ablation.statistics.conclusion import Conclusion
from msbal.ablation.statistics.samples import Paired, pair, summarize
from msbal.ablation.statistics.words import Tone, verdict_first
from msbal.errors import MsbalError
from msbal.metric_text import full_name, in_points
from msbal.plotting.reading import read_runs
from msbal.plotting.series import GroupSeries, merge_names
from msbal.plotting.style import level_colors
from msbal.records import RunDirectory
from msbal.table import Table

SIGNS = {"better": "▲", "worse": "▼", "equal": "≈", "open": "?", "unknown": "–"}
PALETTE = "paper"


def render_page(
    ablation: AblationSpec,
    grid: Grid,
    outcomes: Outcomes,
    study: Study,
    conclusions: Mapping[Comparison, Conclusion],
    tables: Mapping[str, Table],
    layout: TableLayout | None,
    title: str,
    plan: tuple[str, ...],
    progress: tuple[str, ...],
    headline: str,
    verdicts: Sequence[tuple[Tone, str]],
) -> str:
    """Return the whole page.

    Args:
        tables: by file name, as the other formats have them.
        layout: where published metrics come from.
        plan: what was planned, then what was changed later.
        progress: how far the study has come, where it is not at its end.
        verdicts: each conclusion in words.
    """
    beyond = row_charts.far_out(conclusions)
    far = {each.arm for each in beyond if grid.baselines[each.arm] == each.to}
    published = {} if study.smoke else _published(layout, ablation.metric)
    pairs = _size_pairs(grid, outcomes)
    sizes = row_charts.sizes({arm: found for arm, found in pairs.items() if arm not in far}, grid.baselines)
    for arm in far & pairs.keys():
        sizes |= row_charts.sizes({arm: pairs[arm]}, grid.baselines)
    weights = {arm: outcomes.weights[arm] for arm in pairs if outcomes.weights[arm]}
    moving, constant = _histories(outcomes)
    colors = _colors(outcomes.weights.values())
    history_colors = _colors(history.levels for history in moving.values())
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {"subscripts": _subscripts, "unbroken": _unbroken, "verdict_first": verdict_first}
    return environment.from_string(_part("msbal.ablation.reporting", "page.html")).render(
        title=title,
        style=_part("msbal.plotting", "page.css") + _part("msbal.ablation.reporting", "page.css"),
        script=_part("msbal.ablation.reporting", "page.js"),
        headline=headline,
        smoke=study.smoke,
        progress=progress,
        sequential=study.sequential,
        signs=SIGNS,
        plan=plan,
        verdicts=verdicts,
        facts=_facts(ablation, grid, outcomes),
        tables=tables,
        metric=full_name(ablation.metric),
        baselines=grid.baselines,
        far=beyond,
        gain=in_points(study.gain),
        corrected=len(conclusions) > 1 or study.sequential,
        boot=any(conclusion.images is not None for conclusion in conclusions.values()),
        published=published,
        differences=row_charts.differences(study.metric, study.gain, conclusions, grid.baselines),
        metrics=row_charts.metrics(study.metric, study.summaries, published, grid.baselines, far),
        sizes={arm: sizes[arm] for arm in pairs},
        weights=row_charts.mean_weights(weights, colors),
        histories=history_drawings(moving, history_colors),
        constant=constant,
    )


def _facts(ablation: AblationSpec, grid: Grid, outcomes: Outcomes) -> list[tuple[str, str]]:
    """Return what was run, in short."""
    specs = [next(cell.spec for cell in grid.cells if cell.arm == arm) for arm in grid.arms]
    return [
        ("arms", str(len(grid.arms))),
        ("seeds", _shortened(map(str, grid.seeds), 10)),
        ("runs", f"{_finished(outcomes)} of {len(grid)} finished"),
        ("metric", full_name(ablation.metric)),
        ("baseline", ", ".join(grid.groups) if len(grid.groups) <= 3 else f"{len(grid.groups)}, one a block"),
        ("model", _shortened((_model_name(spec.model) for spec in specs), 3)),
        ("backend", _shortened((spec.backend for spec in specs), len(specs))),
        ("data", _shortened((_data_name(spec.data) for spec in specs), 2)),
    ]


def _finished(outcomes: Outcomes) -> int:
    return sum(len(runs) for runs in outcomes.metrics.values())


def _model_name(model: Any) -> str:
    if config := getattr(model, "config", None):
        return str(config).rpartition("/")[2].rpartition(".")[0]
    return " ".join(str(getattr(model, key)) for key in ("name", "backbone") if getattr(model, key, None))


def _data_name(data: Any) -> str:
    root = getattr(data, "root", None)
    return f"{data.format} {root.name}" if root is not None else str(data.format)


def _shortened(words: Iterable[str], limit: int) -> str:
    known = list(dict.fromkeys(words))
    return ", ".join(known[:limit]) + (f" and {len(known) - limit} more" if len(known) > limit else "")


def _published(layout: TableLayout | None, metric: str) -> dict[str, float]:
    """Return by arm the paper's metric in points."""
    if layout is None or metric not in layout.columns:
        return {}
    place = layout.columns.index(metric)
    rows = {row.arm: row.published[place] for row in layout.rows if row.arm and row.published}
    return {arm: value for arm, value in rows.items() if value is not None}


def _size_pairs(grid: Grid, outcomes: Outcomes) -> dict[str, dict[str, Paired]]:
    """Return by arm that is no baseline its differences by object size, where there are any."""
    measured = {metric: outcomes.values(metric) for metric in SIZES}
    pairs = {}
    for arm, base in grid.baselines.items():
        if arm == base:
            continue
        found = {
            metric: pair(summarize(values[base]), summarize(values[arm]))
            for metric, values in measured.items()
        }
        # A data set without large objects has no AP_L.
        if known := {metric: paired for metric, paired in found.items() if paired.n}:
            pairs[arm] = known
    return pairs


def _histories(outcomes: Outcomes) -> tuple[dict[str, History], dict[str, str]]:
    """Return by arm and group of levels the weights that change, and in words those that do not."""
    moving: dict[str, History] = {}
    constant: dict[str, str] = {}
    for arm in outcomes.cells:
        for group, series in _series(arm, outcomes).items():
            history = history_of(series)
            name = arm if group == "all" else f"{arm} · {group}"
            if history is None:
                continue
            if history.constant:
                weights = dict(zip(history.levels, history.mean[-1].tolist(), strict=True))
                one = {round(weight, 9) for weight in weights.values()} == {1.0}
                constant[name] = "1" if one else ", ".join(f"{k} {w:g}" for k, w in weights.items())
            else:
                moving[name] = history
    return moving, constant


def _series(arm: str, outcomes: Outcomes) -> dict[str, list[GroupSeries]]:
    """Return the recorded intervals of an arm's runs, by group of levels."""
    groups: dict[str, list[GroupSeries]] = {}
    for cell in outcomes.cells[arm].values():
        try:
            (run,) = read_runs([RunDirectory(cell.spec.output).intervals_file])
        except (MsbalError, OSError):
            continue
        for group in run.groups:
            groups.setdefault(group.name, []).append(group)
    return groups


def _colors(levels: Iterable[Iterable[str]]) -> dict[str, str]:
    return level_colors(merge_names([list(names) for names in levels]), PALETTE)


def _subscripts(text: str) -> Markup:
    """Return ``AP_S`` with a subscript."""
    return Markup(re.sub(r"\b(A[PR])_([SML])\b", r"\1<sub>\2</sub>", str(escape(text))))


def _unbroken(text: str) -> str:
    """Return numbers with their units, intervals and ``p = 0.01`` with spaces that no line ends at."""
    return re.sub(r" (?=%)|(?<=\.\.) | (?=\.\. )|(?<=\bp) (?=[=<])|(?<=p[ \xa0][=<]) ", "\xa0", text)


def _part(package: str, name: str) -> Markup:
    return Markup(resources.files(package).joinpath("page", name).read_text(encoding="utf-8"))
