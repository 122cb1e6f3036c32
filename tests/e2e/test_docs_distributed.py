"""The commands of docs/distributed.md, as they stand there, on this machine's numbers of nodes and processes."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")

from msbal_process import write_spec

from msbal.records import read_intervals

PAGE = (Path(__file__).parents[2] / "docs" / "distributed.md").read_text(encoding="utf-8")
pytestmark = [
    pytest.mark.release,
    pytest.mark.skipif(sys.platform == "win32", reason="torchrun and SLURM, as on a cluster"),
]


def block(start: str) -> str:
    """The one code block that holds `start`."""
    (found,) = [text for text in re.findall(r"```(?:bash)?\n(.*?)```", PAGE, re.DOTALL) if start in text]
    return found


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def start(folder: Path, command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", "-c", command], cwd=folder, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait(due: Callable[[], bool], seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while not due():
        assert time.monotonic() < until
        time.sleep(0.2)


def test_one_machine(tmp_path: Path) -> None:
    write_spec(tmp_path, 6)
    command = block("--nproc 4").replace("--nproc 4", "--nproc 2")
    process = start(tmp_path, command)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    assert len(read_intervals(tmp_path / "runs" / "spec" / "intervals.jsonl")) == 2


@pytest.mark.parametrize("which", ["--rdzv-backend", "--master-addr"])
def test_several_machines(tmp_path: Path, which: str) -> None:
    """Two on the loopback."""
    write_spec(tmp_path, 6)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = next(text for text in block("--rdzv-backend c10d --rdzv-id 42").split("\n\n") if which in text)
    for there, here in (("--nproc-per-node 8", "--nproc-per-node 1"), ("HOST", "127.0.0.1"), ("29500", port)):
        assert there in command
        command = command.replace(there, here)
    nodes = [start(tmp_path, command.replace("--node-rank 0", f"--node-rank {node}")) for node in (0, 1)]
    outputs = [node.communicate(timeout=280)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert len(read_intervals(tmp_path / "runs" / "spec" / "intervals.jsonl")) == 2


def test_slurm_stops_a_job_and_the_same_script_continues_it(slurm: None, tmp_path: Path) -> None:
    write_spec(tmp_path, 60)
    script = block("#SBATCH --nodes=2")
    for there, here in (
        ("--nodes=2", "--nodes=1"), ("#SBATCH --gpus-per-node=8\n", ""), ("cpus-per-task=64", "cpus-per-task=1"),
        ("--nproc-per-node 8", "--nproc-per-node 2"),
    ):  # fmt: skip
        assert there in script
        script = script.replace(there, here)
    (tmp_path / "job.sh").write_text(script)
    run = tmp_path / "runs" / "balanced"

    def submit() -> str:
        done = subprocess.run(
            ["sbatch", "--parsable", "--output=log.txt", "--open-mode=append", "job.sh"], cwd=tmp_path,
            env=environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def gone(job: str) -> bool:
        listed = subprocess.run(["squeue", "-h", "-j", job], capture_output=True, text=True)
        return not listed.stdout.strip()

    job = submit()
    try:
        wait(lambda: (run / "intervals.jsonl").exists() or gone(job))
        subprocess.run(["scancel", "--signal=TERM", job], check=True)
        wait(lambda: gone(job))
        output = (tmp_path / "log.txt").read_text()
        assert "msbal train runs/balanced/spec.yaml --resume" in output, output
        job = submit()
        wait(lambda: gone(job))
    finally:
        subprocess.run(["scancel", job])
    output = (tmp_path / "log.txt").read_text()
    assert re.search(r"iterations (?!1 )\d+ to 60", output), output
    records = read_intervals(run / "intervals.jsonl")
    assert [record.interval for record in records] == list(range(1, 21))
