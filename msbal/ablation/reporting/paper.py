"""The paper's table once more, its metrics beside the measured ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msbal.ablation.collect import Outcomes
from msbal.ablation.grid import Grid
from msbal.ablation.reporting.layout import COST, TableLayout, TableRow
from msbal.ablation.reporting.numbers import mean_and_sd, signed, span
from msbal.ablation.reporting.spanned import SpannedTable
from msbal.ablation.statistics import Conclusion, Summary, summarize
from msbal.evaluation.complexity import Complexity
from msbal.evaluation.tables import FULL_NAMES
from msbal.spec import RunSpec

TICK = "✓"


@dataclass(frozen=True)
class _Column:
    """One column: its heading, the heading above it, and its cell in each row."""

    name: str
    above: str
    cells: list[str]


def paper_table(
    layout: TableLayout,
    grid: Grid,
    outcomes: Outcomes,
    metric: str,
    conclusions: Mapping[str, Conclusion],
    costs: Mapping[str, Complexity],
    smoke: bool = False,
) -> SpannedTable:
    """The measured metrics in the paper's shape.

    Args:
        metric: what the verdict is about, and the differences.
        conclusions: by arm that is no baseline.
        costs: by arm, where ``GFLOPs`` is a column.
        smoke: the runs were shrunk, so that no metric is meant to match.
    """
    rows = layout.rows
    columns = [_Column(name, "", [row.labels[i] for row in rows]) for i, name in enumerate(layout.labels)]
    if layout.ticks:
        columns += _ticks(rows, grid)
    texts = len(columns)
    for place, name in enumerate(layout.columns):
        title = FULL_NAMES.get(name, name)
        there = any(_published(row, place) is not None for row in rows)
        if there:
            columns.append(_Column("published", title, [_plain(_published(row, place)) for row in rows]))
        if name == COST:
            cells = [_giga(costs.get(row.arm or "")) for row in rows]
        else:
            measured = {arm: summarize(values) for arm, values in outcomes.values(name).items()}
            cells = [_measured(measured, row) for row in rows]
        columns.append(_Column("measured" if there else title, title if there else "", cells))
    columns += _differences(layout, grid, metric, conclusions)
    starts = [n for n, row in enumerate(rows) if n and _begins_block(rows, n, grid)]
    return SpannedTable(
        layout.title,
        tuple(f"{column.above} {column.name}".strip() for column in columns),
        tuple(zip(*(column.cells for column in columns), strict=True)),
        tuple(_notes(layout, grid, costs, smoke)),
        texts=texts,
        above=tuple(column.above for column in columns),
        rules=tuple(starts),
    )


def actions_of(spec: RunSpec) -> tuple[str, ...]:
    """The actions that a run's strategy has: its choices, or itself alone."""
    return tuple(getattr(spec.balance, "actions", ())) or (spec.balance.strategy,)


def _ticks(rows: tuple[TableRow, ...], grid: Grid) -> list[_Column]:
    has = {cell.arm: actions_of(cell.spec) for cell in grid.cells}
    order = {"avw": 0, "min_loss": 1, "max_loss": 2, "equal": 3}  # the paper's a0 to a3
    names = dict.fromkeys(action for row in rows for action in has.get(row.arm or "", ()))
    ordered = sorted(names, key=lambda name: order.get(name, len(order)))
    return [
        _Column(name, "action", [TICK if name in has.get(row.arm or "", ()) else "" for row in rows])
        for name in ordered
    ]


def _differences(
    layout: TableLayout, grid: Grid, metric: str, conclusions: Mapping[str, Conclusion]
) -> list[_Column]:
    """The differences to each row's baseline; none where no row has another for a baseline."""
    rows = layout.rows
    if not any(row.arm in conclusions for row in rows):
        return []
    above = f"difference in {FULL_NAMES.get(metric, metric)}"
    columns = []
    if metric in layout.columns:
        place = layout.columns.index(metric)
        published = {row.arm: _published(row, place) for row in rows if row.arm is not None}
        cells = []
        for row in rows:
            mine, base = None, None
            if row.arm is not None and row.arm in conclusions:
                mine, base = published[row.arm], published.get(grid.baselines[row.arm])
            cells.append("-" if mine is None or base is None else f"{mine - base:+.1f}")
        if any(cell != "-" for cell in cells):
            columns.append(_Column("published", above, cells))
    found = [conclusions.get(row.arm or "") for row in rows]
    columns.append(_Column("measured", above, ["-" if c is None else signed(c.paired.mean) for c in found]))
    intervals = ["-" if c is None else span(c.paired.low, c.paired.high) for c in found]
    columns.append(_Column("95 % interval", above, intervals))
    columns.append(_Column("verdict", "", ["-" if c is None else c.verdict for c in found]))
    return columns


def _begins_block(rows: tuple[TableRow, ...], number: int, grid: Grid) -> bool:
    """Whether a row stands apart from the one before: it is compared to something else, or only cited."""
    if len(grid.groups) == 1:
        return (rows[number].arm is None) != (rows[number - 1].arm is None)
    mine, before = (grid.baselines.get(rows[n].arm or "") for n in (number, number - 1))
    return mine != before


def _notes(layout: TableLayout, grid: Grid, costs: Mapping[str, Complexity], smoke: bool) -> list[str]:
    n = len(grid.seeds)
    notes = [f"Measured: mean ± standard deviation over {n} seed{'s' if n != 1 else ''}, in per cent."]
    if any(row.arm is None for row in layout.rows):
        notes.append("Rows without measured metrics are cited, not run.")
    inputs = sorted({cost.input for cost in costs.values()})
    if COST in layout.columns and inputs:
        sizes = ", ".join(f"{width} x {height}" for _, _, height, width in inputs)
        notes.append(
            "GFLOPs: of one image of 1333 x 800 pixels as MMDetection's tool counts them; as the detector takes it "
            f"in, it has {sizes}."
        )
    if smoke:
        notes.append("A smoke run: the measured metrics are not meant to match.")
    return notes


def _published(row: TableRow, place: int) -> float | None:
    return row.published[place] if row.published else None


def _plain(value: float | None) -> str:
    """As the paper prints it: with a decimal."""
    return "-" if value is None else f"{value:.10g}" if value % 1 else f"{value:.1f}"


def _giga(cost: Complexity | None) -> str:
    return "-" if cost is None else f"{cost.as_mmdetection / 1e9:.2f}"


def _measured(summaries: Mapping[str, Summary], row: TableRow) -> str:
    summary = summaries.get(row.arm or "")
    return "-" if summary is None else mean_and_sd(summary)
