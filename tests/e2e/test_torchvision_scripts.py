"""`balance()` in somebody's own script, in several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")

HERE = Path(__file__).parent


@pytest.mark.skipif(sys.platform == "win32", reason="gloo")
@pytest.mark.parametrize(
    "kind", ["ddp", *(pytest.param(kind, marks=pytest.mark.release) for kind in ("static", "fsdp"))]
)
def test_two_processes(tmp_path: Path, kind: str) -> None:
    path = os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            str(HERE / "torchvision_script.py"), kind, str(tmp_path),
        ],
        timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second, "both decide the same"
    assert first["equal is plain"], "unit weights change no bit"
    assert first["max_loss is not"]
    assert first["resumed is whole"] and first["records"] == first["resumed records"]
    assert [record[0] for record in first["records"]] == [2, 4]
