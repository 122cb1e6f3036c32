"""The same grid as an array of SLURM jobs: submitit's stand-in, and SLURM itself where it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")
pytest.importorskip("submitit", reason="submitit is not installed (pip install 'msbal[slurm]')")

from small_ablation import ablate, assert_same_results, finish, finished, starts, wait_for, young

pytestmark = [
    pytest.mark.release,
    pytest.mark.skipif(sys.platform == "win32", reason="kills by POSIX signals"),
]


def test_the_call_is_killed_and_slurm_goes_on(slurm: None, ablation_folder: Path, unbroken: Path) -> None:
    output = ablation_folder / "slurm"
    options = ("--slurm", "--slurm-option", "time=30:00")
    call = ablate(ablation_folder, *options, output="slurm")
    try:
        wait_for(call, lambda: len(finished(output)) >= 1 and bool(young(output)))
        (warned, *_) = sorted(young(output))
        numbers = json.loads((output / "cells" / "slurm" / "jobs.json").read_text())
        # What SLURM sends ahead of a time limit: the run saves itself, and its job is queued again.
        # (To the step: for a whole job of an array, scancel says that it could not, and sends it again and again.)
        step = f"{numbers[warned.replace('/', '--')]}.0"
        subprocess.run(["scancel", "--signal=USR2", step], check=True)
        os.killpg(call.pid, signal.SIGKILL)
        call.wait()
        said = finish(ablate(ablation_folder, *options, output="slurm"), ablation_folder, "slurm")
    finally:
        if call.poll() is None:
            call.kill()
        subprocess.run(["scancel", "--name", "msbal-grid"])
    assert "9 runs are SLURM's job" in said
    assert "runs are with SLURM already, from an earlier call" in said
    found = starts(output)
    assert len(found) == 9 and found.pop(warned) == 2
    assert set(found.values()) == {1}
    assert_same_results(output, unbroken)
