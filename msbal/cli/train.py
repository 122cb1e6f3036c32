"""`msbal train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msbal.cli.options import SetOption, SpecArgument


def command(
    spec: SpecArgument,
    set_: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Delete the run in the output folder first.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check everything, print the complete spec and the plan, train nothing."
        ),
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The run's folder.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of the live table.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors and the end.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard scalars.")
    ] = False,
    nproc: Annotated[
        int | None, typer.Option("--nproc", min=1, help="Train with this many processes on this machine.")
    ] = None,
) -> None:
    """Train a detector with its levels' losses balanced."""
    from msbal.cli.train_run import launch_processes, print_plan, train
    from msbal.errors import SpecError
    from msbal.spec import load_spec

    if resume and force:
        raise SpecError("--resume", "given together with --force", "one of them")
    overrides = list(set_ or [])
    if output is not None:
        overrides.append(f"output={str(output)!r}")
    if tensorboard:
        overrides.append("log.tensorboard=true")
    loaded = load_spec(spec, overrides)
    if dry_run:
        print_plan(loaded)
        return
    if nproc is not None and nproc > 1:
        raise typer.Exit(launch_processes(nproc))
    finished = train(
        loaded, resume=resume, force=force, mode="quiet" if quiet else "plain" if plain else "auto"
    )
    if not finished:
        raise typer.Exit(130)
