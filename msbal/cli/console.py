"""What several commands print or write: notes, a progress bar, text for a file or stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from msbal.errors import SpecError
from msbal.records.atomic import write_text
from msbal.ui.printing import print_line
from msbal.ui.text import one_line


def note(console: Console, text: str) -> None:
    """Print a note, on one line."""
    print_line(console, ("note:", "yellow"), " ", one_line(text))


@contextmanager
def progress_bar(description: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr, if that is a terminal, while it is entered.

    Yields:
        To be called with how much is done and how much there is; the bar appears with the first call.
    """
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not (shown and console.is_terminal),
    ) as bar:  # fmt: skip
        task = bar.add_task(description, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def write_to(target: str | Path, text: str) -> None:
    """Write a text to a file, atomically, or to stdout where the target is ``-``.

    Raises:
        SpecError: where the file cannot be written.
    """
    if str(target) == "-":
        sys.stdout.write(text)
        return
    try:
        write_text(Path(target), text)
    except OSError as error:
        raise SpecError(str(target), f"cannot be written: {error.strerror}", "a writable file") from error
