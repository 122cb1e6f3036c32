"""SLURM's executor with submitit's stand-in, and what it reads of SLURM itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msbal.ablation.executors import slurm
from msbal.ablation.executors.slurm import SlurmExecutor, minutes
from msbal.ablation.grid import Grid
from msbal.ablation.runner import GridRunner, Result
from msbal.ablation.work import make_order
from msbal.errors import BackendError, SpecError

Make = Callable[..., Grid]
ARMS = {"first": {"balance.strategy": "equal"}, "second": {}}
posix = pytest.mark.skipif(sys.platform == "win32", reason="SLURM's signals are POSIX's")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90), (90, 90), ("30:00", 30), ("30:01", 31), ("12:00:00", 720), ("1-00", 1440),
        ("1-12:30", 2190), ("2-00:00:30", 2881),
    ],
)  # fmt: skip
def test_time_limits_are_read_as_sbatch_reads_them(text: object, expected: int) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "12h", "1:2:3:4", "-5", "1-2-3", "a-1"])
def test_other_time_limits_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match="H:M:S"):
        minutes(text)


def test_yamls_seconds_are_not_taken_for_minutes(ablation: Callable[..., Any]) -> None:
    import yaml

    with pytest.raises(SpecError, match=r"in quotes.*43200"):
        ablation(arms=ARMS, slurm=yaml.safe_load("{partition: gpu, time: 12:00:00}"))
    assert ablation(arms=ARMS, slurm=yaml.safe_load("{time: '12:00:00'}")).slurm == {"time": "12:00:00"}


def test_without_slurm_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed (pip install 'msbal[slurm]')")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError, match="no `sbatch` here"):
        SlurmExecutor(tmp_path / "cells", "name")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(BackendError, match=r"pip install 'msbal\[slurm\]'"):
        SlurmExecutor(tmp_path / "cells", "name")


@posix
def test_the_queue_is_read_and_what_has_left_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = tmp_path / "listing"
    (tmp_path / "squeue").write_text(f"#!/bin/sh\n/bin/cat {listing}\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    listing.write_text("7_0|RUNNING\n7_1|PENDING\n7_2|COMPLETING\n9|REQUEUED\n")
    queue = slurm._Queue()
    assert [queue.stage(n) for n in ("7_0", "7_1", "7_2", "9", "7_3")] == [
        "running", "queued", "running", "queued", "ended"
    ]  # fmt: skip
    listing.unlink()  # SLURM does not answer: nothing is known to be over
    queue.forget()
    assert queue.stage("7_0") == "running"
    listing.write_text("")
    assert queue.stage("7_0") == "running"  # asked only now and then
    queue.forget()
    assert queue.stage("7_0") == "ended"


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (
            "RuntimeError: old\nRuntimeError: error: it broke\nsrun: error: vm: task 0: Exited\n",
            "error: it broke",
        ),
        ("srun: Force Terminated\n", "its job is gone from SLURM's queue"),
        (None, "its job is gone from SLURM's queue"),
    ],
)
def test_why_a_job_ended_is_in_what_it_printed(
    grid: Make, tmp_path: Path, printed: str | None, reason: str
) -> None:
    made = grid(arms={"first": {}}, seeds=1)
    job = slurm.SlurmJob(make_order(made.output, made.cells[0]), "7_0", tmp_path, None)
    if printed is not None:
        (tmp_path / "7_0_0_log.err").write_text(printed)
    assert job.ended().reason == f"{reason} (SLURM job 7_0; see {tmp_path / '7_0_0_log.err'})"


@pytest.fixture
def stand_in(tmp_path: Path, watcher: Any, pretend: Any) -> Callable[..., tuple[SlurmExecutor, Any]]:
    """An executor, and a function that runs a grid with it."""
    pytest.importorskip("submitit", reason="submitit is not installed (pip install 'msbal[slurm]')")

    def make(grid: Grid, **keys: Any) -> tuple[SlurmExecutor, Callable[[], Result]]:
        executor = SlurmExecutor(grid.output / "cells" / "slurm", "name", cluster="local", **keys)
        return executor, lambda: GridRunner(grid, watcher, executor, program=pretend).run()

    return make


def starts(grid: Grid) -> list[str]:
    return sorted((grid.output / "starts.txt").read_text().splitlines())


@posix
def test_the_same_folder_as_on_this_machine(grid: Make, stand_in: Any, watcher: Any) -> None:
    made = grid(arms=ARMS, seeds=1)
    _, go = stand_in(made)
    result = go()
    assert not result.failures
    assert [finding.condition for finding in result.findings] == ["finished", "finished"]
    assert starts(made) == ["first 0", "second 0"]
    # On a busy machine the run is seen more than once, or only at its end.
    states = watcher.states["first", 0]
    assert states[-1] == "done" and set(states[:-1]) <= {"running"}
    cells = {path.name for path in (made.output / "cells").iterdir() if path.is_file()}
    assert cells == {f"{arm}--seed-0.{kind}" for arm in ARMS for kind in ("yaml", "log", "lock")}


@posix
def test_a_failure_says_why_and_where(grid: Make, stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = grid(arms=ARMS, seeds=1)
    monkeypatch.setenv("PRETEND_FAIL", "first")
    _, go = stand_in(made)
    (failure,) = go().failures
    assert failure.cell.arm == "first"
    assert failure.reason.startswith("error: it went wrong (SLURM job ")
    numbers = json.loads((made.output / "cells" / "slurm" / "jobs.json").read_text())
    assert set(numbers) == {"first--seed-0", "second--seed-0"}


@posix
def test_before_its_time_is_up_a_job_checkpoints_and_is_queued_again(
    grid: Make, stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = grid(arms={"first": {}}, seeds=1)
    monkeypatch.setenv("PRETEND_HANG_ONCE", "first")
    executor, go = stand_in(made)
    submitted: list[Any] = []
    monkeypatch.setattr(
        executor, "_submitted", lambda orders, real=executor._submitted: submitted.extend(real(orders)) or submitted
    )  # fmt: skip
    hanging = made.cells[0].spec.output / "hanging"
    results: list[Result] = []
    running = threading.Thread(target=lambda: results.append(go()))
    running.start()
    until = time.monotonic() + 300
    while not (hanging.exists() and hanging.read_text()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
    trained = int(hanging.read_text())
    # SLURM sends it to all processes of a job; the training must not die of it.
    os.kill(trained, signal.SIGUSR2)
    time.sleep(0.5)
    assert hanging.exists()
    # The controller passes it on to submitit's process, as SLURM's --signal does.
    task = children(submitted[0]._process.pid)[0]
    os.kill(task, signal.SIGUSR2)
    running.join(300)
    assert [finding.condition for finding in results[0].findings] == ["finished"]
    assert starts(made) == ["first 0", "first 0 --resume"]


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in listed.stdout.split()]
