"""Tables on the terminal: whole, in as many parts as its width asks for."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from msbal.table import Table

MAX_LINE = 100
"""Longer lines of prose are hard to read."""

_GAP = 2
_NARROW = 16
"""A first column that is wider may be folded."""

_TONES = {"better": "green", "worse": "red"}


def fits(console: Console, table: Table) -> bool:
    """Tell whether a table need not be printed in parts."""
    return not console.is_terminal or _least_width(table, table.filled()) <= console.width


def print_whole(console: Console, table: Table) -> None:
    """Print a table with its title and notes, and an empty line after it.

    Where the terminal is too narrow it comes in parts, each with the row's labels, and columns with a shared heading
    stay together; a pipe gets it in one. A column without any entry is left out. No number is broken, and nothing is
    cut: what is too wide even so is broken by the terminal.
    """
    if table.title:
        print_text(console, table.title, "bold")
    parts = _parts(table, console.width) if console.is_terminal else [table.filled()]
    for number, places in enumerate(parts):
        if number:
            console.print()
        for line in _lines(table, places, console.width if console.is_terminal else None):
            console.print(line, soft_wrap=True)
    console.print()
    for note in table.notes:
        print_text(console, note, "dim")
    if table.notes:
        console.print()


def print_text(console: Console, text: str, style: str = "", bullet: str = "") -> None:
    """Print a sentence over the lines of a terminal, below each other behind `bullet`; a pipe gets it in one line."""
    text = f"{bullet}{text}"
    if console.is_terminal:
        width, below = min(console.width, MAX_LINE), " " * len(bullet)
        text = textwrap.fill(
            text, width, subsequent_indent=below, break_long_words=False, break_on_hyphens=False
        )
    console.print(Text(text, style), soft_wrap=True)


def _parts(table: Table, width: int) -> list[list[int]]:
    """Return the places of each part's columns: as few parts as fit, and these about equally wide."""
    shown = table.filled()
    labels = list(itertools.takewhile(lambda place: table.columns[place].text, shown))
    if not labels or len(labels) == len(shown) or _least_width(table, labels) > width / 2:
        labels = shown[:1]
    taken = _least_width(table, labels)
    blocks: list[list[int]] = []
    for above, places in itertools.groupby(
        shown[len(labels) :], key=lambda place: table.columns[place].above
    ):
        block = list(places)
        alone = not above or _least_width(table, [*labels, *block]) > width
        blocks += [[place] for place in block] if alone else [block]
    widths = [_least_width(table, [*labels, *block]) - taken for block in blocks]
    room = width - taken
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


def _least_width(table: Table, places: Sequence[int]) -> int:
    """Return the width of some columns side by side, their texts over as many lines as they have words."""
    return max(line.cell_len for line in _lines(table, places, 0))


def _lines(table: Table, places: Sequence[int], width: int | None) -> list[Text]:
    """Draw some columns of a table, their texts folded as far as `width` asks for."""
    columns = [table.columns[place] for place in places]
    texts = [column.text for column in columns]
    rows = [[row[place] for place in places] for row in table.rows]
    cells = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in places]
    headings = [
        _heading(column.name if column.above else column.heading, max([10, *map(cell_len, found)]))
        for column, found in zip(columns, cells, strict=True)
    ]
    widths = [max(map(cell_len, [*h, *found])) for h, found in zip(headings, cells, strict=True)]
    spans: list[tuple[str, list[int]]] = []
    for above, numbers in itertools.groupby(range(len(places)), key=lambda n: columns[n].above):
        spans.append((above, list(numbers)))
        if above:
            widths[spans[-1][1][0]] += max(0, cell_len(above) + 2 - _total(widths, spans[-1][1]))
    if width is not None:
        _fold(widths, texts, headings, cells, width)

    lines = _head(headings, spans, widths, texts)
    lines.append(Text(" " + "─" * _total(widths, range(len(widths)))))
    for number, row in enumerate(rows):
        if number in table.rules:
            lines.append(Text())
        folded = [
            textwrap.wrap(cell, w, break_on_hyphens=False) or [""]
            for cell, w in zip(row, widths, strict=True)
        ]
        tones = [_TONES.get(getattr(cell, "tone", ""), "") for cell in row]
        for line in itertools.zip_longest(*folded, fillvalue=""):
            lines.append(_line(line, widths, texts, tones))
    return lines


def _head(
    headings: Sequence[list[str]],
    spans: Sequence[tuple[str, list[int]]],
    widths: Sequence[int],
    texts: Sequence[bool],
) -> list[Text]:
    """Draw the headings, each on the line above the entries, and those that columns share over their own."""
    own = max((len(headings[n]) for above, numbers in spans if above for n in numbers), default=0)
    depth = max([own + bool(own), *map(len, headings)])
    full = [[""] * (depth - len(heading)) + heading for heading in headings]
    lines = [_line(row, widths, texts, ["bold"] * len(widths)) for row in zip(*full, strict=True)]
    if own:
        row = []
        for above, numbers in spans:
            width = _total(widths, numbers)
            # A heading of one column that is as high begins beside it.
            beside = [(full[n][-own - 1], widths[n], texts[n], "bold") for n in numbers]
            row += [(f" {above} ".center(width, "─"), width, True, "")] if above else beside
        lines[-own - 1] = _line(*zip(*row, strict=True))
    return lines


def _total(widths: Sequence[int], numbers: Sequence[int]) -> int:
    return sum(widths[n] for n in numbers) + _GAP * (len(numbers) - 1)


def _fold(
    widths: list[int],
    texts: Sequence[bool],
    headings: Sequence[list[str]],
    cells: Sequence[list[str]],
    room: int,
) -> None:
    """Narrow columns of texts, the widest first, until they fit; only the first column breaks words. In place."""
    for n in sorted((n for n, text in enumerate(texts) if text or not n), key=lambda n: -widths[n]):
        words = [word for cell in cells[n] for word in cell.split(" ")]
        least = max(map(cell_len, [*headings[n], *(words if n else [word[:_NARROW] for word in words])]))
        excess = 1 + _total(widths, range(len(widths))) - room
        widths[n] -= max(0, min(excess, widths[n] - least))


def _line(cells: Sequence[str], widths: Sequence[int], texts: Sequence[bool], styles: Sequence[str]) -> Text:
    """Set one line, texts to the left and numbers to the right."""
    line = Text(" ")
    for cell, width, text, style in zip(cells, widths, texts, styles, strict=True):
        space = " " * (width - cell_len(cell))
        if len(line) > 1:
            line.append(" " * _GAP)
        line.append("" if text else space).append(cell, style).append(space if text else "")
    line.rstrip()
    return line


def _heading(heading: str, width: int) -> list[str]:
    """Return a heading in lines of at most `width`, broken at spaces and after the slashes of paths."""
    lines = [""]
    for word in re.findall(r"[^\s/]{3,}/|\S+|\s+", heading):
        if lines[-1].strip() and cell_len((lines[-1] + word).strip()) > width:
            lines.append("")
        lines[-1] += word
    return [line.strip() for line in lines]
