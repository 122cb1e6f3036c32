"""The table of one group: a row per level, in as many columns as the width allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.text import Text

from msbal.ui.look import QUIET, RAISED, STRONG, Look, level_colour
from msbal.ui.text import condensed, figure, scientific, signed, sparkline

if TYPE_CHECKING:
    from msbal.engine.record import IntervalRecord
    from msbal.ui.state import GroupState

TREND_LEAST, TREND_MOST = 8, 60


@dataclass
class Column:
    """One column of the table.

    Attributes:
        title: its head.
        width: characters.
        rank: when room is short, the column with the highest rank goes first.
        cell: the text of a level's cell, from the level's index; None: the column is blank there.
        total: what stands in the last row.
    """

    title: str
    width: int
    rank: int
    cell: Callable[[int], Text]
    total: Callable[[], Text] = Text
    align: Literal["left", "right"] = "right"


def level_lines(group: GroupState, width: int, look: Look, total_row: bool) -> list[Text]:
    """The table's lines, each at most `width` characters: a head, a row per level, and a total.

    As the width shrinks, columns go in this order: the bars, stride, share, the reduction of the
    variance, the variance, the single terms, the trend, the summed loss. The level and its weight stay.
    """
    columns = _fit(_columns(group, look), width)
    gap = " " * (2 if sum(c.width for c in columns) + 2 * (len(columns) - 1) <= width else 1)
    used = sum(c.width for c in columns) + len(gap) * (len(columns) - 1)
    for column in columns:
        if column.title == "Trend":
            column.width = min(TREND_MOST, column.width + width - used)

    lines = [_line([(Text(c.title, style="bold grey50"), c) for c in columns], gap)]
    lines += [_line([(c.cell(i), c) for c in columns], gap) for i in range(len(group.levels))]
    if total_row:
        lines.append(_line([(c.total(), c) for c in columns], gap))
    return lines


def _fit(columns: list[Column], width: int) -> list[Column]:
    kept = list(columns)
    while len(kept) > 2 and sum(c.width for c in kept) + len(kept) - 1 > width:
        kept.remove(max(kept, key=lambda c: c.rank))
    return kept


def _line(cells: list[tuple[Text, Column]], gap: str) -> Text:
    line = Text(no_wrap=True)
    for i, (cell, column) in enumerate(cells):
        if i:
            line.append(gap)
        fitted = cell.copy()
        fitted.align(column.align, column.width)
        line.append_text(fitted)
    return line


def _columns(group: GroupState, look: Look) -> list[Column]:
    record = group.last
    names = [f"{look.swatch} {name}" for name in group.levels]
    columns = [
        Column(
            "Level",
            min(14, max(5, *(len(name) for name in names))),
            0,
            lambda i: Text(names[i], style=level_colour(i)),
            lambda: Text("total", style=QUIET),
            "left",
        )
    ]
    if group.strides:
        columns.append(Column("Stride", 6, 92, lambda i: Text(str(group.strides[i]), style=QUIET)))
    for term in group.terms:
        columns.append(_term_column(record, term))
    trend = Column(
        "Trend",
        TREND_LEAST,
        50,
        # The width at the time of drawing: the column takes what room is left.
        lambda i: Text(
            _trend((_mean(r, i) for r in group.records), trend.width, look), style=level_colour(i)
        ),
        lambda: Text(_trend((_mean_of(r, r.loss) for r in group.records), trend.width, look), style=QUIET),
    )
    columns += [
        Column(
            "Loss",
            7,
            20,
            lambda i: Text(figure(_mean(record, i)), style=STRONG),
            lambda: Text(figure(_mean_of(record, record.loss) if record else None), style=STRONG),
        ),
        Column("Share", 5, 90, lambda i: _share_text(record, i)),
        Column("", 10, 95, lambda i: _share_bar(record, i, look), align="left"),
        Column("Variance", 10, 70, lambda i: _variance(record, i, look)),
        Column("Reduction", 9, 80, lambda i: _reduction(record, i)),
        Column("Weight", 6, 1, lambda i: _weight(record, i)),
        Column("", 8, 96, lambda i: _weight_bar(record, i, look), align="left"),
        trend,
    ]
    return columns


def _term_column(record: IntervalRecord | None, term: str) -> Column:
    row = record.loss_by_term.get(term) if record else None
    return Column(
        term,
        max(7, min(10, len(term))),
        60,
        lambda i: Text(figure(_mean_of(record, row[i : i + 1])) if record and row else "-"),
        lambda: Text(figure(_mean_of(record, row)) if record and row else "-", style=QUIET),
    )


def _mean_of(record: IntervalRecord | None, sums: tuple[float, ...]) -> float | None:
    return sum(sums) / record.count if record and record.count else None


def _mean(record: IntervalRecord | None, i: int) -> float | None:
    return _mean_of(record, record.loss[i : i + 1]) if record else None


def _share(record: IntervalRecord | None, i: int) -> float | None:
    whole = sum(record.loss) if record else 0.0
    return record.loss[i] / whole if record and whole else None


def _share_text(record: IntervalRecord | None, i: int) -> Text:
    share = _share(record, i)
    return Text("-" if share is None else f"{100 * share:.0f} %")


def _share_bar(record: IntervalRecord | None, i: int, look: Look) -> Text:
    return look.bar(_share(record, i) or 0.0, 10, level_colour(i))


def _variance(record: IntervalRecord | None, i: int, look: Look) -> Text:
    if not record:
        return Text("-  ")
    # The arrow is the variance's own: down, green, where eq 4's reduction is positive.
    change = -record.variance_reduction[i]
    return look.change(change, scientific(record.variance[i]), good=change < 0)


def _reduction(record: IntervalRecord | None, i: int) -> Text:
    if not record:
        return Text("-")
    value = record.variance_reduction[i]
    return Text(signed(value), style="green" if value > 0 else "red" if value < 0 else QUIET)


def _weight(record: IntervalRecord | None, i: int) -> Text:
    weight = record.weights[i] if record else 1.0
    style = RAISED if weight > 1 else "" if weight == 1 else "yellow"
    return Text(f"{weight:.3f}" if weight < 100 else f"{weight:.0f}", style=style)


def _weight_bar(record: IntervalRecord | None, i: int, look: Look) -> Text:
    """From 0 to 2.5, the most that RLO gives with the paper's lambda, or to the largest weight."""
    weights = record.weights if record else (1.0,) * (i + 1)
    return look.bar(weights[i] / max(2.5, *weights), 8, RAISED if weights[i] > 1 else QUIET)


def _trend(losses: Iterable[float | None], width: int, look: Look) -> str:
    """All intervals that are kept, in `width` characters: the fall shows, not the last few's noise."""
    values = [float("nan") if loss is None else loss for loss in losses]
    return sparkline(condensed(values, width), width, look.spark)
