"""`msbal ablate` with real training: what it concludes, and a grid that is killed against one that is not."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")

from small_ablation import (
    ablate,
    assert_same_results,
    begun,
    finish,
    finished,
    starts,
    wait_for,
    write_ablation,
    young,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills by POSIX signals")


def test_a_small_grid_from_the_spec_to_the_table(tmp_path: Path) -> None:
    write_ablation(tmp_path, arms={"equal": {}, "twin": {"balance.strategy": "equal"}}, seeds=2)
    shorter = [f"base.schedule.{key}" for key in ("iterations=24", "checkpoint_every=null")]
    options = [part for setting in shorter for part in ("--set", setting)]
    said = finish(ablate(tmp_path, "--jobs", "2", *options), tmp_path)
    output = tmp_path / "out"
    assert starts(output) == {f"{arm}/seed-{seed}": 1 for arm in ("equal", "twin") for seed in range(2)}
    assert finished(output) == set(starts(output))
    arms = json.loads((output / "report" / "report.json").read_text())["arms"]
    assert arms["twin"]["summary"]["values"] == arms["equal"]["summary"]["values"]
    assert arms["twin"]["conclusion"]["verdict"] == "the same"
    assert "twin and equal have exactly the same AP50 on each of" in said
    for arm in arms:
        seeds = [(output / "runs" / arm / f"seed-{seed}" / "losses.csv").read_bytes() for seed in range(2)]
        assert seeds[0] != seeds[1]


@pytest.mark.release
def test_what_is_concluded(ablation_folder: Path, unbroken: Path) -> None:
    said = (ablation_folder / "unbroken.txt").read_text()
    report = json.loads((unbroken / "report" / "report.json").read_text())
    arms = report["arms"]
    assert min(arms["equal"]["summary"]["values"].values()) > 0.1, "it has not learned"
    assert arms["equal"]["summary"]["sd"] > 0
    # Identical settings give identical runs, and those are never called a difference.
    assert arms["twin"]["summary"]["values"] == arms["equal"]["summary"]["values"]
    assert arms["twin"]["conclusion"]["verdict"] == "the same"
    assert "twin and equal have exactly the same AP50 on each of" in said
    assert arms["stuck"]["conclusion"]["verdict"].startswith("worse")
    assert "stuck is worse than equal" in said
    assert arms["stuck"]["conclusion"]["images"]["high"] < 0
    assert starts(unbroken) == {f"{arm}/seed-{seed}": 1 for arm in sorted(arms) for seed in range(3)}


@pytest.mark.release
def test_killed_twice_and_run_again(ablation_folder: Path, unbroken: Path) -> None:
    folder, output = ablation_folder, ablation_folder / "killed"
    # First all of it, in the middle of a run.
    call = ablate(folder, "--jobs", "2", output="killed")
    wait_for(call, lambda: len(finished(output)) >= 2 and bool(begun(output)))
    os.killpg(call.pid, signal.SIGKILL)
    call.wait()
    done, broken = finished(output), begun(output)
    before = starts(output)
    # Then only the command: the trainings that it has started live on.
    call = ablate(folder, "--jobs", "2", output="killed")
    # One of them young, as one that has its metrics already is not waited for.
    wait_for(call, lambda: len(finished(output)) >= 5 and bool(young(output) - broken))
    os.kill(call.pid, signal.SIGKILL)
    call.wait()
    orphans = call.pid
    os.killpg(orphans, signal.SIGSTOP)  # so that they cannot be over before the next call looks at them
    try:
        between = starts(output)
        call = ablate(folder, "--jobs", "2", output="killed")
        said = "is run by another process: waiting for it"
        wait_for(call, lambda: said in (folder / "killed.txt").read_text())
    finally:
        os.killpg(orphans, signal.SIGCONT)
    finish(call, folder, "killed")
    after = starts(output)
    assert len(after) == 9
    # What was finished has not been started again, what was broken has been resumed, once.
    assert {run: after[run] for run in done} == dict.fromkeys(done, 1)
    assert {run: after[run] for run in broken} == dict.fromkeys(broken, 2)
    # The orphans were waited for, not doubled.
    assert {run: after[run] for run in between} == between
    assert sum(after.values()) <= 9 + len(set(before) - done)
    assert_same_results(output, unbroken)
