"""What is printed once and must not be cut: a line, an error, a whole table."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import IO

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from msbal.ui.text import encodable, one_line


def print_line(console: Console, *parts: str | Text | tuple[str, str]) -> None:
    """Print `parts` as one line that is never wrapped, so that it stays one line in a pipe.

    Args:
        console: where to print.
        parts: as for `Text.assemble`; what they hold is printed as it is, without markup.
    """
    line = Text.assemble(*parts)
    if console.options.ascii_only:
        line.plain = encodable(line.plain, console.encoding)
    console.print(line, soft_wrap=True, highlight=False)


def error_line(error: BaseException | str, file: IO[str] | None = None) -> None:
    """Print an error as one line, ``error: ...``, to stderr or `file`."""
    detail = one_line(str(error)) or type(error).__name__
    print_line(Console(file=file or sys.stderr), ("error:", "bold red"), " ", detail)


def needed_width(console: Console, drawn: RenderableType) -> int:
    """Return the columns that `drawn` takes if nothing in it is wrapped."""
    return Measurement.get(console, console.options.update(max_width=10_000), drawn).maximum


def print_whole(console: Console, table: Table) -> None:
    """Print a table in parts that fit the terminal, each with the row's labels; a pipe gets it in one.

    Nothing is cut: what is too wide even so is broken by the terminal.
    """
    given = console.width
    parts = _parts(console, table) if console.is_terminal else [table]
    caption = None
    if len(parts) > 1:  # the last may be narrow
        caption, parts[-1].caption = parts[-1].caption, None
    for part in parts:
        console.width = max(
            given, _width(console, part) if console.is_terminal else needed_width(console, part)
        )
        console.print(part)
        console.width = given
    if caption:
        console.print(caption, style="table.caption")


def _parts(console: Console, table: Table) -> list[Table]:
    """Split a table by columns; the title goes over the first part, the caption under the last."""
    labels = _labels(console, table)
    rest = table.columns[len(labels) :]
    parts = []
    while rest:
        count = len(rest)
        while count > 1 and _width(console, _with_columns(table, [*labels, *rest[:count]])) > console.width:
            count -= 1
        parts.append(_with_columns(table, [*labels, *rest[:count]]))
        rest = rest[count:]
    for before, after in itertools.pairwise(parts):
        before.caption = after.title = None
    return parts or [table]


def _labels(console: Console, table: Table) -> list[Column]:
    """Return the columns that say which row it is: the texts before the first number, where there is room for them."""
    texts = list(itertools.takewhile(lambda column: column.justify == "left", table.columns))
    narrow = (
        len(texts) < len(table.columns) and _width(console, _with_columns(table, texts)) <= console.width / 2
    )
    return texts if texts and narrow else table.columns[:1]


def _with_columns(table: Table, columns: Sequence[Column]) -> Table:
    part = copy(table)
    part.columns = [replace(column, _index=index) for index, column in enumerate(columns)]
    return part


def _width(console: Console, table: Table) -> int:
    """Return the least width at which rich cuts nothing; it may be more than the minimum that rich computes."""
    width = Measurement.get(console, console.options.update(max_width=10_000), table).minimum
    while True:
        lines = Segment.split_lines(console.render(table, console.options.update(max_width=width)))
        taken = max((Segment.get_line_length(line) for line in lines), default=0)
        if taken <= width:
            return width
        width = taken
