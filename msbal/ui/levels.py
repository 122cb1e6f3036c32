"""The table of one group: a row per level, in as many columns as the width allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.table import Table
from rich.text import Text

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
    justify: Literal["left", "right"] = "right"


def level_table(group: GroupState, width: int, total: bool) -> Table:
    """Return a table at most `width` wide: a head, a row per level and, if `total`, one of totals.

    If room is short, columns go in this order: the bars, stride, share, the reduction of the variance, the
    variance, the single terms, the trend, the summed loss. The level and its weight stay.
    """
    columns = _columns(group)
    while len(columns) > 2 and sum(c.width for c in columns) + len(columns) - 1 > width:
        columns.remove(max(columns, key=lambda c: c.rank))
    gap = 2 if sum(c.width for c in columns) + 2 * (len(columns) - 1) <= width else 1
    room = width - sum(c.width for c in columns) - gap * (len(columns) - 1)
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style=HEADER)
    for column in columns:
        if column.title == "Trend":
            column.width = min(MAX_TREND, column.width + room)
            column.cells = _trends(group, column.width)
        table.add_column(
            column.title,
            justify=column.justify,
            width=min(column.width, width),
            no_wrap=True,
            overflow="ellipsis",
        )
    for i in range(len(group.levels) + total):
        table.add_row(*(c.cells[i] if i < len(c.cells) else "" for c in columns))
    return table


def _columns(group: GroupState) -> list[Column]:
    record, levels = group.last, range(len(group.levels))
    names = [Text(f"■ {name}", style=level_colour(i)) for i, name in enumerate(group.levels)]
    columns = [
        Column(
            "Level", min(14, max(5, *(n.cell_len for n in names))), 0, [*names, Text("total", QUIET)], "left"
        )
    ]
    if group.strides:
        columns.append(Column("Stride", 6, 92, [Text(str(stride), QUIET) for stride in group.strides]))
    for term in group.terms:
        sums = record.loss_by_term.get(term) if record else None
        columns.append(Column(term, max(7, min(10, len(term))), 60, _losses(record, sums, len(levels), "")))
    whole = sum(record.loss) if record else 0.0
    shares = [record.loss[i] / whole if record and whole else None for i in levels]
    weights = record.weights if record else (1.0,) * len(levels)
    # 2.5 is the largest weight that RLO gives with the paper's lambda.
    top = max(2.5, *weights)
    return [
        *columns,
        Column("Loss", 7, 20, _losses(record, record.loss if record else None, len(levels), STRONG)),
        Column("Share", 5, 90, [Text("-" if s is None else f"{100 * s:.0f} %") for s in shares]),
        Column("", 10, 95, [bar(share or 0.0, 10, level_colour(i)) for i, share in enumerate(shares)]),
        Column("Variance", 10, 70, [_variance(record, i) for i in levels]),
        Column("Reduction", 9, 80, [_reduction(record, i) for i in levels]),
        Column("Weight", 6, 1, [_weight(weight) for weight in weights]),
        Column("", 8, 96, [bar(weight / top, 8, RAISED if weight > 1 else "") for weight in weights]),
        Column("Trend", MIN_TREND, 50, []),
    ]


def _losses(
    record: IntervalRecord | None, sums: tuple[float, ...] | None, count: int, style: str
) -> list[Text]:
    """Return the mean losses of the levels and their total."""
    if record is None or sums is None:
        return [Text("-", style=style)] * (count + 1)
    parts = [*((value,) for value in sums), sums]
    return [Text(number(mean_loss(record, part)), style=style) for part in parts]


def _variance(record: IntervalRecord | None, i: int) -> Text:
    if record is None:
        return Text("-  ")
    # The arrow is the variance's own: down, green, if eq 4's reduction is positive.
    value, change = f"{record.variance[i]:.2e}", record.variance_reduction[i]
    if change > 0:
        return Text(f"{value} ▼", style=GOOD)
    return Text(f"{value} ▲", style=BAD) if change < 0 else Text(f"{value}  ", style=QUIET)


def _reduction(record: IntervalRecord | None, i: int) -> Text:
    if record is None:
        return Text("-")
    value = record.variance_reduction[i]
    return Text(signed(value), style=GOOD if value > 0 else BAD if value < 0 else QUIET)


def _weight(weight: float) -> Text:
    style = RAISED if weight > 1 else "" if weight == 1 else "yellow"
    return Text(f"{weight:.3f}" if weight < 100 else f"{weight:.0f}", style=style)


def _trends(group: GroupState, width: int) -> list[Text]:
    """Return each level's loss over all intervals that are kept, and the total's: the fall, not the noise."""
    rows = [[mean_loss(r, (r.loss[i],)) for r in group.records] for i in range(len(group.levels))]
    rows.append([mean_loss(r) for r in group.records])
    lines = [
        sparkline(condensed([float("nan") if x is None else x for x in row], width), width) for row in rows
    ]
    styles = [*(level_colour(i) for i in range(len(group.levels))), QUIET]
    return [Text(text, style=style) for text, style in zip(lines, styles, strict=True)]
