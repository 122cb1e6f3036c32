"""A run killed at any moment and resumed ends in the same bytes as one that was never killed.

``MSBAL_KILLS=20`` kills that many runs, each three times; by default one. ``-rP`` shows what each was killed at.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")

from killed_runs import (
    DAMAGE,
    assert_same_records,
    copied,
    go_on_without_the_newest,
    interrupt_and_go_on,
    kill_three_times,
    size,
    train,
    train_unbroken,
)
from msbal_process import finish, write_spec
from states import assert_same_state

from msbal.training import checkpoints
from msbal_torchvision.training import CHECKPOINTS

ROUNDS = int(os.environ.get("MSBAL_KILLS", "1"))
LAST = 30

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills by POSIX signals")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("resume")
    write_spec(made, LAST)
    return made


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> Path:
    return train_unbroken(folder)


def assert_same(run: Path, unbroken: Path) -> None:
    assert_same_records(run, unbroken)
    mine, other = (CHECKPOINTS.load(checkpoints.path_of(r / "checkpoints", LAST)) for r in (run, unbroken))
    for part in ("model", "balancers"):
        assert_same_state(mine[part], other[part])


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_killed_run_resumes_to_the_same_bytes(folder: Path, unbroken: Path, round_: int) -> None:
    run = folder / f"killed{round_}"
    kill_three_times(lambda: train(folder, run), run, unbroken, round_)
    finish(train(folder, run), folder)
    assert_same(run, unbroken)


@pytest.mark.parametrize("damage", ["cut", "empty", "pickle"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_it_used(
    folder: Path, unbroken: Path, damage: str
) -> None:
    run = copied(folder, unbroken, f"damaged-{damage}")
    trap = folder / f"executed-{damage}"
    damages = {**DAMAGE, "pickle": lambda content: _pickle_bomb(trap)}
    go_on_without_the_newest(folder, run, damages[damage], LAST)
    assert not trap.exists(), "the pickle was executed"
    assert_same(run, unbroken)


@pytest.mark.parametrize("name", ["intervals.jsonl", "losses.csv"])
@pytest.mark.parametrize("damage", ["cut", "garbled"])
def test_records_cut_short_are_said_and_the_checkpoint_before_them_used(
    folder: Path, unbroken: Path, name: str, damage: str
) -> None:
    run = copied(folder, unbroken, f"{damage}-{name}")
    newest, before = checkpoints.find(run / "checkpoints")
    lines = (run / name).read_text().splitlines(keepends=True)
    if damage == "cut":
        lines[-1] = lines[-1][: len(lines[-1]) // 2]
    else:
        lines[-1] = "\0\0" + lines[-1][2:]
    (run / name).write_text("".join(lines))
    output = finish(train(folder, run, resume=True), folder)
    assert f"passed over the checkpoint {newest.name}: the records of the run are whole only up to" in output
    assert f"iterations {int(before.stem[-8:]) + 1} to {LAST}" in output, output
    assert_same(run, unbroken)


def test_without_records_it_goes_on_from_what_was_learned(folder: Path, unbroken: Path) -> None:
    run = copied(folder, unbroken, "without-records")
    kept = (run / "intervals.jsonl").read_text().splitlines(keepends=True)
    (run / "intervals.jsonl").write_text("".join(kept[:2]))
    output = finish(train(folder, run, resume=True), folder)
    assert f"continuing from iteration_{LAST:08d}.pth without the records in between" in output, output
    assert (run / "intervals.jsonl").read_text() == "".join(kept[:2])


def _pickle_bomb(trap: Path) -> bytes:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(trap),))

    return pickle.dumps({"iteration": LAST, "model": Bomb()})


def test_ctrl_c_says_how_to_continue_and_continues(folder: Path, unbroken: Path) -> None:
    assert_same(interrupt_and_go_on(folder), unbroken)


def test_the_command_itself_is_interrupted_too(folder: Path) -> None:
    """Through `python -m msbal`, with torchvision's own ResNet-18."""
    arguments = [
        sys.executable, "-m", "msbal", "train", "spec.yaml", "-o", "command", "--plain",
        "--set", "schedule.iterations=300", "--set", "schedule.checkpoint_every=null",
    ]  # fmt: skip
    with subprocess.Popen(
        arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        until = time.monotonic() + 240
        while not size(folder / "command" / "intervals.jsonl") and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 130, output
    assert "msbal train command/spec.yaml --resume" in output, output


def test_a_second_ctrl_c_stops_at_once_and_says_what_is_kept(folder: Path) -> None:
    """In the middle of an evaluation, which the first one would wait for."""
    arguments = [
        sys.executable, "-m", "msbal", "train", "spec.yaml", "-o", "twice", "--plain",
        "--set", "evaluate.enabled=true", "--set", "evaluate.every=3", "--set", "data.val_images=200",
    ]  # fmt: skip
    with subprocess.Popen(
        arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said = [next(line for line in process.stdout if line.startswith("interval"))]
        while not said[-1].startswith("end"):
            process.send_signal(signal.SIGINT)
            said.append(next(process.stdout))
    assert process.returncode == 130
    assert said[1].startswith("note     stopping after this ") and len(said) == 3, said
    assert "interrupted: no checkpoint and the records up to iteration 3 are kept in twice" in said[2], said
    assert said[2].endswith("msbal train twice/spec.yaml --resume\n"), said
