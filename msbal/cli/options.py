"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msbal.cli import completion

if TYPE_CHECKING:
    from msbal.records import RunDirectory
    from msbal.spec import RunSpec
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


def spec_and_run(path: Path, set_: list[str] | None) -> tuple[RunSpec, RunDirectory]:
    """Return the spec and the folder of a run, given as its folder or as a spec, which names it by its `output`.

    Raises:
        SpecError: where there is neither.
    """
    from msbal.errors import SpecError, suggest_path
    from msbal.records import RunDirectory
    from msbal.spec import load_spec

    expected = "a run's folder, or a spec"
    if not path.exists():
        raise SpecError("RUN", f"{path}: no such file or folder", expected, suggest_path(path))
    if not path.is_dir():
        spec = load_spec(path, set_ or [])
        return spec, RunDirectory(spec.output)
    run = RunDirectory(path)
    if not run.exists():
        inside = sorted(str(file.parent) for file in path.glob("*/spec.yaml"))[:5]
        fix = f"runs inside it: {' '.join(inside)}" if inside else ""
        raise SpecError("RUN", f"{path} holds no run (no spec.yaml)", expected, fix)
    return load_spec(run.spec_file, set_ or []), run


def mode_of(plain: bool, quiet: bool) -> Mode:
    """Return how progress is to be shown; ``--quiet`` wins."""
    return "quiet" if quiet else "plain" if plain else "auto"
