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
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            help="Runs at once: by default 1 on this machine, and all that there is room for on others.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="Run on a Ray cluster: auto, HOST:6379 or ray://HOST:10001. Its machines must share the output "
            "folder and the data.",
        ),
    ] = None,
    slurm: Annotated[
        bool,
        typer.Option(
            "--slurm",
            help="Run as an array of SLURM jobs, which go on when this command ends; the same command finds them "
            "again. The machines must share the output folder and the data.",
        ),
    ] = False,
    slurm_option: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm-option",
            metavar="KEY=VALUE",
            help="An option of sbatch, e.g. partition=gpu or time=12:00:00 (by default 24 hours). Repeatable.",
        ),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            "--gpus",
            min=0,
            help="With --ray and --slurm, GPUs of each run; several train it together. By default 1, without any in "
            "a Ray cluster or under `device: cpu` 0.",
        ),
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option(
            "--cpus",
            min=1,
            help="With --ray and --slurm, CPU cores of each run. By default 1 and one for each process that "
            "loads images.",
        ),
    ] = None,
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
    if ray is not None and slurm:
        raise SpecError("--ray", "given together with --slurm", "one of them")
    for option, value in (("--gpus", gpus), ("--cpus", cpus)):
        if value is not None and ray is None and not slurm:
            raise SpecError(option, "given without --ray or --slurm", "it together with one of them")
    if slurm_option and not slurm:
        raise SpecError("--slurm-option", "given without --slurm", "both")
    if gpus is not None and gpus != int(gpus) and (slurm or gpus > 1):
        raise SpecError("--gpus", f"{gpus:g}", "a whole number; with --ray also a part of one")
    sbatch = dict(_pair(text) for text in slurm_option or [])
    overrides = list(set_ or [])
    if output is not None:
        overrides.append(f"output={str(output)!r}")
    call = AblateCall(
        ablation=load_ablation(spec, overrides),
        name=spec.stem,
        jobs=jobs,
        ray=ray,
        slurm=slurm,
        sbatch=sbatch,
        gpus=gpus,
        cpus=cpus,
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


def _pair(text: str) -> tuple[str, str]:
    from msbal.errors import SpecError

    key, equals, value = text.partition("=")
    if not equals or not key.strip("- "):
        raise SpecError("--slurm-option", f"`{text}`", "KEY=VALUE, e.g. partition=gpu")
    return key.strip(), value
