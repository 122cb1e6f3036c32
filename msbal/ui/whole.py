"""Tables that are never cut: better lines that the terminal breaks than figures that are missing."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.segment import Segment


def needed_width(console: Console, drawn: RenderableType) -> int:
    """Columns that it takes where nothing is wrapped."""
    return Measurement.get(console, console.options.update(max_width=10_000), drawn).maximum


def print_whole(console: Console, drawn: RenderableType) -> None:
    """Print, wider than the console where it has to be; a pipe has no width to fit into."""
    given = console.width
    least, needed = Measurement.get(console, console.options.update(max_width=10_000), drawn)
    console.width = max(given, least if console.is_terminal else needed)
    # Rich cuts a table that it cannot make as narrow as it has said.
    while (taken := _width(console, drawn)) > console.width:
        console.width = taken
    console.print(drawn)
    console.width = given


def _width(console: Console, drawn: RenderableType) -> int:
    lines = Segment.split_lines(console.render(drawn))
    return max((sum(segment.cell_length for segment in line) for line in lines), default=0)
