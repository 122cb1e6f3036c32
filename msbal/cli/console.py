"""What several commands print or write: commands to type next, notes, a progress bar, text for a file or stdout."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from msbal.errors import SpecError, as_typed
from msbal.records.atomic import write_text
from msbal.ui.printing import print_line
from msbal.ui.text import one_line

if TYPE_CHECKING:
    from msbal.spec import RunSpec

_COMMANDS = re.compile(
    r"(?<![\w./-])(msbal(?= (?:init|train|ablate|eval|predict|plot-losses|inspect|diagnose|replay|schema|backends)\b)"
    r"|pip(?= install\b))"
)


def msbal_command() -> str:
    """Return what runs this msbal in the user's shell.

    It is ``msbal`` in an activated environment, else the script's path, or ``PYTHON -m msbal`` without a script.
    """
    return _command("msbal")


def runnable(text: str) -> str:
    """Return a text whose commands of msbal and pip are spelled as the user's shell can run them."""
    return _COMMANDS.sub(lambda found: _command(found[0]), text)


@cache
def _command(name: str) -> str:
    folder = Path(sys.executable).parent
    found = shutil.which(name)
    if found and Path(found).absolute().parent == folder:
        return name
    script = shutil.which(name, path=str(folder))
    if script is None:
        return f"{shlex.quote(as_typed(sys.executable))} -m {name}"
    return shlex.quote(as_typed(script))


def note(console: Console, text: str) -> None:
    """Print a note, on one line."""
    print_line(console, ("note:", "yellow"), " ", runnable(one_line(text)))


def model_name(spec: RunSpec) -> str:
    """Return a short name for a spec's model."""
    model = spec.model.model_dump()
    if "config" in model:
        return str(model["config"]).rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return " ".join(str(model[key]) for key in ("name", "backbone") if model.get(key)) or spec.backend


@contextmanager
def progress_bar(description: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr, if that is a terminal, while it is entered.

    Yields:
        To be called with how much is done and how much there is; the bar appears with the first call.
    """
    from msbal.ui.activity import ActivityLine

    console = Console(stderr=True)
    with ActivityLine(console, shown and console.is_terminal) as bar:
        yield lambda done, total: bar.progress(description, done, total)


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
