"""What is printed once and must not be cut: a line, an error, a whole table."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segment
from rich.text import Text

from msbal.ui.text import encodable, one_line

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from msbal.table import Table

_MAX_LINE = 100
"""Longer lines of prose are hard to read."""

_MAX_WIDTH = 10_000
"""Of a table in a pipe."""


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


def fits(console: Console, table: Table) -> bool:
    """Tell whether a table need not be printed in parts."""
    return not console.is_terminal or _width(console, table.rich()) <= console.width


def print_whole(console: Console, table: Table) -> None:
    """Print a table with its title and notes, and an empty line after it.

    Where the terminal is too narrow it comes in parts, each with the row's labels, and columns with a shared heading
    stay together; a pipe gets it in one. Nothing is cut: what is too wide even so is broken by the terminal.
    """
    given = console.width
    if table.title:
        _print_text(console, table.title, "bold")
    for places in _parts(console, table) if console.is_terminal else [table.filled()]:
        part = table.rich(places)
        console.width = max(given, _width(console, part) if console.is_terminal else _MAX_WIDTH)
        console.print(part)
        console.width = given
    for note in table.notes:
        _print_text(console, note, "dim")
    if table.notes:
        console.print()


def _print_text(console: Console, text: str, style: str) -> None:
    """Print a sentence over the lines of a terminal, at most `_MAX_LINE` wide; a pipe gets it in one line."""
    width = min(console.width, _MAX_LINE) if console.is_terminal else None
    console.print(Text(text, style), width=width, soft_wrap=not console.is_terminal)


def _parts(console: Console, table: Table) -> list[list[int]]:
    """Return the places of each part's columns: as few parts as fit, and these about equally wide."""
    shown = table.filled()

    def width(places: Sequence[int]) -> int:
        return _width(console, table.rich(places))

    labels = list(itertools.takewhile(lambda place: table.columns[place].text, shown))
    if not labels or len(labels) == len(shown) or width(labels) > console.width / 2:
        labels = shown[:1]
    taken = width(labels)
    blocks: list[list[int]] = []
    for above, places in itertools.groupby(
        shown[len(labels) :], key=lambda place: table.columns[place].above
    ):
        block = list(places)
        alone = not above or width([*labels, *block]) > console.width
        blocks += [[place] for place in block] if alone else [block]
    widths = [width([*labels, *block]) - taken for block in blocks]
    room = console.width - taken
    count = len(_packed(widths, room))
    while room > 0 and len(_packed(widths, room - 1)) == count:
        room -= 1
    packed = _packed(widths, room)
    return [[*labels, *(place for n in numbers for place in blocks[n])] for numbers in packed] or [labels]


def _packed(widths: Sequence[int], room: int) -> list[list[int]]:
    """Return the numbers of the blocks that stand side by side, in order; one that is too wide stands alone."""
    packed: list[list[int]] = []
    left = 0
    for number, width in enumerate(widths):
        if not packed or width > left:
            packed.append([])
            left = room
        packed[-1].append(number)
        left -= width
    return packed


def _width(console: Console, table: RichTable) -> int:
    """Return the least width at which rich cuts nothing; it may be more than the minimum that rich computes."""
    width = Measurement.get(console, console.options.update(max_width=_MAX_WIDTH), table).minimum
    while True:
        lines = Segment.split_lines(console.render(table, console.options.update(max_width=width)))
        taken = max((Segment.get_line_length(line) for line in lines), default=0)
        if taken <= width:
            return width
        width = taken
