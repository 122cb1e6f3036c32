"""`msbal train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msbal.cli import completion
from msbal.cli.options import PlainOption, QuietOption, SetOption, SpecArgument, mode_of, overrides_of

if TYPE_CHECKING:
    from msbal.backend import LevelGroup
    from msbal.spec import RunSpec
    from msbal.training import Plan
    from msbal.ui.activity import ActivityLine


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
            help="Also send the run to this tool: tensorboard, wandb, mlflow, clearml, comet or trackio. Repeatable.",
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
    from rich.console import Console

    from msbal.errors import SpecError
    from msbal.ui.activity import ActivityLine
    from msbal.ui.printing import print_line

    if resume and force:
        raise SpecError("--resume", "given together with --force", "one of them")
    mode = mode_of(plain, quiet)
    console = Console(stderr=dry_run)  # the plan goes to stdout
    with ActivityLine(console, mode != "quiet" and os.environ.get("RANK", "0") == "0") as start_up:
        start_up.progress("loading PyTorch", 0, 1)
        try:
            loaded = _load(spec, overrides_of(set_, output), [*(track or ()), *["tensorboard"] * tensorboard])
            if dry_run:
                _print_plan(loaded, start_up)
                code = 0
            elif nproc is not None and nproc > 1:
                code = _launch(nproc, start_up)
            else:
                from msbal.cli.training_run import TrainingRun

                code = TrainingRun(loaded, resume, force, mode, console, start_up).train()
        except KeyboardInterrupt:
            start_up.close()
            print_line(console, "interrupted before the training began")
            code = 130
    raise typer.Exit(code)


def _load(path: Path, overrides: list[str], asked: list[str]) -> RunSpec:
    """Load a spec; `asked` are trackers beside its own. Refuse those that are not there."""
    from msbal.spec import load_spec
    from msbal.trackers import find_trackers

    loaded = load_spec(path, overrides)
    if asked:
        trackers = tuple(dict.fromkeys([*loaded.log.trackers, *asked]))
        loaded = loaded.model_copy(update={"log": loaded.log.model_copy(update={"trackers": trackers})})
    find_trackers(loaded.log.all_trackers)
    return loaded


def _print_plan(spec: RunSpec, start_up: ActivityLine) -> None:
    """Print the complete spec as YAML, then the plan as comments, so that the output is a spec itself."""
    import yaml
    from rich.console import Console

    from msbal.spec import dump_spec
    from msbal.training import prepare
    from msbal.training.distributed import resolve_device

    plan = prepare(spec, start_up.progress)
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
    start_up.close()
    text = yaml.safe_dump(dump_spec(spec), sort_keys=False, allow_unicode=True)
    console = Console(soft_wrap=True, highlight=False)
    console.print(text + "\n".join(f"# {line}" for line in lines), markup=False)


def _describe(group: LevelGroup) -> str:
    levels = zip(group.levels, group.strides, strict=True)
    named = ", ".join(f"{level} (1/{stride})" for level, stride in levels)
    return f"levels of {group.name} ({group.head}): {named}; terms {', '.join(group.terms)}"


def _boxes_per_level(plan: Plan) -> list[str]:
    """Count the training boxes on each level, where the backend can tell before the model has run."""
    from msbal.backend import count_boxes

    counts, lines = count_boxes(plan.detector, plan.train), []
    for group in plan.detector.groups:
        if group.name in counts:
            boxes, none = counts[group.name]
            on = [f"{level} {n}" for level, n in zip(group.levels, boxes, strict=True)]
            lines.append(f"boxes per level, {group.name}: {', '.join(on + [f'none {none}'] * (none > 0))}")
    return lines


def _launch(count: int, start_up: ActivityLine) -> int:
    """Run this command line as several processes and return their exit code."""
    from msbal.training.launch import launch

    start_up.close()
    arguments = sys.argv[1:]
    at = next(i for i, a in enumerate(arguments) if a == "--nproc" or a.startswith("--nproc="))
    del arguments[at : at + (2 if arguments[at] == "--nproc" else 1)]
    return launch(count, [sys.executable, "-m", "msbal", *arguments])
