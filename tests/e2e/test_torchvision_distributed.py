"""Several processes (gloo): they hold the same at all times, and one that fails ends the run with its own message."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")

import torch
from msbal_process import write_spec
from slow_gradients import assert_averaged
from states import assert_same_state

from msbal.records import read_intervals

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gloo and POSIX signals")

# `msbal train --nproc 2` launches `python -m msbal`; this launches the same command line with a fault in it.
PROGRAM = """
import sys
from msbal.training.launch import launch
sys.exit(launch({count}, [sys.executable, {program!r}, *sys.argv[1:]]))
"""


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PYTHONPATH": path}


STRATEGY = "balance.strategy=max_loss"


def arguments(folder: Path, fault: str, *settings: str, resume: bool = False) -> list[str]:
    """Those of `two_processes`, for a run of nine iterations."""
    if not (folder / "spec.yaml").exists():
        write_spec(folder, iterations=9)
    settings = ("balance.measure=4", *settings)
    changes = [part for setting in settings for part in ("--set", setting)] + ["--resume"] * resume
    return [fault, "train", "spec.yaml", "-o", "run", "--plain", *changes]


def start(folder: Path, command: list[str], **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command], cwd=folder, env={**environment(), **more}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; a hang fails here."""
    try:
        out, err = process.communicate(timeout=280)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise
    return process.returncode, out, err


def start_two(folder: Path, fault: str, *settings: str, resume: bool = False, count: int = 2, **more: str):  # type: ignore[no-untyped-def]
    code = PROGRAM.format(program=str(HERE / "two_processes.py"), count=count)
    return start(folder, ["-c", code, *arguments(folder, fault, *settings, resume=resume)], **more)


def two(
    folder: Path, fault: str, *settings: str, resume: bool = False, count: int = 2, **more: str
) -> tuple[int, str, str]:
    return end(start_two(folder, fault, *settings, resume=resume, count=count, **more))


def assert_held_the_same(folder: Path, count: int, iterations: int = 9, distinct: int | None = None) -> None:
    """After every iteration, on every rank: the model's weights, bit for bit, and the balancers'."""
    held = [(folder / f"held{rank}.txt").read_text() for rank in range(count)]
    assert held[0].count("\n") == iterations
    steps = len({line.split()[1] for line in held[0].splitlines()})
    assert steps == (iterations if distinct is None else distinct), "every iteration is a step"
    assert all(other == held[0] for other in held[1:])


def assert_same_records(folder: Path, whole: Path) -> None:
    for name in ("intervals.jsonl", "losses.csv"):
        assert (folder / "run" / name).read_bytes() == (whole / "run" / name).read_bytes(), name


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
    assert_held_the_same(whole, 2)
    assert_averaged(whole)
    first, second = (torch.load(whole / f"rank{rank}.pth", weights_only=True) for rank in (0, 1))
    # Batch norm's running statistics are each process's own, as in any DistributedDataParallel.
    for key, value in first["model"].items():
        if "running_" not in key:
            assert torch.equal(value, second["model"][key]), key
    assert_same_state(first["balancers"], second["balancers"], but=("rows",))  # the unfinished interval's own


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raise", "ValueError: no more of this"),
        pytest.param("die", "process 1 ended with code 9", marks=pytest.mark.release),
        ("kill", "process 1 was killed by signal 9"),
    ],
)
def test_a_failing_rank_ends_the_run_is_named_and_the_run_resumes(
    tmp_path: Path, whole: Path, fault: str, said: str
) -> None:
    found, out, err = two(tmp_path, fault, STRATEGY)
    assert found == 1, out + err
    assert said in err, err
    assert "Traceback" not in err
    if fault == "kill":
        # With another number of processes it would be another run.
        command = ["-m", "msbal", "train", "run/spec.yaml", "--resume", "--plain"]
        found, out, err = end(start(tmp_path, command))
        assert found == 2 and "1 process, but the run in" in err and "--nproc 2" in err, err
        # From the checkpoint of iteration 4, in the middle of an interval of which each rank saw its part.
        found, out, err = two(tmp_path, "nothing", STRATEGY, resume=True)
        assert found == 0, out + err
        assert "iterations 5 to 9" in out
        assert_same_records(tmp_path, whole)
        mine, other = (torch.load(f / "rank0.pth", weights_only=True)["model"] for f in (tmp_path, whole))
        for key, value in mine.items():
            assert torch.equal(value, other[key]), key


@pytest.mark.release
def test_a_rank_that_hangs_is_waited_for_only_so_long(tmp_path: Path) -> None:
    started = time.monotonic()
    found, out, err = two(tmp_path, "hang", STRATEGY, MSBAL_TIMEOUT="5")
    assert found == 1, out + err
    assert "rank 0: lost its connection to the other processes" in err, err
    assert "process 1 did not end when the others did, and was killed" in err, err
    assert time.monotonic() - started < 270, "not the ten minutes that are the default"


@pytest.mark.release
@pytest.mark.parametrize("name", ["retinanet", "fcos", "fasterrcnn", "ssd"])
def test_a_rank_that_never_sees_a_box(tmp_path: Path, name: str) -> None:
    """All of its parameters still take part in the exchange of gradients."""
    scope = ["balance.scope=[rpn,roi]"] if name == "fasterrcnn" else []
    code, out, err = two(tmp_path, "empty", STRATEGY, f"model.name={name}", "schedule.iterations=6", *scope)
    assert code == 0, out + err
    assert_held_the_same(tmp_path, 2, iterations=6)
    for record in read_intervals(tmp_path / "run" / "intervals.jsonl"):
        assert all(math.isfinite(x) for x in (*record.loss, *record.weights))


@pytest.mark.release
def test_three_processes(tmp_path: Path) -> None:
    code, out, err = two(tmp_path, "nothing", STRATEGY, count=3)
    assert code == 0, out + err
    assert_held_the_same(tmp_path, 3)
    code, out, err = two(tmp_path, "nothing", STRATEGY, "schedule.iterations=12", count=3, resume=True)
    assert code == 0 and "iterations 10 to 12" in out, out + err


TORCHRUN = ["-m", "torch.distributed.run"]


def test_torchrun_gives_the_same_run(tmp_path: Path, whole: Path) -> None:
    process = start(
        tmp_path,
        [*TORCHRUN, "--standalone", "--nproc-per-node=2", str(HERE / "two_processes.py"),
         *arguments(tmp_path, "nothing", STRATEGY)],
    )  # fmt: skip
    code, out, err = end(process)
    assert code == 0, out + err
    assert_same_records(tmp_path, whole)
    assert (tmp_path / "held1.txt").read_bytes() == (whole / "held1.txt").read_bytes()


@pytest.mark.release
@pytest.mark.parametrize("rendezvous", ["static", "c10d"])
@pytest.mark.parametrize("fault", ["nothing", "kill"])
def test_two_nodes_on_the_loopback(tmp_path: Path, whole: Path, rendezvous: str, fault: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meet = {
        "static": ["--master-addr", "127.0.0.1", "--master-port", str(port)],
        "c10d": ["--rdzv-backend", "c10d", "--rdzv-id", "42", "--rdzv-endpoint", f"127.0.0.1:{port}"],
    }[rendezvous]
    given = arguments(tmp_path, fault, STRATEGY)
    nodes = [
        start(
            tmp_path,
            [*TORCHRUN, "--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(node), *meet,
             str(HERE / "two_processes.py"), *given],
        )
        for node in (0, 1)
    ]  # fmt: skip
    ends = [end(node) for node in nodes]
    if fault == "kill":
        assert [code for code, _, _ in ends] == [1, 1], ends
        assert any("lost its connection to the other processes" in err for _, _, err in ends), ends
        return
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert_same_records(tmp_path, whole)


def test_a_nan_on_one_rank_is_named_with_level_term_iteration_and_rank(tmp_path: Path) -> None:
    code, out, err = two(tmp_path, "nan")
    assert code == 1, out + err
    assert "iteration 5, rank 1: the loss P5/cls is nan" in err, err
    assert err.count("error: ") == 1, "all ranks say the same: " + err


@pytest.mark.release
def test_or_its_step_is_left_out_on_both(tmp_path: Path) -> None:
    code, out, err = two(tmp_path, "nan", "balance.on_nonfinite=skip")
    assert code == 0, out + err
    # Seen by rank 1, shown by rank 0, which knows no more than that its gradient was not finite.
    assert "step left out: iteration 5, rank 1: the loss P5/cls is nan" in out, out
    assert "gradient of a finite loss" not in out, out
    assert_held_the_same(tmp_path, 2, distinct=8)
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
