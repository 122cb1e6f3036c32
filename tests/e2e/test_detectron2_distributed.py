"""Two gloo processes, each with its own images: the same decisions, the same weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from msbal.records import read_intervals

pytest.importorskip("detectron2", reason="the detectron2 backend's framework is not installed")


def test_two_processes_end_alike(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        str(Path(__file__).with_name("detectron2_two_processes.py")), str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in (0, 1))
    assert first["balancers"].keys() == second["balancers"].keys()
    for key, value in first["balancers"].items():
        if "buffer" not in key and "positives" not in key:  # the unfinished interval's own losses
            assert torch.equal(value, second["balancers"][key]), key
    for key, value in first["parameters"].items():
        assert torch.equal(value, second["parameters"][key]), key
    records = read_intervals(tmp_path / "0" / "intervals.jsonl")
    assert [record.iteration for record in records] == [2, 4]
    assert max(records[-1].weights) > 1
    assert not (tmp_path / "1" / "intervals.jsonl").exists(), "only the first process writes"
