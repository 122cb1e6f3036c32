"""Runs the cells of a grid on this machine, each as a process of its own.

What is finished is kept, what is begun is resumed, what another call of `msbal ablate` runs is waited for.
Nothing is remembered outside the run folders: a kill at any moment loses no more than the iterations since
the last checkpoints.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from msbal.ablation.cells import (
    Finding,
    clear_remains,
    figure_in,
    figure_so_far,
    findings_of,
    iteration_of,
    lock_file,
    log_file,
    look,
    refuse_changed,
    spec_file,
)
from msbal.ablation.grid import Cell, Grid
from msbal.ablation.locks import CellLock
from msbal.errors import SpecError
from msbal.records import RunDirectory
from msbal.spec import save_spec
from msbal.ui.grid import GridMonitor

POLL_SECONDS = 1.0
GRACE_SECONDS = 120.0  # for a training process to write its checkpoint after it was asked to stop


@dataclass(frozen=True)
class Failure:
    """A run that ended badly.

    Attributes:
        reason: the last line that it printed.
        log: everything that it printed.
    """

    cell: Cell
    reason: str
    log: Path


@dataclass
class Result:
    """How the grid ended.

    Attributes:
        findings: the state of every cell, in the grid's order.
        stopped: whether it was asked to stop before its end.
    """

    findings: list[Finding]
    failures: list[Failure] = field(default_factory=list)
    stopped: bool = False


class LocalRunner:
    """Runs a grid; `jobs` cells at once.

    Args:
        figure: shown while runs go on.
        force: run changed cells anew instead of refusing.
        stop_requested: asked about once a second; the runs that are on then write a checkpoint and end.
        command: what trains a cell, given the spec's file and extra options; for tests.
    """

    def __init__(
        self,
        grid: Grid,
        monitor: GridMonitor,
        jobs: int = 1,
        figure: str = "AP",
        force: bool = False,
        stop_requested: Callable[[], bool] = lambda: False,
        command: Callable[[Path, Sequence[str]], list[str]] | None = None,
    ) -> None:
        if jobs < 1:
            raise ValueError(f"Parameter `jobs` should be at least 1. Found {jobs}.")
        self.grid, self.monitor, self.jobs, self.figure, self.force = grid, monitor, jobs, figure, force
        self._stop_requested, self._command = stop_requested, command
        self._devices: SimpleQueue[str] = SimpleQueue()
        self._total: dict[str, int] = {}
        self._failures: list[Failure] = []
        self._guard = threading.Lock()
        self._halt = threading.Event()

    def run(self) -> Result:
        """Bring every cell to its end.

        Raises:
            SpecError: before anything is started, where a run's spec has changed and `force` is off.
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
        # Seed by seed: what is finished when the grid is stopped early can be paired.
        pending.sort(key=lambda cell: self.grid.seeds.index(cell.seed))
        self._fill_devices(pending)
        pool = ThreadPoolExecutor(self.jobs)
        try:
            futures = [pool.submit(self._bring_to_end, cell) for cell in pending]
            while not all(future.done() for future in futures):
                if self._stop_requested():
                    self._halt.set()
                time.sleep(min(0.2, POLL_SECONDS))
        except BaseException:
            self._halt.set()
            raise
        finally:
            pool.shutdown(wait=True)
        for future in futures:
            future.result()
        return Result(findings_of(self.grid), list(self._failures), self._halt.is_set())

    # -- one cell --------------------------------------------------------------------------------

    def _bring_to_end(self, cell: Cell) -> None:
        lock = CellLock(lock_file(self.grid.output, cell))
        waited = False
        while not lock.acquire():
            if self._halt.wait(POLL_SECONDS):
                return
            if not waited:
                self.monitor.message(
                    f"{cell.arm}, seed {cell.seed} is run by another process: waiting for it"
                )
                waited = True
            self._show_progress(cell, time.monotonic(), 0)
        try:
            if self._halt.is_set():
                return
            # Only now, under the lock: another call may have finished it since.
            finding = look(cell)
            if finding.condition == "finished":
                self._kept(finding)
                return
            self._train(cell, finding, lock)
        finally:
            lock.release()

    def _train(self, cell: Cell, finding: Finding, lock: CellLock) -> None:
        clear_remains(cell)
        file = spec_file(self.grid.output, cell)
        save_spec(cell.spec, file)
        options = {"new": [], "begun": ["--resume"], "changed": ["--force"], "finished": []}
        before = iteration_of(cell) if finding.condition == "begun" else 0
        self.monitor.updated(cell.arm, cell.seed, "running", progress=self._progress(cell, before))
        device = self._device()
        log = log_file(self.grid.output, cell)
        begun = time.monotonic()
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    (self._command or train_command)(file, options[finding.condition]),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._environment(device),
                    pass_fds=_inherited(lock),
                )
                self._watch(process, cell, begun, before)
        finally:
            if device is not None:
                self._devices.put(device)
        self._ended(cell, process.returncode, log)

    def _watch(self, process: subprocess.Popen[bytes], cell: Cell, begun: float, before: int) -> None:
        try:
            while True:
                try:
                    process.wait(POLL_SECONDS)
                    return
                except subprocess.TimeoutExpired:
                    if self._halt.is_set():
                        process.terminate()
                        process.wait(GRACE_SECONDS)
                        return
                    self._show_progress(cell, begun, before)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _ended(self, cell: Cell, code: int, log: Path) -> None:
        finding = look(cell)
        if finding.condition == "finished":
            assert finding.figures is not None
            self._learn_length(finding)
            self.monitor.updated(cell.arm, cell.seed, "done", ap=figure_in(finding.figures, self.figure))
            return
        if self._halt.is_set():
            self.monitor.updated(cell.arm, cell.seed, "queued")
            return
        reason = _last_line(log) or f"exit code {code}"
        with self._guard:
            self._failures.append(Failure(cell, reason, log))
        self.monitor.updated(cell.arm, cell.seed, "failed")
        self.monitor.message(f"{cell.arm}, seed {cell.seed} failed: {reason}")

    # -- progress --------------------------------------------------------------------------------

    def _kept(self, finding: Finding) -> None:
        assert finding.figures is not None
        ap = figure_in(finding.figures, self.figure)
        self.monitor.updated(finding.cell.arm, finding.cell.seed, "kept", ap=ap)

    def _show_progress(self, cell: Cell, begun: float, before: int) -> None:
        at = iteration_of(cell)
        progress = self._progress(cell, at)
        eta = None
        total = self._length(cell)
        if total and at > before:
            eta = (time.monotonic() - begun) * (total - at) / (at - before)
        ap = figure_so_far(cell, self.figure)
        self.monitor.updated(cell.arm, cell.seed, "running", ap=ap, eta=eta, progress=progress)

    def _progress(self, cell: Cell, iteration: int) -> float | None:
        total = self._length(cell)
        return min(1.0, iteration / total) if total else None

    def _length(self, cell: Cell) -> int | None:
        """Iterations of a run, from its spec, or from another run of its arm where the framework decides."""
        return cell.spec.schedule.iterations or self._total.get(cell.arm)

    def _learn_length(self, finding: Finding) -> None:
        iteration = (finding.figures or {}).get("iteration")
        if isinstance(iteration, int):
            self._total[finding.cell.arm] = iteration

    # -- devices ---------------------------------------------------------------------------------

    def _fill_devices(self, pending: Sequence[Cell]) -> None:
        """With several jobs and GPUs, each job a GPU of its own, in turn."""
        if self.jobs < 2 or all(cell.spec.device not in ("auto", "cuda") for cell in pending):
            return
        import torch

        count = torch.cuda.device_count()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = visible.split(",") if visible else [str(i) for i in range(count)]
        if count > 1:
            for job in range(self.jobs):
                self._devices.put(names[job % count])

    def _device(self) -> str | None:
        try:
            return self._devices.get_nowait()
        except Empty:
            return None

    def _environment(self, device: str | None) -> dict[str, str]:
        environment = dict(os.environ)
        # Jobs that each take all cores stand in one another's way.
        if self.jobs > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.jobs)))
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        return environment


def train_command(spec: Path, options: Sequence[str]) -> list[str]:
    """The command line that trains a cell."""
    return [sys.executable, "-m", "msbal", "train", str(spec), "--plain", *options]


def check_output(grid: Grid) -> None:
    """Refuse an output folder that cannot be used.

    Raises:
        SpecError: where it is a file, or a run's own folder.
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


def _inherited(lock: CellLock) -> tuple[int, ...]:
    """The open files that the training process gets: the lock's, where processes can inherit one."""
    return () if sys.platform == "win32" or lock.descriptor is None else (lock.descriptor,)


def _last_line(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
