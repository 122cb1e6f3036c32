"""What `msbal ablate` does once its arguments are read; imports torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from msbal.ablation.cells import Finding, findings_of, refuse_changed
from msbal.ablation.collect import ImageBootstrap, Interval, Outcomes, collect
from msbal.ablation.estimate import estimate, total_seconds
from msbal.ablation.executors.executor import Executor
from msbal.ablation.executors.local import LocalExecutor
from msbal.ablation.grid import Grid, make_grid, slug
from msbal.ablation.report import Report, make_report
from msbal.ablation.reporting.costs import arm_costs
from msbal.ablation.runner import GridRunner, Result, check_output
from msbal.ablation.spec import AblationSpec
from msbal.errors import RunError
from msbal.records.atomic import write_text
from msbal.table import Table, columns
from msbal.training.stop import StopRequest
from msbal.ui.grid import make_grid as make_grid_monitor
from msbal.ui.monitor import Mode
from msbal.ui.text import duration, one_line
from msbal.ui.whole import print_whole


@dataclass(frozen=True)
class AblateCall:
    """The arguments of `msbal ablate`."""

    ablation: AblationSpec
    name: str
    jobs: int | None = None
    ray: str | None = None
    slurm: bool = False
    sbatch: Mapping[str, str] = field(default_factory=dict)
    gpus: float | None = None
    cpus: int | None = None
    force: bool = False
    dry_run: bool = False
    report_only: bool = False
    smoke: bool = False
    resamples: int = 1000
    mode: Mode = "auto"


def ablate(call: AblateCall) -> int:
    """Run what is open, and report; gives the exit code.

    Raises:
        SpecError: where the spec is wrong, or a run's spec has changed.
        RunError: where runs failed; what is finished has been reported before.
    """
    grid = make_grid(call.ablation, call.smoke)
    check_output(grid)
    if call.dry_run:
        _print_plan(call, grid)
        return 0
    console = Console(highlight=False)
    if call.report_only:
        findings = findings_of(grid)
        refuse_changed(findings)
        _report(call, grid, findings, console)
        return 0
    result = _run(call, grid, console)
    if any(finding.condition == "finished" for finding in result.findings):
        _report(call, grid, result.findings, console)
    if result.stopped:
        on = "; the runs that SLURM has go on" if call.slurm else ""
        console.print(f"stopped{on}; the same command goes on from here", markup=False)
        return 130
    if result.failures:
        first = result.failures[0]
        more = f" (and {len(result.failures) - 1} more runs)" if len(result.failures) > 1 else ""
        raise RunError(
            f"arm {first.cell.arm}, seed {first.cell.seed}", f"{one_line(first.reason)}{more}",
            fix=f"see {os.path.relpath(first.log)}; the same command tries the failed runs again",
        )  # fmt: skip
    return 0


def _run(call: AblateCall, grid: Grid, console: Console) -> Result:
    write_text(grid.output / "ablation.yaml", _dumped(call.ablation))
    monitor = make_grid_monitor(call.mode, console, call.name, call.ablation.metric)
    executor = make_executor(call, grid)
    with StopRequest() as stop:
        runner = GridRunner(
            grid, monitor, executor, call.ablation.metric, call.force, lambda: stop.requested,
            processes=max(1, int(call.gpus or 1)),
        )  # fmt: skip
        try:
            return runner.run()
        finally:
            executor.close()
            monitor.close()


def make_executor(call: AblateCall, grid: Grid) -> Executor:
    """Where the call wants its runs to be worked on.

    Raises:
        BackendError: where what it takes is not installed.
        RunError: where it cannot be reached.
    """
    devices = {cell.spec.device for cell in grid.cells}
    gpus = call.gpus if call.gpus is not None else 0 if devices == {"cpu"} else None
    cpus = call.cpus or 1 + max(cell.spec.schedule.workers or 0 for cell in grid.cells)
    if call.ray is not None:
        from msbal.ablation.executors.ray import RayExecutor

        return RayExecutor(call.ray, gpus, cpus, call.jobs)
    if call.slurm:
        from msbal.ablation.executors.slurm import SlurmExecutor

        return SlurmExecutor(
            grid.output / "cells" / "slurm", f"msbal-{slug(call.name)}", 1 if gpus is None else int(gpus), cpus,
            call.jobs, {**call.ablation.slurm, **call.sbatch},
        )  # fmt: skip
    return LocalExecutor(call.jobs or 1, gpus=bool(devices & {"auto", "cuda"}))


def _report(call: AblateCall, grid: Grid, findings: list[Finding], console: Console) -> None:
    outcomes = collect(grid.arms, findings)
    images, notes = _bootstrap(call, grid, outcomes)
    costs, uncounted = arm_costs(call.ablation.table, grid)
    report = make_report(call.ablation, grid, outcomes, images, (*notes, *uncounted), call.smoke, costs)
    folder = grid.output / "report"
    report.write(folder)
    _print_report(report, console)
    console.print(
        Text(
            f"report: {os.path.relpath(folder / 'report.html')}, beside it as Markdown, LaTeX, CSV and JSON"
        ),
        soft_wrap=True,
    )


def _bootstrap(
    call: AblateCall, grid: Grid, outcomes: Outcomes
) -> tuple[dict[str, Interval | None] | None, tuple[str, ...]]:
    paired = [arm for arm in grid.arms if grid.baselines[arm] != arm and len(outcomes.cells[arm]) > 1]
    if call.resamples == 0 or not paired:
        return None, ()
    runs = sum(len(cells) for cells in outcomes.cells.values())
    stderr = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(),
        console=stderr, transient=True, disable=not stderr.is_terminal or call.mode == "quiet",
    ) as progress:  # fmt: skip
        task = progress.add_task("bootstrap over seeds and images", total=call.resamples * runs)
        bootstrap = ImageBootstrap(
            call.ablation.metric, call.resamples, cache=grid.output / "cells",
            progress=lambda: progress.advance(task),
        )  # fmt: skip
        images = bootstrap.intervals(outcomes, grid.baselines)
    return images, tuple(bootstrap.notes)


def _print_report(report: Report, console: Console) -> None:
    for name, table in report.tables.items():
        if name != "runs":
            print_whole(console, table.rich())
    for sentence in report.sentences:
        console.print(Text(sentence), soft_wrap=not console.is_terminal)


def _print_plan(call: AblateCall, grid: Grid) -> None:
    """Every run, its state, and the time that the open ones will take."""
    findings = {(f.cell.arm, f.cell.seed): f.condition for f in findings_of(grid)}
    console = Console(highlight=False)
    costs = estimate(grid, lambda line: Console(stderr=True).print(Text(line)))
    rows = []
    for arm in grid.arms:
        cell = next(cell for cell in grid.cells if cell.arm == arm)
        cost = costs[arm]
        rows.append(
            (
                arm,
                *(findings[arm, seed] for seed in grid.seeds),
                cell.spec.balance.strategy,
                f"{cost.iterations:,}",
                f"{cost.step:.3f}",
                duration(cost.seconds),
            )
        )
    header = (
        "arm",
        *(f"seed {seed}" for seed in grid.seeds),
        "strategy",
        "iterations",
        "s/iteration",
        "a run",
    )
    open_cells = [c for c in grid.cells if findings[c.arm, c.seed] != "finished"]
    took = duration(total_seconds(open_cells, costs, call.jobs or 1))
    notes = (
        f"{len(open_cells)} of {len(grid)} runs to do: about {took} with --jobs {call.jobs or 1}, from one measured "
        "step and prediction; runs that share a processor are slower, and a begun one is shorter.",
        f"{_baseline_text(grid)}, metric {call.ablation.metric}, output {_near(grid.output)}",
    )
    title = f"{call.name}: {len(grid.arms)} arms x {len(grid.seeds)} seeds"
    table = Table(title, columns(*header), tuple(rows), notes)
    print_whole(console, table.rich())


def _baseline_text(grid: Grid) -> str:
    """``baseline equal``, or who is compared to whom."""
    if len(grid.groups) == 1:
        return f"baseline {grid.baseline}"
    told = (f"{baseline} for {', '.join(arms[1:]) or 'none'}" for baseline, arms in grid.groups.items())
    return f"baselines {'; '.join(told)}"


def _near(path: Path) -> str:
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)


def _dumped(ablation: AblationSpec) -> str:
    return yaml.safe_dump(ablation.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
