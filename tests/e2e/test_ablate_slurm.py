"""The same grid as an array of SLURM jobs: submitit's stand-in, and SLURM itself where it runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")
pytest.importorskip("submitit", reason="submitit is not installed (pip install 'msbal[slurm]')")

from small_ablation import ablate, assert_same_results, finish, finished, starts, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="kills by POSIX signals"),
]


@pytest.fixture(scope="session")  # before the grid that it is compared to
def slurm() -> None:
    """Skips where no SLURM answers."""
    if shutil.which("sbatch") is None:
        pytest.skip("no SLURM here: there is no `sbatch`")
    try:
        subprocess.run(["sinfo"], capture_output=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("no SLURM here: its controller does not answer")


def test_the_call_is_killed_and_slurm_goes_on(slurm: None, ablation_folder: Path, unbroken: Path) -> None:
    output = ablation_folder / "slurm"
    options = ("--slurm", "--slurm-option", "time=30:00")
    call = ablate(ablation_folder, *options, output="slurm")
    try:
        wait_for(call, lambda: len(finished(output)) >= 1)
        os.killpg(call.pid, signal.SIGKILL)
        call.wait()
        said = finish(ablate(ablation_folder, *options, output="slurm"), ablation_folder, "slurm")
    finally:
        subprocess.run(["scancel", "--name", "msbal-grid"])
    assert "9 runs are SLURM's job" in said
    assert "runs are with SLURM already, from an earlier call" in said
    assert set(starts(output).values()) == {1} and len(starts(output)) == 9
    assert_same_results(output, unbroken)
