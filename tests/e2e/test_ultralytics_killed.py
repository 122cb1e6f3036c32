"""A user's script, killed at random moments and started again until its training is complete."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("ultralytics", reason="ultralytics is not installed")
pytest.importorskip("msbal_ultralytics", reason="the ultralytics backend is not installed")

from tiny_yolo import assert_one_unbroken_run, make_data

SCRIPT = Path(__file__).with_name("ultralytics_script.py")


def _start(data: Path, folder: Path) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(str(path) for path in (SCRIPT.parent.parent, SCRIPT.parent))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(data), str(folder)], env=environment,
        stdout=subprocess.DEVNULL, stderr=(folder / "stderr").open("wb"),
    )  # fmt: skip


def _is_whole(last: Path) -> bool:
    """ultralytics writes last.pt in place: a kill in that moment loses its own resume."""
    try:
        torch.load(last, weights_only=False)
    except Exception:
        return not last.exists()
    return True


@pytest.mark.release
@pytest.mark.parametrize("seed", range(2))
def test_killed_runs_go_on_exactly(tmp_path: Path, seed: int) -> None:
    data, draws = make_data(tmp_path / "data"), random.Random(seed)
    folder, last = tmp_path / "runs", tmp_path / "runs" / "run" / "weights" / "last.pt"
    folder.mkdir()
    kills = 0
    while True:
        saved = tmp_path / "saved"
        shutil.rmtree(saved, ignore_errors=True)
        shutil.copytree(folder, saved)
        process, losses = _start(data, folder), folder / "run" / "results.csv"
        before = losses.stat().st_mtime_ns if losses.exists() else 0
        if kills < 4:
            while process.poll() is None and (losses.stat().st_mtime_ns if losses.exists() else 0) == before:
                time.sleep(0.001)
            time.sleep(draws.random() * 0.4)
            process.kill()
        if process.wait() == 0:
            break
        assert process.returncode == -9, (folder / "stderr").read_text()
        kills += 1
        if not _is_whole(last):
            shutil.rmtree(folder)
            shutil.copytree(saved, folder)
    assert kills
    assert_one_unbroken_run(folder / "run", 3, 12)
