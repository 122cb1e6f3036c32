"""The table of one group: a row per level, in as many columns as the width allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from msbal.engine.record import SHARED
from msbal.ui.look import BAD, GOOD, HEADER, QUIET, RAISED, STRONG, bar, level_colour
from msbal.ui.state import mean_loss
from msbal.ui.text import condensed, number, signed, sparkline

if TYPE_CHECKING:
    from msbal.engine.record import IntervalRecord
    from msbal.ui.state import GroupState

MIN_TREND, MAX_TREND = 8, 60


@dataclass
class Column:
    """One column of the table.

    Attributes:
        width: in characters.
        rank: if room is short, the column with the highest rank goes first.
        cells: one per level, and perhaps one more for the row of totals.
    """

    title: str
    width: int
    rank: int
    cells: list[Text]


def level_table(group: GroupState, width: int, total: bool, total_iterations: int = 0) -> Table:
    """Return a table at most `width` wide: a head, a row per level and, if `total`, one of totals.

    The losses are those of the last interval, or of the unfinished first one so far; the weights are in force now. A
    level without boxes is shown faintly.

    Where gradients are measured, a column has each level's norm and its share of all norms, on the parameters that
    levels share. In an interval without a measurement the last one stays, faint, under the iteration that it is from.

    If room is short, columns go in this order: the bars, stride, share, the reduction of the variance, the
    variance, the gradient, the single terms, the trend, the summed loss. The level and its weight stay.
    """
    columns = _columns(group, total_iterations)
    while len(columns) > 2 and sum(c.width for c in columns) + len(columns) - 1 > width:
        columns.remove(max(columns, key=lambda c: c.rank))
    gap = 2 if sum(c.width for c in columns) + 2 * (len(columns) - 1) <= width else 1
    room = width - sum(c.width for c in columns) - gap * (len(columns) - 1)
    # The gaps are part of the columns: rich draws cells sooner that have no padding.
    table = Table(box=None, padding=0, header_style=HEADER)
    for column in columns:
        if column.title == "Trend":
            column.width = min(MAX_TREND, column.width + room)
            column.cells = _trends(group, column.width)
        if column is columns[0]:
            table.add_column(column.title, width=min(column.width, width), no_wrap=True)
        else:
            table.add_column(column.title, width=column.width + gap, justify="right", no_wrap=True)
    for i in range(len(group.levels) + total):
        table.add_row(*(c.cells[i] if i < len(c.cells) else "" for c in columns))
    return table


def without_boxes(record: IntervalRecord | None) -> list[bool]:
    """Tell for each level whether none of its samples was a box's, or it had no loss at all."""
    if record is None:
        return []
    positives = record.positives or (1.0,) * len(record.levels)
    return [not many or not loss for many, loss in zip(positives, record.loss, strict=True)]


def weights_in_force(record: IntervalRecord, total: int) -> tuple[float, ...]:
    """Return the weights after a record: the decided ones, unless the run of `total` iterations ended with it."""
    unused = record.iteration >= total > 0 and record.previous_weights
    return record.previous_weights if unused else record.weights


def _columns(group: GroupState, total_iterations: int) -> list[Column]:
    record, count = group.last or group.so_far, len(group.levels)
    empty = without_boxes(record)
    names = [
        Text(f"□ {name}", QUIET) if any(empty[i : i + 1]) else Text(f"■ {name}", level_colour(i))
        for i, name in enumerate(group.levels)
    ]
    name_width = min(14, max(5, *(name.cell_len for name in names)))
    columns = [Column("Level", name_width, 0, [*names, Text("total", QUIET)])]
    if group.strides:
        columns.append(Column("Stride", 6, 92, [Text(str(stride), QUIET) for stride in group.strides]))
    for term in group.terms:
        row = record.loss_by_term.get(term) if record else None
        columns.append(Column(term, max(7, min(10, len(term))), 60, _losses(record, row, count, "")))
    whole = sum(record.loss) if record else 0.0
    shares = [loss / whole for loss in record.loss] if record and whole else [None] * count
    weights = weights_in_force(record, total_iterations) if record else (1.0,) * count
    top = max(2.5, *weights)  # 2.5 is the largest weight that RLO gives with the paper's lambda

    def each(cell: Callable[[IntervalRecord, int], Text]) -> list[Text]:
        return [cell(record, i) if record else Text("-") for i in range(count)]

    return [
        *columns,
        Column("Loss", 7, 20, _losses(record, record.loss if record else None, count, STRONG)),
        Column("Share", 5, 90, [Text("-" if s is None else f"{100 * s:.0f} %") for s in shares]),
        Column("", 10, 95, [bar(share or 0.0, 10, level_colour(i)) for i, share in enumerate(shares)]),
        Column("Variance", 10, 70, each(_variance)),
        Column("Reduction", 9, 80, each(_reduction)),
        *_gradients(group),
        Column("Weight", 6, 1, [_weight(weight) for weight in weights]),
        Column("", 8, 96, [bar(weight / top, 8, RAISED if weight > 1 else "cyan") for weight in weights]),
        Column("Trend", MIN_TREND, 50, []),
    ]


def _losses(
    record: IntervalRecord | None, sums: Sequence[float] | None, count: int, style: str
) -> list[Text]:
    """Return the mean losses of the levels and their total."""
    means: list[float | None] = [None] * (count + 1)
    if record and sums is not None:
        means = [mean_loss(record, part) for part in (*((value,) for value in sums), sums)]
    return [Text(number(mean), style=style) for mean in means]


def _variance(record: IntervalRecord, i: int) -> Text:
    """Return the variance with an arrow of its own: down, green, if eq 4's reduction is positive."""
    if not math.isfinite(record.variance[i]):  # of a single iteration
        return Text("-  ")
    value, reduction = f"{record.variance[i]:.2e}", record.variance_reduction[i]
    if reduction > 0:
        return Text(f"{value} ▼", style=GOOD)
    return Text(f"{value} ▲", style=BAD) if reduction < 0 else Text(f"{value}  ", style=QUIET)


def _reduction(record: IntervalRecord, i: int) -> Text:
    value = record.variance_reduction[i]
    if not math.isfinite(value):
        return Text("-")
    return Text(signed(value), style=GOOD if value > 0 else BAD if value < 0 else QUIET)


def _gradients(group: GroupState) -> list[Column]:
    """Return the column of the gradients that were measured last; none where none were."""
    measured, last = group.measured or group.so_far, group.last
    norms = measured.gradient_norm.get(SHARED, ()) if measured is not None else ()
    if measured is None or not norms:
        return []
    stale = last is not None and last is not measured
    whole = sum(norms)
    cells = [
        Text(f"{number(norm)} {100 * norm / whole if whole else 0:3.0f} %", QUIET if stale else "")
        for norm in norms
    ]
    title = f"Gradient @{measured.iteration}" if stale else "Gradient"
    return [Column(title, max(13, len(title)), 65, cells)]


def _weight(weight: float) -> Text:
    style = RAISED if weight > 1 else "" if weight == 1 else "yellow"
    return Text(f"{weight:.3f}" if weight < 100 else f"{weight:.0f}", style=style)


def _trends(group: GroupState, width: int) -> list[Text]:
    """Return each level's loss over all intervals that are kept, and the total's: the fall, not the noise."""
    texts = []
    for i in range(len(group.levels) + 1):
        means = [mean_loss(r, r.loss[i : i + 1] or r.loss) for r in group.records]
        values = condensed([float("nan") if mean is None else mean for mean in means], width)
        style = level_colour(i) if i < len(group.levels) else QUIET
        texts.append(Text(sparkline(values, width), style=style))
    return texts
