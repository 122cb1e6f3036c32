"""What is printed once and must not be cut: a line, an error."""

from __future__ import annotations

import sys
from typing import IO

from rich.console import Console
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
