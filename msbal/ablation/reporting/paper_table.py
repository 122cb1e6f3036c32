"""The paper's table once more, its metrics beside the measured ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msbal.ablation.collect import Outcomes
from msbal.ablation.grid import Comparison, Grid
from msbal.ablation.paper_layout import COST, TableLayout, TableRow
from msbal.ablation.reporting.arm_tables import verdict_cell
from msbal.ablation.statistics.conclude import Study
from msbal.ablation.statistics.conclusion import Conclusion
from msbal.ablation.statistics.samples import summarize
from msbal.ablation.statistics.words import method_text
from msbal.evaluation.complexity import Complexity
from msbal.metric_text import full_name, mean_and_sd, signed, span
from msbal.spec import RunSpec
from msbal.table import Cell, Column, Table

TICK = "✓"
_Filled = tuple[Column, list[str]]
"""A column with its cell in each row."""


def paper_table(
    layout: TableLayout,
    grid: Grid,
    outcomes: Outcomes,
    study: Study,
    conclusions: Mapping[Comparison, Conclusion],
    costs: Mapping[str, Complexity],
) -> Table:
    """Return the measured metrics in the paper's shape.

    Args:
        costs: by arm, where ``GFLOPs`` is a column.
    """
    rows = layout.rows
    filled = [
        (Column(name, text=True), [row.labels[n] for row in rows]) for n, name in enumerate(layout.labels)
    ]
    if layout.ticks:
        filled += _ticks(rows, grid)
    for place, name in enumerate(layout.columns):
        filled += _measured(layout, place, name, outcomes, costs)
    filled += _differences(layout, grid, study, conclusions)
    starts = [n for n in range(1, len(rows)) if _begins_block(rows, n, grid)]
    return Table(
        layout.title,
        tuple(column for column, _ in filled),
        tuple(zip(*(cells for _, cells in filled), strict=True)),
        tuple(_notes(layout, grid, costs, study, conclusions)),
        tuple(starts),
    )


def actions_of(spec: RunSpec) -> tuple[str, ...]:
    """Return the actions that a run's strategy chooses from, or the strategy itself."""
    return tuple(getattr(spec.balance, "actions", ())) or (spec.balance.strategy,)


def _ticks(rows: tuple[TableRow, ...], grid: Grid) -> Iterator[_Filled]:
    """Yield a column for each action, ticked where an arm has it."""
    has = {cell.arm: actions_of(cell.spec) for cell in grid.cells}
    of_rows = [has.get(row.arm or "", ()) for row in rows]
    order = {"avw": 0, "min_loss": 1, "max_loss": 2, "equal": 3}  # the paper's a0 to a3
    names = dict.fromkeys(name for actions in of_rows for name in actions)
    for name in sorted(names, key=lambda name: order.get(name, len(order))):
        ticks = (float(name in actions) if actions else None for actions in of_rows)
        cells: list[str] = [Cell(TICK if tick else "", values=(tick,)) for tick in ticks]
        yield Column(name, "action", text=True), cells


def _measured(
    layout: TableLayout, place: int, name: str, outcomes: Outcomes, costs: Mapping[str, Complexity]
) -> Iterator[_Filled]:
    """Yield the paper's column where it has one, and ours."""
    title, published = full_name(name), [_published(row, place) for row in layout.rows]
    ours: dict[str, str]
    if name == COST:
        headings: tuple[str, ...] = (name,)
        ours = {arm: f"{cost.as_mmdetection / 1e9:.2f}" for arm, cost in costs.items()}
    else:
        headings = (name, f"{name}_sd")
        found = {arm: summarize(values) for arm, values in outcomes.values(name).items()}
        ours = {arm: mean_and_sd(summary.mean, summary.sd) for arm, summary in found.items()}
    cells = [ours.get(row.arm or "", "-") for row in layout.rows]
    if any(value is not None for value in published):
        yield Column("published", title, csv=(f"{name}_published",)), [_as_printed(v) for v in published]
        yield Column("measured", title, csv=headings), cells
    else:
        yield Column(title, csv=headings), cells


def _differences(
    layout: TableLayout, grid: Grid, study: Study, conclusions: Mapping[Comparison, Conclusion]
) -> Iterator[_Filled]:
    """Yield the differences to each row's baseline; none where no row has another for a baseline."""
    metric = study.metric
    found = [
        conclusions.get(Comparison(row.arm or "", grid.baselines.get(row.arm or "", "")))
        for row in layout.rows
    ]
    if not any(found):
        return
    above = f"difference in {full_name(metric)}"
    if metric in layout.columns:
        place = layout.columns.index(metric)
        published = {row.arm: _published(row, place) for row in layout.rows if row.arm is not None}
        cells: list[str] = []
        for conclusion in found:
            mine = published[conclusion.comparison.arm] if conclusion else None
            base = published.get(conclusion.comparison.to) if conclusion else None
            difference = None if mine is None or base is None else round(mine - base, 8)
            cells.append("-" if difference is None else Cell(f"{difference:+.1f}", values=(difference,)))
        if set(cells) != {"-"}:
            yield Column("published", above, csv=("difference_published",)), cells
    measured = ["-" if c is None else signed(c.paired.mean) for c in found]
    yield Column("measured", above, csv=("difference",)), measured
    intervals: list[str] = [span(*c.tested.interval) if c and c.tested else "-" for c in found]
    yield Column("95 % interval", above, csv=("low", "high")), intervals
    verdicts: list[str] = [verdict_cell(c, study.gain) if c else "-" for c in found]
    yield Column("verdict", text=True), verdicts


def _begins_block(rows: tuple[TableRow, ...], number: int, grid: Grid) -> bool:
    """Return whether a row is compared to something else than the one before, or only one of them is cited."""
    if len(grid.groups) == 1:
        return (rows[number].arm is None) != (rows[number - 1].arm is None)
    mine, before = (grid.baselines.get(rows[n].arm or "") for n in (number, number - 1))
    return mine != before


def _notes(
    layout: TableLayout,
    grid: Grid,
    costs: Mapping[str, Complexity],
    study: Study,
    conclusions: Mapping[Comparison, Conclusion],
) -> list[str]:
    n = len(grid.seeds)
    notes = [f"Measured: mean ± standard deviation over {n} seed{'s' if n != 1 else ''}, in points."]
    notes += method_text(conclusions, study)
    if any(row.arm is None for row in layout.rows):
        notes.append("Rows without measured metrics are cited, not run.")
    inputs = sorted({cost.input for cost in costs.values()})
    if COST in layout.columns and inputs:
        sizes = ", ".join(f"{width} x {height}" for _, _, height, width in inputs)
        notes.append(
            "GFLOPs: of one image of 1333 x 800 pixels as MMDetection's tool counts them; as the detector takes it "
            f"in, it has {sizes}."
        )
    if study.smoke:
        notes.append("A smoke run: the measured metrics are not meant to match.")
    return notes


def _published(row: TableRow, place: int) -> float | None:
    return row.published[place] if row.published else None


def _as_printed(value: float | None) -> str:
    """Return a published metric as papers print it: with a decimal at least."""
    return "-" if value is None else f"{value:.10g}" if value % 1 else f"{value:.1f}"
