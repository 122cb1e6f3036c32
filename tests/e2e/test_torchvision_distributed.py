"""Two processes (gloo): they end alike, and one that fails ends the run with its own message."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")

import torch
from msbal_process import write_spec

from msbal.records import read_intervals

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gloo and POSIX signals")

# `msbal train --nproc 2` launches `python -m msbal`; this launches the same command line with a fault in it.
PROGRAM = """
import sys
from msbal.training.launch import launch
sys.exit(launch(2, [sys.executable, {program!r}, *sys.argv[1:]]))
"""


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PYTHONPATH": path}


STRATEGY = "balance.strategy=max_loss"


def start_two(folder: Path, fault: str, *settings: str, resume: bool = False) -> subprocess.Popen[str]:
    if not (folder / "spec.yaml").exists():
        write_spec(folder, iterations=9)
    code = PROGRAM.format(program=str(HERE / "two_processes.py"))
    changes = [part for setting in settings for part in ("--set", setting)] + ["--resume"] * resume
    return subprocess.Popen(
        [sys.executable, "-c", code, fault, "train", "spec.yaml", "-o", "run", "--plain", *changes],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def two(folder: Path, fault: str, *settings: str, resume: bool = False) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; a hang fails here."""
    process = start_two(folder, fault, *settings, resume=resume)
    try:
        out, err = process.communicate(timeout=280)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise
    return process.returncode, out, err


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken run."""
    folder = tmp_path_factory.mktemp("whole")
    code, out, err = two(folder, "nothing", STRATEGY)
    assert code == 0, out + err
    return folder


def test_both_ranks_end_with_the_same_weights_and_decisions(whole: Path) -> None:
    assert [record.iteration for record in read_intervals(whole / "run" / "intervals.jsonl")] == [3, 6, 9]
    assert (whole / "run" / "losses.csv").read_text().count("\n") == 10
    first, second = (torch.load(whole / f"rank{rank}.pth", weights_only=True) for rank in (0, 1))
    # Batch norm's running statistics are each process's own, as in any DistributedDataParallel.
    for key, value in first["model"].items():
        if "running_" not in key:
            assert torch.equal(value, second["model"][key]), key
    weights = [key for key in first["balancers"] if key.endswith("weights")]
    assert weights
    for key in weights:
        assert torch.equal(first["balancers"][key], second["balancers"][key]), key


@pytest.mark.parametrize(
    ("fault", "code", "said"), [("raise", 1, "ValueError: no more of this"), ("die", 9, "ended with code 9")]
)
def test_a_failing_rank_ends_the_run_is_named_and_the_run_resumes(
    tmp_path: Path, whole: Path, fault: str, code: int, said: str
) -> None:
    found, out, err = two(tmp_path, fault, STRATEGY)
    assert found == code, out + err
    assert said in err, err
    assert "Traceback" not in err
    if fault == "die":
        # From the checkpoint of iteration 4, in the middle of an interval of which each rank saw its part.
        found, out, err = two(tmp_path, "nothing", STRATEGY, resume=True)
        assert found == 0, out + err
        assert "iterations 5 to 9" in out
        for name in ("intervals.jsonl", "losses.csv"):
            assert (tmp_path / "run" / name).read_bytes() == (whole / "run" / name).read_bytes(), name
        mine, other = (torch.load(f / "rank0.pth", weights_only=True)["model"] for f in (tmp_path, whole))
        for key, value in mine.items():
            assert torch.equal(value, other[key]), key


def test_a_nan_on_one_rank_is_named_with_level_term_iteration_and_rank(tmp_path: Path) -> None:
    code, out, err = two(tmp_path, "nan")
    assert code == 1, out + err
    assert "iteration 5, rank 1: the loss P5/cls is nan" in err, err


def test_or_its_step_is_left_out_on_both(tmp_path: Path) -> None:
    code, out, err = two(tmp_path, "nan", "balance.on_nonfinite=skip")
    assert code == 0, out + err
    first, second = (torch.load(tmp_path / f"rank{rank}.pth", weights_only=True)["model"] for rank in (0, 1))
    for key, value in first.items():
        if "running_" not in key:
            assert torch.equal(value, second[key]), key
            assert bool(torch.isfinite(value).all()), key
    record = read_intervals(tmp_path / "run" / "intervals.jsonl")[1]
    assert [(n.level, n.term, n.iteration, n.rank) for n in record.nonfinite] == [("P5", "cls", 5, 1)]


def test_one_interrupt_saves_and_the_run_continues(tmp_path: Path) -> None:
    process = start_two(tmp_path, "nothing", "schedule.iterations=2000", "schedule.checkpoint_every=null")
    until = time.monotonic() + 200
    while not (tmp_path / "run" / "intervals.jsonl").exists() and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 130, out + err
    assert "--resume" in out and list((tmp_path / "run" / "checkpoints").glob("iteration_*.pth")), out + err


@pytest.mark.slow
def test_the_command_launches_them(tmp_path: Path) -> None:
    """`msbal train --nproc 2` itself, with torchvision's own ResNet-18."""
    spec = write_spec(tmp_path, iterations=4)
    command = [sys.executable, "-m", "msbal", "train", str(spec), "-o", "run", "--plain", "--nproc", "2"]
    done = subprocess.run(
        [*command, "--set", "balance.interval=2"], cwd=tmp_path, env=environment(), capture_output=True,
        text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(read_intervals(tmp_path / "run" / "intervals.jsonl")) == 2
    # A mistake found by the processes is one line and its own exit code, as from one process.
    again = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=280, check=False
    )
    assert again.returncode == 2 and again.stderr.count("error: ") == 1, again.stderr
    assert "holds a run already" in again.stderr
