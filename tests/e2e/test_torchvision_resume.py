"""A run killed at any moment and resumed ends in the same bytes as one that was never killed.

``MSBAL_KILLS=20`` kills that many runs, each several times; by default a few.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")

import torch
from msbal_process import finish, start, write_spec

from msbal_torchvision import checkpoints

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
    finish(start(folder, "train", "spec.yaml", "-o", "unbroken", "--plain"), folder)
    return folder / "unbroken"


def train(folder: Path, run: Path, resume: bool | None = None):  # type: ignore[no-untyped-def]
    """Start the run, or go on with it where it has been started."""
    again = (run / "spec.yaml").exists() if resume is None else resume
    return start(folder, "train", "spec.yaml", "-o", run.name, "--plain", *(["--resume"] if again else []))


def assert_same(run: Path, unbroken: Path) -> None:
    for name in ("intervals.jsonl", "losses.csv"):
        assert (run / name).read_bytes() == (unbroken / name).read_bytes(), name
    mine, other = (checkpoints.load(checkpoints.path_of(r / "checkpoints", LAST)) for r in (run, unbroken))
    for part in ("model", "balancers"):
        assert mine[part].keys() == other[part].keys()
        for key, value in mine[part].items():
            if isinstance(value, torch.Tensor):
                assert bits(value) == bits(other[part][key]), key
    left = [path.name for path in run.rglob("*.tmp")]
    assert not left, f"temporary files of killed writes stay behind: {left}"


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def kill_when(process, due: Callable[[], bool], seconds: float = 240) -> bool:  # type: ignore[no-untyped-def]
    """SIGKILL as soon as `due`; False where the process ended before."""
    until = time.monotonic() + seconds
    while process.exitcode is None and time.monotonic() < until:
        if due():
            process.kill()
            process.join()
            return True
        time.sleep(0.0005)
    assert process.exitcode == 0, f"exit code {process.exitcode}"
    return False


def tear(path: Path, half: str) -> None:
    """What a kill in the middle of an append leaves: too short a moment to hit from outside."""
    if path.exists():
        with path.open("a", encoding="utf-8") as file:
            file.write(half)


def moments(draw: random.Random, run: Path) -> list[tuple[str, Callable[[], bool]]]:
    def checkpoint_write() -> bool:
        return any((run / "checkpoints").glob(".iteration_*.tmp")) if run.exists() else False

    def record_write() -> Callable[[], bool]:
        at = size(run / "intervals.jsonl")
        return lambda: size(run / "intervals.jsonl") > at

    def losses_write() -> Callable[[], bool]:
        at = size(run / "losses.csv")
        return lambda: size(run / "losses.csv") > at

    def any_time() -> Callable[[], bool]:
        at = time.monotonic() + draw.uniform(0.0, 3.0)
        return lambda: time.monotonic() > at

    return [
        ("checkpoint", checkpoint_write), ("record", record_write()), ("losses", losses_write()),
        ("any time", any_time()),
    ]  # fmt: skip


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_killed_run_resumes_to_the_same_bytes(folder: Path, unbroken: Path, round_: int) -> None:
    draw = random.Random(round_)
    run = folder / f"killed{round_}"
    killed = []
    for turn in range(3):
        choices = moments(draw, run)
        # Any time may be after the end: not the first, so that each run is killed at least once.
        name, due = choices[(round_ + turn) % len(choices) if turn else round_ % 3]
        if kill_when(train(folder, run), due):
            killed.append(name)
            tear(run / "intervals.jsonl", draw.choice(["", '{"interval": 9, "iterat', "\0\0\0"]))
            tear(run / "losses.csv", draw.choice(["", "2", "29,0.125,0."]))
    finish(train(folder, run), folder)
    assert killed
    assert_same(run, unbroken)


@pytest.mark.parametrize("damage", ["cut", "empty", "pickle"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_it_used(
    folder: Path, unbroken: Path, damage: str
) -> None:
    run = folder / f"damaged-{damage}"
    (run / "checkpoints").mkdir(parents=True)
    for name in ("spec.yaml", "intervals.jsonl", "losses.csv"):
        (run / name).write_bytes((unbroken / name).read_bytes())
    spec = (run / "spec.yaml").read_text().replace(str(unbroken), str(run))
    (run / "spec.yaml").write_text(spec)
    for path in checkpoints.find(unbroken / "checkpoints"):
        (run / "checkpoints" / path.name).write_bytes(path.read_bytes())
    newest, before = checkpoints.find(run / "checkpoints")
    trap = folder / f"executed-{damage}"
    content = newest.read_bytes()
    newest.write_bytes(
        {"cut": content[: len(content) // 2], "empty": b"", "pickle": _pickle_bomb(trap)}[damage]
    )
    output = finish(train(folder, run, resume=True), folder)
    assert newest.name in output and "passed over" in output, output
    assert f"iterations {int(before.stem[-8:]) + 1} to {LAST}" in output, output
    assert not trap.exists(), "the pickle was executed"
    assert_same(run, unbroken)


def _pickle_bomb(trap: Path) -> bytes:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(trap),))

    return pickle.dumps({"iteration": LAST, "model": Bomb()})


def test_ctrl_c_says_how_to_continue_and_continues(folder: Path, unbroken: Path) -> None:
    run = folder / "interrupted"
    process = train(folder, run)
    until = time.monotonic() + 240
    while not size(run / "intervals.jsonl") and process.exitcode is None and time.monotonic() < until:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGINT)
    output = finish(process, folder, code=130)
    assert "msbal train interrupted/spec.yaml --resume" in output, output
    assert "Traceback" not in output
    finish(start(folder, "train", "interrupted/spec.yaml", "--resume", "--plain"), folder)
    assert_same(run, unbroken)


@pytest.mark.slow
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
