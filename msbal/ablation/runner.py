"""Run every cell of a grid to its end, wherever an executor works on it, and show the progress.

Finished runs are kept, begun ones are resumed, and runs that another `msbal ablate` works on are waited for. All state
is in the run folders, so a kill at any moment loses no more than the iterations since the last checkpoints.

Runs go seed by seed. With several looks they go up to the next look, whose results say which arms go on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msbal.ablation.cells import (
    Finding,
    failure_file,
    findings_of,
    iteration_of,
    log_file,
    look,
    metric_in,
    metric_so_far,
    refuse_changed,
    seen_in,
)
from msbal.ablation.executors.executor import Executor, Job, Stage
from msbal.ablation.grid import Cell, Grid
from msbal.ablation.work import make_order
from msbal.errors import SpecError
from msbal.records import RunDirectory
from msbal.records.atomic import write_text
from msbal.ui.grid import GridMonitor

TICK_SECONDS = 0.2

Decide = Callable[[int], tuple[Collection[str], str]]
"""After so many seeds: the arms that are still needed, and what has been decided, in a sentence."""


@dataclass(frozen=True)
class Failure:
    """A run that failed.

    Attributes:
        reason: the last line that it printed.
        log: the file with everything that it printed.
    """

    cell: Cell
    reason: str
    log: Path


@dataclass
class Result:
    """How the grid ended.

    Attributes:
        findings: the state of every cell, in the grid's order.
        stopped: whether it was asked to stop early.
    """

    findings: list[Finding]
    failures: list[Failure] = field(default_factory=list)
    stopped: bool = False


@dataclass
class _Open:
    """A cell that is not finished; times are those of `time.monotonic`."""

    cell: Cell
    job: Job
    stage: Stage = "queued"
    begun: float = 0.0
    before: int = 0
    looked: float = 0.0


class GridRunner:
    """Run a grid.

    Args:
        executor: where the runs are worked on; the caller closes it.
        metric: the one shown while runs go on.
        force: run changed cells anew instead of refusing them.
        stop_requested: polled several times a second; once true, running trainings write a checkpoint and end.
        processes: how many train one run.
        program: the command that trains a cell; see `msbal.ablation.work.Order`.
        looks: after how many seeds `decide` is called; by default never.
        decide: called once each needed run up to a look is finished or has failed.
    """

    def __init__(
        self,
        grid: Grid,
        monitor: GridMonitor,
        executor: Executor,
        metric: str = "AP",
        force: bool = False,
        stop_requested: Callable[[], bool] = lambda: False,
        processes: int = 1,
        program: tuple[str, ...] | None = None,
        looks: Sequence[int] = (),
        decide: Decide | None = None,
    ) -> None:
        self.grid, self.monitor, self.executor, self.metric = grid, monitor, executor, metric
        self.force, self.processes, self.program = force, processes, program
        self._looks, self._decide = (tuple(looks) if decide else ()) or (len(grid.seeds),), decide
        self._stop_requested = stop_requested
        self._total: dict[str, int] = {}
        self._failures: list[Failure] = []

    def run(self) -> Result:
        """Run every cell to its end.

        Raises:
            SpecError: before anything starts, if the spec of a run has changed and `force` is off.
        """
        findings = findings_of(self.grid)
        if not self.force:
            refuse_changed(findings)
        self.monitor.planned(self.grid.arms, self.grid.seeds)
        pending = []
        for finding in findings:
            if finding.condition == "finished":
                self._learn_length(finding)
                self._kept(finding)
            else:
                pending.append(finding.cell)
        # Seed by seed, so that the runs of a grid that is stopped early can be paired.
        pending.sort(key=lambda cell: self.grid.seeds.index(cell.seed))
        stopped = False
        for look_at in self._looks:
            first = self.grid.seeds[:look_at]
            stopped = self._run([cell for cell in pending if cell.seed in first])
            pending = [cell for cell in pending if cell.seed not in first]
            if stopped or self._decide is None:
                break
            needed, said = self._decide(look_at)
            self.monitor.message(said)
            for cell in pending:
                if cell.arm not in needed:
                    self.monitor.updated(cell.arm, cell.seed, "skipped")
            pending = [cell for cell in pending if cell.arm in needed]
            stopped = bool(pending) and self._stop_requested()
            if stopped or not needed:
                break
        return Result(findings_of(self.grid), self._failures, stopped)

    def _run(self, cells: Sequence[Cell]) -> bool:
        """Run these to their ends; return whether that was stopped."""
        if not cells:
            return False
        orders = [
            make_order(self.grid.output, cell, self.force, self.processes, self.program) for cell in cells
        ]
        jobs = self.executor.submit(orders)
        going = [_Open(cell, job) for cell, job in zip(cells, jobs, strict=True)]
        stopped = False
        while going:
            if not stopped and self._stop_requested():
                stopped = True
                self.executor.stop()
                if self.executor.stays:
                    break
            going = [item for item in going if not self._over(item, stopped)]
            for line in self.executor.messages():
                self.monitor.message(line)
            if going:
                time.sleep(TICK_SECONDS)
        return stopped

    # -- one cell --------------------------------------------------------------------------------

    def _over(self, item: _Open, stopped: bool) -> bool:
        stage, cell = item.job.stage(), item.cell
        if stage == "ended":
            self._ended(item, stopped)
            return True
        if stage != item.stage:
            if stage == "waiting":
                self.monitor.message(
                    f"{cell.arm}, seed {cell.seed} is run by another process: waiting for it"
                )
            if stage == "queued":  # again: its machine is gone
                self.monitor.updated(cell.arm, cell.seed, "queued")
            item.begun, item.before, item.looked = time.monotonic(), iteration_of(cell), 0.0
            item.stage = stage
        if stage in ("running", "waiting") and time.monotonic() >= item.looked + self.executor.poll_seconds:
            item.looked = time.monotonic()
            self._show_progress(item)
        return False

    def _ended(self, item: _Open, stopped: bool) -> None:
        cell, ended, finding = item.cell, item.job.ended(), look(item.cell)
        if finding.condition == "finished":
            assert finding.metrics is not None
            self._learn_length(finding)
            if ended.state == "kept":
                self._kept(finding)
                return
            self.monitor.updated(cell.arm, cell.seed, "done", ap=metric_in(finding.metrics, self.metric))
            return
        if stopped and ended.state != "failed":
            self.monitor.updated(cell.arm, cell.seed, "queued")
            return
        reason = ended.reason or "it was stopped from outside; the next call resumes it"
        write_text(failure_file(self.grid.output, cell), f"{reason}\n")
        self._failures.append(Failure(cell, reason, log_file(self.grid.output, cell)))
        self.monitor.updated(cell.arm, cell.seed, "failed")
        self.monitor.message(f"{cell.arm}, seed {cell.seed} failed: {reason}")

    # -- progress --------------------------------------------------------------------------------

    def _kept(self, finding: Finding) -> None:
        assert finding.metrics is not None
        ap = metric_in(finding.metrics, self.metric)
        self.monitor.updated(finding.cell.arm, finding.cell.seed, "kept", ap=ap)

    def _show_progress(self, item: _Open) -> None:
        cell = item.cell
        logged, length, doing = seen_in(log_file(self.grid.output, cell))
        at, total = max(logged, iteration_of(cell)), self._length(cell) or length
        eta = None
        if total and at > item.before:
            eta = (time.monotonic() - item.begun) * (total - at) / (at - item.before)
        self.monitor.updated(
            cell.arm,
            cell.seed,
            "running",
            ap=metric_so_far(cell, self.metric),
            eta=eta,
            progress=min(1.0, at / total) if total else None,
            doing=doing,
        )

    def _length(self, cell: Cell) -> int | None:
        """Return the iterations of a run, from its spec or, if the framework decides, from another run of its arm."""
        return cell.spec.schedule.iterations or self._total.get(cell.arm)

    def _learn_length(self, finding: Finding) -> None:
        iteration = (finding.metrics or {}).get("iteration")
        if isinstance(iteration, int):
            self._total[finding.cell.arm] = iteration


def check_output(grid: Grid) -> None:
    """Refuse an output folder that cannot be used.

    Raises:
        SpecError: if it is a file, the folder of a run, or not writable.
    """
    if grid.output.exists() and not grid.output.is_dir():
        raise SpecError("output", f"{grid.output} is a file", "a folder", "choose another `output`")
    if RunDirectory(grid.output).exists():
        raise SpecError(
            "output", f"{grid.output} holds a run", "a folder of its own", "choose another `output`"
        )
    above = next(folder for folder in (grid.output, *grid.output.parents) if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise SpecError(
            "output", f"{above} cannot be written", "a writable folder", "choose another `output`"
        )
