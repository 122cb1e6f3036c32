"""What `msbal train` does once its arguments are read; imports torch."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from msbal.backend import CountsBoxes, LevelGroup
from msbal.records import RunDirectory, read_intervals
from msbal.spec import RunSpec, dump_spec
from msbal.training import Outcome, Plan, claim, execute, prepare
from msbal.training.distributed import process_group, rank, resolve_device
from msbal.training.launch import launch, watch_launcher
from msbal.training.resume import check_same_run
from msbal.ui.monitor import Mode, make_monitor
from msbal.ui.state import Ending, RunHeader


def train(spec: RunSpec, resume: bool, force: bool, mode: Mode) -> bool:
    """Train to the end; False where it was stopped before. Raises `MsbalError` where it fails."""
    console = Console()
    watch_launcher()
    with process_group(resolve_device(spec.device)):
        if rank() == 0:
            # Before data and model take their time; `claim` repeats the check and then writes.
            RunDirectory(spec.output).check(resume=resume, force=force)
            if resume:
                check_same_run(spec, RunDirectory(spec.output))
        with _looking_into_images(shown=rank() == 0 and mode != "quiet") as progress:
            plan = prepare(spec, progress)
        run = claim(spec, resume, force)
        first = rank() == 0
        if first and mode != "quiet":
            for warning in plan.warnings:
                console.print(f"[yellow]note:[/] {escape(warning)}", highlight=False, soft_wrap=True)
        monitor = make_monitor(
            mode if first else "quiet",
            console if first else Console(file=open(os.devnull, "w")),  # noqa: SIM115, PTH123
            _header(plan, run),
            log_file=run.log_file if first else None,
            tensorboard=run.tensorboard if first and spec.log.tensorboard else None,
            history=read_intervals(run.intervals_file) if resume and run.intervals_file.exists() else (),
        )
        try:
            outcome = execute(plan, run, monitor, resume)
        except BaseException:
            monitor.close(Ending("failed"))
            raise
        monitor.close(Ending("finished" if outcome.finished else "stopped", _next_steps(outcome, spec)))
    return outcome.finished


def _header(plan: Plan, run: RunDirectory) -> RunHeader:
    spec = plan.spec
    return RunHeader(
        name=run.path.name,
        backend=spec.backend,
        model=model_name(spec),
        strategy=spec.balance.strategy,
        interval=spec.balance.interval,
        device=str(resolve_device(spec.device)),
        output=str(run.path),
    )


def model_name(spec: RunSpec) -> str:
    """What to call a spec's model in a line."""
    model = spec.model.model_dump()
    if "config" in model:
        return str(model["config"]).rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return " ".join(str(model[key]) for key in ("name", "backbone") if model.get(key)) or spec.backend


def _next_steps(outcome: Outcome, spec: RunSpec) -> Mapping[str, str]:
    place = os.path.relpath(outcome.run.path)
    # What begins like an option would be taken for one.
    where = shlex.quote(os.path.join(".", place) if place.startswith("-") else place)  # noqa: PTH118
    if not outcome.finished:
        return {"run": where, "continue": f"msbal train {where}/spec.yaml --resume"}
    steps = {"run": where, "see": f"msbal plot-losses {where}"}
    if outcome.metrics is not None:
        steps["metrics"] = f"msbal eval {where}"
    other = "equal" if spec.balance.strategy != "equal" else "rlo"
    steps["compare"] = (
        f"msbal train {where}/spec.yaml --set balance.strategy={other} -o {where}-{other}; "
        f"msbal eval {where}-{other} {where}"
    )
    return steps


def print_plan(spec: RunSpec) -> None:
    """The complete spec as YAML, then the plan as comments: the output is a spec itself."""
    with _looking_into_images() as progress:
        plan = prepare(spec, progress)
    console = Console(soft_wrap=True, highlight=False)
    console.print(yaml.safe_dump(dump_spec(spec), sort_keys=False, allow_unicode=True), end="", markup=False)
    lines = [
        f"plan: {plan.iterations} iterations, {plan.intervals} intervals of {spec.balance.interval}, "
        f"strategy {spec.balance.strategy}, on {resolve_device(spec.device)}",
        _counted("train", len(plan.train), plan.train.box_count),
        *([_counted("val", len(plan.val), plan.val.box_count)] if plan.val else []),
        f"classes: {', '.join(plan.train.classes[:20])}{' ...' if len(plan.train.classes) > 20 else ''}",
        *(describe_group(group) for group in plan.detector.groups),
        *boxes_per_level(plan),
        *(f"note: {warning}" for warning in plan.warnings),
    ]
    console.print("\n".join(f"# {line}" for line in lines), markup=False)


@contextmanager
def _looking_into_images(shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal while images are decoded, which takes its time where they are large."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not (shown and console.is_terminal),
    ) as bar:  # fmt: skip
        task = bar.add_task("looking into the images", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def boxes_per_level(plan: Plan) -> list[str]:
    """The training boxes on each level by the model's own anchors, where the backend can tell."""
    detector = plan.detector
    if not isinstance(detector, CountsBoxes):
        return []
    levels = {group.name: group.levels for group in plan.detector.groups}
    return [
        f"boxes per level, {group}: "
        + ", ".join(f"{k} {n}" for k, n in zip(levels[group], counts, strict=True))
        for group, counts in detector.boxes_per_level(plan.train).items()
    ]


def describe_group(group: LevelGroup) -> str:
    """One line on a group of levels."""
    levels = ", ".join(
        f"{level} (1/{stride})" for level, stride in zip(group.levels, group.strides, strict=True)
    )
    return f"levels of {group.name} ({group.head}): {levels}; terms {', '.join(group.terms)}"


def _counted(split: str, images: int, boxes: int) -> str:
    return f"{split}: {images} images, {boxes} boxes"


def launch_processes(count: int) -> int:
    """Run this same command line as several processes, and give their exit code."""
    arguments = sys.argv[1:]
    at = next(i for i, a in enumerate(arguments) if a == "--nproc" or a.startswith("--nproc="))
    del arguments[at : at + (2 if arguments[at] == "--nproc" else 1)]
    return launch(count, [sys.executable, "-m", "msbal", *arguments])
