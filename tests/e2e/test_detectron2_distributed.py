"""Two gloo processes, each with its own images: the same decisions, the same weights, faults named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2", reason="detectron2 is not installed")
pytest.importorskip("msbal_detectron2", reason="the detectron2 backend is not installed")

from detectron2_specs import write_spec
from slow_gradients import assert_averaged
from states import assert_same_state

from msbal.records import read_intervals

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
# `msbal train --nproc 2` launches `python -m msbal`; this launches the same command line with a fault in it.
PROGRAM = """
import sys
from msbal.training.launch import launch
sys.exit(launch(2, [sys.executable, {program!r}, *sys.argv[1:]]))
"""


@pytest.mark.release
@pytest.mark.parametrize("strategy", ["max_loss", "uw"])
def test_a_script_of_ones_own_under_detectron2s_launch(tmp_path: Path, strategy: str) -> None:
    """Both processes decide and end alike, and again where they go on from a checkpoint within an interval."""
    command = [sys.executable, str(HERE / "detectron2_two_processes.py"), str(tmp_path), strategy]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in (0, 1))
    assert_same_decisions(first["whole"], second["whole"])
    for mine in (first, second):
        assert_same_state(mine["whole"], mine["resumed"])
    assert_own_normalizers(first["whole"])
    records = read_intervals(tmp_path / "0" / "intervals.jsonl")
    assert [record.iteration for record in records] == [2, 4]
    assert max(records[-1].weights) > 1
    assert not (tmp_path / "1" / "intervals.jsonl").exists(), "only the first process writes"


def assert_same_decisions(first: dict[str, Any], second: dict[str, Any]) -> None:
    """And the same weights of the model."""
    assert_same_state(first["model"], second["model"])
    balancers = [{key: end[key] for key in end if key.startswith("balancer:")} for end in (first, second)]
    assert balancers[0]
    assert_same_state(*balancers, but=("rows",))  # the unfinished interval's own


def assert_own_normalizers(end: dict[str, Any]) -> None:
    """Of each process's positives, which RetinaNet divides by."""
    assert len({state["all"]["loss_normalizer"] for state in end["loss_state"]}) == 2


def two(folder: Path, fault: str, *settings: str, resume: bool = False) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; a hang fails here."""
    if not (folder / "spec.yaml").exists():
        write_spec(
            folder,
            schedule={"iterations": 9, "checkpoint_every": 4},
            balance={"interval": 3, "measure": 4},
            evaluate={"enabled": False},
        )
    changes = [part for setting in settings for part in ("--set", setting)] + ["--resume"] * resume
    code = PROGRAM.format(program=str(HERE / "detectron2_faults.py"))
    done = subprocess.run(
        [sys.executable, "-c", code, fault, "train", "spec.yaml", "-o", "run", "--plain", *changes],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def ends(folder: Path) -> tuple[dict[str, dict[str, torch.Tensor]], ...]:
    return tuple(torch.load(folder / f"rank{rank}.pth", weights_only=True) for rank in (0, 1))


def test_a_run_that_loses_a_process_resumes_to_the_same_end(tmp_path: Path) -> None:
    """From the checkpoint of iteration 4, in the middle of an interval of which each rank saw its part."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir(), broken.mkdir()
    code, out, err = two(whole, "nothing", "balance.strategy=uw")
    assert code == 0, out + err
    first, second = ends(whole)
    assert_same_decisions(first, second)
    assert_averaged(whole)

    code, out, err = two(broken, "die", "balance.strategy=uw")
    assert code and "process 1 ended with code 9" in err and "Traceback" not in err, out + err
    code, out, err = two(broken, "nothing", "balance.strategy=uw", resume=True)
    assert code == 0 and "iterations 5 to 9" in out, out + err
    for name in ("intervals.jsonl", "losses.csv"):
        assert (broken / "run" / name).read_bytes() == (whole / "run" / name).read_bytes(), name
    for mine, other in zip(ends(broken), (first, second), strict=True):
        assert_same_state(mine, other)
    assert_own_normalizers(first)


@pytest.mark.release
def test_a_nan_on_one_rank_is_named_with_level_term_iteration_and_rank(tmp_path: Path) -> None:
    code, out, err = two(tmp_path, "nan")
    assert code == 1, out + err
    assert err.count("error: iteration 5, rank 1: the loss P5/cls is nan; expected finite numbers") == 1, err
    assert err.count("error: ") == 1 and "Traceback" not in err, err


@pytest.mark.release
def test_or_its_step_is_left_out_on_both(tmp_path: Path) -> None:
    code, out, err = two(tmp_path, "nan", "balance.on_nonfinite=skip")
    assert code == 0, out + err
    assert "step left out: iteration 5, rank 1: the loss P5/cls is nan" in out, out
    first, second = ends(tmp_path)
    for key, value in first["model"].items():
        assert torch.equal(value, second["model"][key]), key
        assert bool(torch.isfinite(value).all()), key
    record = read_intervals(tmp_path / "run" / "intervals.jsonl")[1]
    assert [(n.level, n.term, n.iteration, n.rank) for n in record.nonfinite] == [("P5", "cls", 5, 1)]
