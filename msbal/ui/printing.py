"""What is printed once and must not be cut: a line, an error, a whole table."""

from __future__ import annotations

import sys
from typing import IO

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
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


def error_line(error: BaseException, file: IO[str] | None = None) -> None:
    """Print an error as one line, ``error: ...``, to stderr or `file`."""
    detail = one_line(str(error)) or type(error).__name__
    print_line(Console(file=file or sys.stderr), ("error:", "bold red"), " ", detail)


def needed_width(console: Console, drawn: RenderableType) -> int:
    """Return the columns that `drawn` takes if nothing in it is wrapped."""
    return Measurement.get(console, console.options.update(max_width=10_000), drawn).maximum


def print_whole(console: Console, drawn: RenderableType) -> None:
    """Print a table, wider than the terminal if need be: a broken line is better than a missing number.

    A pipe has no width, so nothing is wrapped there.
    """
    given = console.width
    narrowest, needed = Measurement.get(console, console.options.update(max_width=10_000), drawn)
    console.width = max(given, narrowest if console.is_terminal else needed)
    # A table may come out wider than the minimum that rich has computed for it, and rich would cut it.
    while (taken := _width(console, drawn)) > console.width:
        console.width = taken
    console.print(drawn)
    console.width = given


def _width(console: Console, drawn: RenderableType) -> int:
    return max(
        (Segment.get_line_length(line) for line in Segment.split_lines(console.render(drawn))), default=0
    )
