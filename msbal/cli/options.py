"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msbal.cli import completion

if TYPE_CHECKING:
    from msbal.ui.monitor import Mode

SpecArgument = Annotated[
    Path,
    typer.Argument(metavar="SPEC", help="A run spec, YAML or TOML.", autocompletion=completion.specs),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key, e.g. balance.interval=50. Repeatable.",
        autocompletion=completion.settings,
    ),
]
PlainOption = Annotated[bool, typer.Option("--plain", help="Print plain lines instead of the live table.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors and the outcome.")]


def overrides_of(set_: list[str] | None, output: Path | None) -> list[str]:
    """Return the overrides of ``--set``, then that of ``--output``."""
    return [*(set_ or []), *([] if output is None else [f"output={str(output)!r}"])]


def mode_of(plain: bool, quiet: bool) -> Mode:
    """Return how progress is to be shown; ``--quiet`` wins."""
    return "quiet" if quiet else "plain" if plain else "auto"
