"""What `msbal ablate` does once its arguments are read; imports torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from msbal.ablation.cells import Finding, findings_of, refuse_changed
from msbal.ablation.collect import ImageBootstrap, Interval, Outcomes, collect
from msbal.ablation.estimate import estimate, total_seconds
from msbal.ablation.grid import Grid, make_grid
from msbal.ablation.report import Report, make_report
from msbal.ablation.runner import LocalRunner, Result, check_output
from msbal.ablation.spec import AblationSpec
from msbal.errors import RunError
from msbal.evaluation.tables import Table
from msbal.records.atomic import write_text
from msbal.training.stop import StopRequest
from msbal.ui.grid import make_grid as make_grid_monitor
from msbal.ui.monitor import Mode
from msbal.ui.text import duration, one_line


@dataclass(frozen=True)
class AblateCall:
    """The arguments of `msbal ablate`."""

    ablation: AblationSpec
    name: str
    jobs: int = 1
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
        console.print("stopped; the same command goes on from here", markup=False)
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
    monitor = make_grid_monitor(call.mode, console, call.name)
    with StopRequest() as stop:
        runner = LocalRunner(
            grid, monitor, call.jobs, call.ablation.figure, call.force, lambda: stop.requested
        )
        try:
            return runner.run()
        finally:
            monitor.close()


def _report(call: AblateCall, grid: Grid, findings: list[Finding], console: Console) -> None:
    outcomes = collect(grid.arms, findings)
    images, notes = _bootstrap(call, grid, outcomes)
    report = make_report(call.ablation, grid, outcomes, images, notes, call.smoke)
    folder = grid.output / "report"
    report.write(folder)
    _print_report(report, console)
    console.print(Text(f"report: {os.path.relpath(folder)}"), soft_wrap=True)


def _bootstrap(
    call: AblateCall, grid: Grid, outcomes: Outcomes
) -> tuple[dict[str, Interval | None] | None, tuple[str, ...]]:
    paired = [arm for arm in grid.arms if arm != grid.baseline and len(outcomes.cells[arm]) > 1]
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
            call.ablation.figure, call.resamples, progress=lambda: progress.advance(task)
        )
        images = bootstrap.intervals(outcomes, grid.baseline)
    return images, tuple(bootstrap.notes)


def _print_report(report: Report, console: Console) -> None:
    for name, table in report.tables.items():
        if name != "runs":
            _print_table(table, console)
    for sentence in report.sentences:
        console.print(Text(sentence), soft_wrap=True)


def _print_table(table: Table, console: Console) -> None:
    drawn = table.rich()
    least, needed = Measurement.get(console, console.options.update(max_width=10_000), drawn)
    # A pipe has no width to fit into; on a terminal broken lines are better than cut figures.
    console.width = max(console.width, least if console.is_terminal else needed)
    console.print(drawn)


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
    took = duration(total_seconds(open_cells, costs, call.jobs))
    notes = (
        f"{len(open_cells)} of {len(grid)} runs to do: about {took} with --jobs {call.jobs}, from one measured "
        "step and prediction; runs that share a processor are slower, and a begun one is shorter.",
        f"baseline {grid.baseline}, figure {call.ablation.figure}, output {_near(grid.output)}",
    )
    _print_table(
        Table(f"{call.name}: {len(grid.arms)} arms x {len(grid.seeds)} seeds", header, tuple(rows), notes),
        console,
    )


def _near(path: Path) -> str:
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)


def _dumped(ablation: AblationSpec) -> str:
    return yaml.safe_dump(ablation.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
