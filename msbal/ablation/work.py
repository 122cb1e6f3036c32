"""Run one cell of a grid to its end, on whatever machine this is called.

A finished run is kept, a begun one resumed, and one that another process works on is waited for. All state is in the
run's folder, so every machine that works on it must see the same files.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msbal.ablation.cells import clear_remains, failure_file, lock_file, log_file, look, spec_file
from msbal.ablation.grid import Cell, spec_hash
from msbal.errors import MsbalError
from msbal.records.atomic import write_text
from msbal.records.lock import CellLock
from msbal.spec import load_spec, save_spec

PROGRAM = (sys.executable, "-m", "msbal", "train")
POLL_SECONDS = 1.0
GRACE_SECONDS = 120.0  # for a training to write its checkpoint once it is asked to stop
SHARED_SECONDS = 10.0  # for a network file system to show a file that another machine has just written
STOPPED = 130  # the exit code of a training that was asked to stop

Event = Literal["waiting", "running"]
OPTIONS: Mapping[str, tuple[str, ...]] = {"new": (), "begun": ("--resume",), "changed": ("--force",)}


@dataclass(frozen=True)
class Order:
    """One run to be worked on. It holds plain values only, since it travels to other machines.

    Attributes:
        spec: the file of the run's spec.
        log: the file that gets everything the training prints.
        lock: the file that is locked while the run is worked on.
        failed: the file that says why the run has failed.
        force: run a changed one anew.
        processes: how many train it.
        program: the command that trains, before the spec's file and options; by default this Python's msbal.
    """

    arm: str
    seed: int
    spec: Path
    log: Path
    lock: Path
    failed: Path
    force: bool = False
    processes: int = 1
    program: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """The cell's name, unique in the grid."""
        return self.spec.stem

    def command(self, options: Sequence[str]) -> list[str]:
        """Return the command line that trains."""
        several = ("--nproc", str(self.processes)) if self.processes > 1 else ()
        return [*(self.program or PROGRAM), str(self.spec), "--plain", *several, *options]


@dataclass(frozen=True)
class Ended:
    """How work on a run ended.

    Attributes:
        state: ``kept`` if it was finished before; ``stopped`` if it was asked to stop.
        reason: why it failed, one line.
        code: the training's exit code; None if it was not started.
        place: the machine.
    """

    state: Literal["finished", "kept", "stopped", "failed"]
    reason: str = ""
    code: int | None = None
    place: str = ""


def make_order(
    grid_output: Path,
    cell: Cell,
    force: bool = False,
    processes: int = 1,
    program: tuple[str, ...] | None = None,
) -> Order:
    """Write a cell's spec to its file and return the order to run it."""
    file = spec_file(grid_output, cell)
    save_spec(cell.spec, file)
    return Order(
        cell.arm, cell.seed, file, log_file(grid_output, cell), lock_file(grid_output, cell),
        failure_file(grid_output, cell), force, processes, program,
    )  # fmt: skip


def bring_to_end(
    order: Order,
    halted: Callable[[], bool] = lambda: False,
    told: Callable[[Event], None] = lambda event: None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Work on a run until it is finished, has failed, or is asked to stop.

    Args:
        halted: polled; once true, a running training writes a checkpoint and ends.
        told: called with ``waiting`` while another process works on the run, and with ``running`` once it trains here.
        environment: variables of the training process, on top of this one's.
    """
    place = socket.gethostname()
    if not _appears(order.spec):
        return Ended(
            "failed", f"{place} does not see {order.spec}: `output` should be a folder that all machines share",
            None, place,
        )  # fmt: skip
    spec = load_spec(order.spec)
    cell = Cell(order.arm, order.seed, spec, spec_hash(spec))
    lock = CellLock(order.lock)
    waited = False
    while not lock.acquire():
        if not waited:
            told("waiting")
            waited = True
        time.sleep(POLL_SECONDS)
        if halted():
            return Ended("stopped", place=place)
    try:
        if halted():
            return Ended("stopped", place=place)
        # Only under the lock: another call may have finished it meanwhile.
        finding = look(cell)
        if finding.condition == "finished":
            order.failed.unlink(missing_ok=True)
            return Ended("kept", place=place)
        if finding.condition == "changed" and not order.force:
            return Ended("failed", f"its run was made with another spec: {finding.difference}", None, place)
        clear_remains(cell)
        told("running")
        code = _train(order, OPTIONS[finding.condition], lock, halted, environment or {})
        if look(cell).condition == "finished":
            order.failed.unlink(missing_ok=True)
            return Ended("finished", "", code, place)
        if code == STOPPED or halted():
            return Ended("stopped", "", code, place)
        reason = last_line(order.log) or f"exit code {code}"
        # Here too, since the caller of a SLURM job may be gone.
        write_text(order.failed, f"{reason}\n")
        return Ended("failed", reason, code, place)
    except (MsbalError, OSError) as error:
        return Ended("failed", str(error), None, place)
    finally:
        lock.release()


def _train(
    order: Order,
    options: Sequence[str],
    lock: CellLock,
    halted: Callable[[], bool],
    environment: Mapping[str, str],
) -> int:
    with order.log.open("ab") as output:
        process = subprocess.Popen(
            order.command(options),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            pass_fds=_inherited(lock),
        )
    try:
        while True:
            try:
                return process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if halted():
                    return end(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def end(process: subprocess.Popen[bytes]) -> int:
    """Ask a training to stop and wait for its end; kill it if that takes too long."""
    process.terminate()
    try:
        return process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _appears(file: Path) -> bool:
    until = time.monotonic() + SHARED_SECONDS
    while not file.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def _inherited(lock: CellLock) -> tuple[int, ...]:
    """The file descriptors that the training inherits: the lock's, where the platform allows it."""
    return () if sys.platform == "win32" or lock.descriptor is None else (lock.descriptor,)


def last_line(path: Path) -> str:
    """Return the last line of a file that is not blank."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
