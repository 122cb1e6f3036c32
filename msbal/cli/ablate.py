"""`msbal ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="An ablation spec, YAML or TOML.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a key, e.g. seeds=5; base.KEY=VALUE sets a key of the run spec in every arm. Repeatable.",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs at once on this machine.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Run anew what was run with another spec.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the grid and how long it will take, from one measured step."),
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; report on what is finished.")
    ] = False,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Shrink everything as the spec's `smoke` says, at most two seeds: a trial on a CPU.",
        ),
    ] = False,
    resamples: Annotated[
        int,
        typer.Option("--resamples", min=0, help="Of the bootstrap over seeds and images; 0 leaves it out."),
    ] = 1000,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The folder of all runs.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of the live table.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the report.")] = False,
) -> None:
    """Compare strategies, or any other settings, over several seeds; say what may be concluded.

    Runs that are finished are kept and broken ones resumed: start the same command again after a stop.
    """
    from msbal.ablation.spec import load_ablation
    from msbal.cli.ablate_run import AblateCall, ablate
    from msbal.errors import SpecError

    if report_only and (dry_run or force):
        raise SpecError(
            "--report-only", f"given together with --{'dry-run' if dry_run else 'force'}", "one of them"
        )
    overrides = list(set_ or [])
    if output is not None:
        overrides.append(f"output={str(output)!r}")
    call = AblateCall(
        ablation=load_ablation(spec, overrides),
        name=spec.stem,
        jobs=jobs,
        force=force,
        dry_run=dry_run,
        report_only=report_only,
        smoke=smoke,
        resamples=resamples,
        mode="quiet" if quiet else "plain" if plain else "auto",
    )
    code = ablate(call)
    if code:
        raise typer.Exit(code)
