"""`msbal train`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msbal.cli import completion
from msbal.cli.options import PlainOption, QuietOption, SetOption, SpecArgument, mode_of, overrides_of

if TYPE_CHECKING:
    from msbal.backend import LevelGroup, Monitor
    from msbal.spec import RunSpec
    from msbal.training import Outcome, Plan
    from msbal.ui.monitor import Mode


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
            "--dry-run", help="Check everything and print the complete spec and the plan, but do not train."
        ),
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The run's folder.")] = None,
    plain: PlainOption = False,
    quiet: QuietOption = False,
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            metavar="NAME",
            autocompletion=completion.trackers,
            help="Also follow the run in this tool: tensorboard, wandb, mlflow, clearml, comet or trackio. Repeatable.",
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Short for --track tensorboard.")
    ] = False,
    nproc: Annotated[
        int | None, typer.Option("--nproc", min=1, help="Train with this many processes on this machine.")
    ] = None,
) -> None:
    """Train a detector while balancing the losses of its levels."""
    from msbal.errors import SpecError
    from msbal.spec import load_spec

    if resume and force:
        raise SpecError("--resume", "given together with --force", "one of them")
    loaded = load_spec(spec, overrides_of(set_, output))
    if asked := [*(track or ()), *(["tensorboard"] if tensorboard else [])]:
        trackers = tuple(dict.fromkeys([*loaded.log.trackers, *asked]))
        log = loaded.log.model_copy(update={"trackers": trackers})
        loaded = loaded.model_copy(update={"log": log})
    if dry_run:
        _print_plan(loaded)
    elif nproc is not None and nproc > 1:
        raise typer.Exit(_launch(nproc))
    elif not _train(loaded, resume, force, mode_of(plain, quiet)):
        raise typer.Exit(130)


def _train(spec: RunSpec, resume: bool, force: bool, mode: Mode) -> bool:
    """Train to the end; return False where the run was stopped before it. Raise `MsbalError` where it fails."""
    from rich.console import Console

    from msbal.cli.console import note, progress_bar
    from msbal.engine.processes import rank
    from msbal.records import RunDirectory, read_intervals
    from msbal.spec import dump_spec
    from msbal.trackers import TrackedRun, make_trackers
    from msbal.training import claim, execute, prepare
    from msbal.training.distributed import from_first_rank, process_group, resolve_device
    from msbal.training.launch import watch_launcher
    from msbal.training.resume import check_same_run
    from msbal.ui.monitor import make_monitor
    from msbal.ui.state import Ending, RunHeader

    watch_launcher()
    device = resolve_device(spec.device)
    with process_group(device):
        first = rank() == 0

        trackers: list[Monitor] = []

        def refuse() -> None:
            folder = RunDirectory(spec.output)
            folder.check(resume=resume, force=force)
            if resume:
                check_same_run(spec, folder)
            tracked = TrackedRun(folder, dump_spec(spec), resume, lambda line: monitor.message(line))
            trackers.extend(make_trackers(spec.log.all_trackers, tracked))

        # Before the data and the model take their time; `claim` repeats the check and then writes.
        from_first_rank(refuse)
        with progress_bar("checking the images", shown=first and mode != "quiet") as progress:
            plan = prepare(spec, progress)
        run = claim(spec, resume, force)
        console = Console(quiet=not first)
        if mode != "quiet":
            for warning in plan.warnings:
                note(console, warning)
        header = RunHeader(
            name=run.path.name,
            backend=spec.backend,
            model=model_name(spec),
            strategy=spec.balance.strategy,
            interval=spec.balance.interval,
            device=str(device),
        )
        with make_monitor(
            mode if first else "quiet",
            console,
            header,
            log_file=run.log_file if first else None,
            trackers=trackers,
            history=read_intervals(run.intervals_file) if resume and run.intervals_file.exists() else (),
        ) as monitor:
            outcome = execute(plan, run, monitor, resume)
            monitor.close(Ending("finished" if outcome.finished else "stopped", _next_steps(outcome, spec)))
    return outcome.finished


def model_name(spec: RunSpec) -> str:
    """Return a short name for a spec's model."""
    model = spec.model.model_dump()
    if "config" in model:
        return str(model["config"]).rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return " ".join(str(model[key]) for key in ("name", "backbone") if model.get(key)) or spec.backend


def _next_steps(outcome: Outcome, spec: RunSpec) -> Mapping[str, str]:
    from msbal.cli.console import msbal_command

    place = os.path.relpath(outcome.run.path)
    # A path that begins like an option would be taken for one.
    where = shlex.quote(os.path.join(".", place) if place.startswith("-") else place)  # noqa: PTH118
    msbal = msbal_command()
    if not outcome.finished:
        return {"run": where, "continue": f"{msbal} train {where}/spec.yaml --resume"}
    steps = {"run": where, "see": f"{msbal} plot-losses {where}"}
    if outcome.metrics is not None:
        steps["metrics"] = f"{msbal} eval {where}"
    other = "equal" if spec.balance.strategy != "equal" else "rlo"
    steps["compare"] = (
        f"{msbal} train {where}/spec.yaml --set balance.strategy={other} -o {where}-{other}; "
        f"{msbal} eval {where}-{other} {where}"
    )
    return steps


def _print_plan(spec: RunSpec) -> None:
    """Print the complete spec as YAML, then the plan as comments, so that the output is a spec itself."""
    import yaml
    from rich.console import Console

    from msbal.cli.console import progress_bar
    from msbal.spec import dump_spec
    from msbal.training import prepare
    from msbal.training.distributed import resolve_device

    with progress_bar("checking the images") as progress:
        plan = prepare(spec, progress)
    splits = {"train": plan.train, **({} if plan.val is None else {"val": plan.val})}
    classes = plan.train.classes
    lines = [
        f"plan: {plan.iterations} iterations, {plan.intervals} intervals of {spec.balance.interval}, "
        f"strategy {spec.balance.strategy}, on {resolve_device(spec.device)}",
        *(f"{split}: {len(data)} images, {data.box_count} boxes" for split, data in splits.items()),
        f"classes: {', '.join(classes[:20])}{' ...' if len(classes) > 20 else ''}",
        *(_describe(group) for group in plan.detector.groups),
        *_boxes_per_level(plan),
        *(f"note: {warning}" for warning in plan.warnings),
    ]
    text = yaml.safe_dump(dump_spec(spec), sort_keys=False, allow_unicode=True)
    console = Console(soft_wrap=True, highlight=False)
    console.print(text + "\n".join(f"# {line}" for line in lines), markup=False)


def _describe(group: LevelGroup) -> str:
    levels = zip(group.levels, group.strides, strict=True)
    named = ", ".join(f"{level} (1/{stride})" for level, stride in levels)
    return f"levels of {group.name} ({group.head}): {named}; terms {', '.join(group.terms)}"


def _boxes_per_level(plan: Plan) -> list[str]:
    """Count the training boxes on each level by the model's own anchors, where the backend can tell."""
    from msbal.backend import CountsBoxes

    if not isinstance(plan.detector, CountsBoxes):
        return []
    levels = {group.name: group.levels for group in plan.detector.groups}
    return [
        f"boxes per level, {group}: "
        + ", ".join(f"{level} {n}" for level, n in zip(levels[group], counts, strict=True))
        for group, counts in plan.detector.boxes_per_level(plan.train).items()
    ]


def _launch(count: int) -> int:
    """Run this command line as several processes and return their exit code."""
    from msbal.training.launch import launch

    arguments = sys.argv[1:]
    at = next(i for i, a in enumerate(arguments) if a == "--nproc" or a.startswith("--nproc="))
    del arguments[at : at + (2 if arguments[at] == "--nproc" else 1)]
    return launch(count, [sys.executable, "-m", "msbal", *arguments])
