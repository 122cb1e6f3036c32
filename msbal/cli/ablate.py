"""`msbal ablate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msbal.cli import completion
from msbal.cli.options import PlainOption, QuietOption, mode_of, overrides_of
from msbal.errors import RunError, SpecError, as_typed

if TYPE_CHECKING:
    from rich.console import Console

    from msbal.ablation.cells import Finding
    from msbal.ablation.collect import Outcomes
    from msbal.ablation.executors.executor import Executor
    from msbal.ablation.grid import Comparison, Grid
    from msbal.ablation.runner import Result
    from msbal.ablation.spec import AblationSpec
    from msbal.ablation.statistics.images import SeedsAndImages
    from msbal.ui.monitor import Mode


def command(
    spec: Annotated[
        Path,
        typer.Argument(
            metavar="SPEC", help="An ablation spec, YAML or TOML.", autocompletion=completion.specs
        ),
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            autocompletion=completion.ablation_settings,
            help="Override a key, e.g. seeds=5; base.KEY=VALUE sets a key of every arm's run spec. Repeatable.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            help="Runs at once: by default 1 on this machine, and on others as many as fit.",
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
            help="Run as an array of SLURM jobs. They go on when this command ends, and the same command finds them "
            "again. The machines must share the output folder and the data.",
        ),
    ] = False,
    slurm_option: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm-option",
            metavar="KEY=VALUE",
            help="An option for sbatch, e.g. partition=gpu or time=12:00:00 (by default 24 hours). Repeatable.",
        ),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            "--gpus",
            min=0,
            help="With --ray or --slurm: GPUs per run; several train it together. By default 1, or 0 under "
            "`device: cpu` and in a Ray cluster without GPUs.",
        ),
    ] = None,
    cpus: Annotated[
        int | None,
        typer.Option(
            "--cpus",
            min=1,
            help="With --ray or --slurm: CPU cores per run. By default 1, and one for each process that loads "
            "images.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Repeat runs that were made with another spec.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the grid and how long it will take, from one measured step."),
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; report on the finished runs.")
    ] = False,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="Try the grid on a CPU: shrunk as the spec's `smoke` says, with at most two seeds.",
        ),
    ] = False,
    resamples: Annotated[
        int,
        typer.Option(
            "--resamples", min=0, help="Samples of the bootstrap over seeds and images; 0 leaves it out."
        ),
    ] = 1000,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The folder of all runs.")] = None,
    plain: PlainOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare strategies, or any other settings, over several seeds, and say what may be concluded.

    Finished runs are kept and broken ones resumed: after a stop, start the same command again.
    """
    from rich.console import Console

    from msbal.ablation.cells import findings_of, refuse_changed
    from msbal.ablation.grid import make_grid, remarks
    from msbal.ablation.runner import check_output
    from msbal.ablation.spec import load_ablation
    from msbal.trackers import find_trackers
    from msbal.ui.text import one_line

    if report_only and (dry_run or force):
        other = "--dry-run" if dry_run else "--force"
        raise SpecError("--report-only", f"given together with {other}", "one of them")
    sbatch = _check_place(ray, slurm, slurm_option or [], gpus, cpus)
    ablation = load_ablation(spec, overrides_of(set_, output))
    grid = make_grid(ablation, smoke)
    check_output(grid)
    if not report_only:
        find_trackers(name for cell in grid.cells for name in cell.spec.log.all_trackers)
    console, mode = Console(highlight=False), mode_of(plain, quiet)
    if dry_run:
        _tell(remarks(grid))
        _print_plan(ablation, grid, spec.stem, jobs or 1, smoke)
        return
    if report_only:
        findings = findings_of(grid)
        refuse_changed(findings)
        _report(ablation, grid, findings, console, resamples, smoke, mode)
        return
    executor = make_executor(ablation, grid, spec.stem, jobs, ray, slurm, sbatch, gpus, cpus)
    if mode != "quiet":
        _tell(remarks(grid))
    result = _run(ablation, grid, spec.stem, executor, console, mode, force, max(1, int(gpus or 1)))
    if any(finding.condition == "finished" for finding in result.findings):
        _report(ablation, grid, result.findings, console, resamples, smoke, mode)
    if result.stopped:
        on = "; the SLURM jobs go on" if slurm else ""
        console.print(f"stopped{on}; the same command continues from here", markup=False)
        raise typer.Exit(130)
    if result.failures:
        reason = one_line(result.failures[0].reason).removeprefix("error: ")
        first, others = result.failures[0], len(result.failures) - 1
        more = f" (and {others} more run{'s' * (others > 1)})" if others else ""
        raise RunError(
            f"arm {first.cell.arm}, seed {first.cell.seed}", f"{reason}{more}",
            fix=f"see {as_typed(first.log)}; the same command tries the failed runs again",
        )  # fmt: skip


def _tell(remarks: Sequence[str]) -> None:
    from rich.console import Console

    from msbal.cli.console import note

    for remark in remarks:
        note(Console(stderr=True), remark)


def _check_place(
    ray: str | None, slurm: bool, slurm_option: Sequence[str], gpus: float | None, cpus: int | None
) -> dict[str, str]:
    """Refuse options for other machines that do not go together; return those for sbatch."""
    if ray is not None and slurm:
        raise SpecError("--ray", "given together with --slurm", "one of them")
    for option, value in (("--gpus", gpus), ("--cpus", cpus)):
        if value is not None and ray is None and not slurm:
            raise SpecError(option, "given without --ray or --slurm", "one of them beside it")
    if slurm_option and not slurm:
        raise SpecError("--slurm-option", "given without --slurm", "--slurm beside it")
    if gpus is not None and gpus != int(gpus) and (slurm or gpus > 1):
        raise SpecError("--gpus", f"{gpus:g}", "a whole number, or with --ray a fraction below 1")
    sbatch = {}
    for text in slurm_option:
        key, equals, given = text.partition("=")
        if not equals or not key.strip("- "):
            raise SpecError("--slurm-option", f"`{text}`", "KEY=VALUE, e.g. partition=gpu")
        sbatch[key.strip()] = given
    return sbatch


def make_executor(
    ablation: AblationSpec,
    grid: Grid,
    name: str,
    jobs: int | None = None,
    ray: str | None = None,
    slurm: bool = False,
    sbatch: Mapping[str, str] | None = None,
    gpus: float | None = None,
    cpus: int | None = None,
) -> Executor:
    """Return what works on the runs: this machine, a Ray cluster or SLURM.

    Raises:
        BackendError: where the library for it is not installed.
        RunError: where it cannot be reached.
    """
    devices = {cell.spec.device for cell in grid.cells}
    if gpus is None and devices == {"cpu"}:
        gpus = 0
    cpus = cpus or 1 + max(cell.spec.schedule.workers or 0 for cell in grid.cells)
    if ray is not None:
        from msbal.ablation.executors.ray import RayExecutor

        return RayExecutor(ray, gpus, cpus, jobs)
    if slurm:
        from msbal.ablation.executors.slurm import SlurmExecutor
        from msbal.ablation.grid import slug

        return SlurmExecutor(
            grid.output / "cells" / "slurm", f"msbal-{slug(name)}", 1 if gpus is None else int(gpus), cpus, jobs,
            {**ablation.slurm, **(sbatch or {})},
        )  # fmt: skip
    from msbal.ablation.executors.local import LocalExecutor

    return LocalExecutor(jobs or 1, gpus=bool(devices & {"auto", "cuda"}))


def _run(
    ablation: AblationSpec,
    grid: Grid,
    name: str,
    executor: Executor,
    console: Console,
    mode: Mode,
    force: bool,
    processes: int,
) -> Result:
    import yaml

    from msbal.ablation.cells import findings_of, refuse_changed
    from msbal.ablation.plan import looks_of, question_of, write_plan
    from msbal.ablation.runner import GridRunner
    from msbal.records.atomic import write_text
    from msbal.training.stop import StopRequest
    from msbal.ui.grid import make_grid as make_monitor

    findings = findings_of(grid)
    if not force:  # before anything is written: what is refused changes no plan
        refuse_changed(findings)
    text = yaml.safe_dump(ablation.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_text(grid.output / "ablation.yaml", text)
    finished = sum(finding.condition == "finished" for finding in findings)
    write_plan(grid.output, question_of(ablation, grid), finished)
    monitor, looks = make_monitor(mode, console, name, ablation.metric), looks_of(ablation, grid)

    def decided(look: int) -> tuple[set[str], str]:
        from msbal.ablation.study import decide  # scipy, which only a sequential grid needs before its report

        return decide(ablation, grid, look)

    # Who is told nothing presses Ctrl-C again, which costs the trainings their checkpoints. SLURM's jobs go on.
    with StopRequest(None if executor.stays else monitor.message) as stop:
        stop.doing = "a checkpoint of each running training"
        try:
            return GridRunner(
                grid, monitor, executor, ablation.metric, force, lambda: stop.requested, processes,
                looks=looks, decide=decided if len(looks) > 1 and grid.comparisons else None,
            ).run()  # fmt: skip
        finally:
            executor.close()
            monitor.close()


def _report(
    ablation: AblationSpec,
    grid: Grid,
    findings: list[Finding],
    console: Console,
    resamples: int,
    smoke: bool,
    mode: Mode,
) -> None:
    from msbal.ablation.cells import crashed
    from msbal.ablation.collect import collect
    from msbal.ablation.plan import question_of, read_plan, sentences
    from msbal.ablation.report import make_report
    from msbal.ablation.reporting.costs import arm_costs
    from msbal.ui.printing import print_line
    from msbal.ui.tables import print_text, print_whole

    outcomes = collect(grid.arms, findings)
    images, notes = _bootstrap(ablation, grid, outcomes, resamples, mode)
    costs, uncounted = arm_costs(ablation.table, grid)
    finished = sum(map(len, outcomes.cells.values()))
    planned = () if smoke else sentences(read_plan(grid.output), question_of(ablation, grid), finished)
    report = make_report(
        ablation, grid, outcomes, images, (*notes, *uncounted), smoke, costs, planned, crashed(grid, findings)
    )
    folder = grid.output / "report"
    report.write(folder)
    for line in report.plan:
        print_text(console, line, "dim")
    console.print()
    for name, table in report.tables.items():
        if name != "runs":
            print_whole(console, table)
    print_text(console, report.headline, "bold")
    for sentence in report.sentences:
        print_text(console, sentence, bullet="- ")
    page = as_typed(folder / "report.html")
    print_line(console, f"report: {page}, and beside it Markdown, LaTeX, CSV and JSON")


def _bootstrap(
    ablation: AblationSpec, grid: Grid, outcomes: Outcomes, resamples: int, mode: Mode
) -> tuple[Mapping[Comparison, SeedsAndImages | None] | None, tuple[str, ...]]:
    from itertools import count

    from msbal.ablation.collect import ImageBootstrap
    from msbal.cli.console import progress_bar

    paired = [arm for arm in grid.arms if grid.baselines[arm] != arm and len(outcomes.cells[arm]) > 1]
    if resamples == 0 or not paired:
        return None, ()
    done, total = count(1), resamples * sum(len(cells) for cells in outcomes.cells.values())
    with progress_bar("bootstrap over seeds and images", shown=mode != "quiet") as bar:
        bootstrap = ImageBootstrap(
            ablation.metric, resamples, cache=grid.output / "cells", progress=lambda: bar(next(done), total)
        )
        images = bootstrap.intervals(outcomes, grid.comparisons)
    return images, tuple(bootstrap.notes)


def _print_plan(ablation: AblationSpec, grid: Grid, name: str, jobs: int, smoke: bool) -> None:
    """Print every run, its state, the time that the open ones will take, and what the grid can see."""
    from rich.console import Console
    from rich.text import Text

    from msbal.ablation.cells import findings_of
    from msbal.ablation.estimate import estimate, total_seconds
    from msbal.ablation.foresight import foresight
    from msbal.table import Table, columns
    from msbal.ui.tables import print_whole
    from msbal.ui.text import duration

    states = {(f.cell.arm, f.cell.seed): f.condition for f in findings_of(grid)}
    costs = estimate(grid, lambda line: Console(stderr=True).print(Text(line)))
    strategies = {cell.arm: cell.spec.balance.strategy for cell in grid.cells}
    rows = tuple(
        (
            arm, *(states[arm, seed] for seed in grid.seeds), strategies[arm], f"{costs[arm].iterations:,}",
            f"{costs[arm].step:.3f}", duration(costs[arm].seconds),
        )
        for arm in grid.arms
    )  # fmt: skip
    seeds = (f"seed {seed}" for seed in grid.seeds)
    header = columns("arm", *seeds, "strategy", "iterations", "s/iteration", "a run")
    still_open = [cell for cell in grid.cells if states[cell.arm, cell.seed] != "finished"]
    notes = (
        f"{len(still_open)} of {len(grid)} runs to do: about {duration(total_seconds(still_open, costs, jobs))} with "
        f"--jobs {jobs}, from one measured step and prediction; runs that share a processor take longer, and one "
        f"that has begun is shorter{', and what a look decides is not run further' * (ablation.stop == 'sequential')}.",
        f"{_baseline_text(grid)}, metric {ablation.metric}, output {as_typed(grid.output)}",
    )
    title = f"{name}: {len(grid.arms)} arms x {len(grid.seeds)} seeds"
    console = Console(highlight=False)
    print_whole(console, Table(title, header, rows, notes))
    if not smoke and (table := foresight(ablation, grid)) is not None:
        print_whole(console, table)


def _baseline_text(grid: Grid) -> str:
    """Return ``baseline equal``, or which arms are compared to which baseline."""
    if len(grid.groups) == 1:
        return f"baseline {grid.baseline}"
    groups = (f"{baseline} for {', '.join(arms[1:]) or 'none'}" for baseline, arms in grid.groups.items())
    return f"baselines {'; '.join(groups)}"
