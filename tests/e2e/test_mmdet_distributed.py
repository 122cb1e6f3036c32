"""Two mmdet processes (gloo) end alike, through msbal's command and through mmengine's own launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")
pytest.importorskip("msbal_mmdet", reason="the mmdet backend is not installed")

import torch
from mmdet_specs import write_spec
from slow_gradients import assert_averaged
from states import assert_same_state

from msbal.records import read_intervals

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gloo and POSIX signals")

# `msbal train --nproc 2` launches `python -m msbal`; this launches the same command line with a fault in it.
PROGRAM = """
import sys
from msbal.training.launch import launch
sys.exit(launch(2, [sys.executable, {program!r}, *sys.argv[1:]]))
"""


def run(folder: Path, *command: str, seconds: float = 280) -> tuple[int, str]:
    """Exit code, and all that was printed."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=seconds, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def two(folder: Path, fault: str, *settings: str, resume: bool = False) -> tuple[int, str]:
    """`msbal train` as two processes."""
    if not (folder / "spec.yaml").exists():
        # avw decides by variances, which are of both ranks' losses together.
        write_spec(folder, balance={"strategy": "avw", "measure": 4}, schedule={"flip": 0.0})
    code = PROGRAM.format(program=str(HERE / "mmdet_two_processes.py"))
    changes = [part for setting in settings for part in ("--set", setting)] + ["--resume"] * resume
    return run(folder, "-c", code, fault, "train", "spec.yaml", "-o", "run", "--plain", *changes)


def assert_alike(folder: Path) -> None:
    first, second = (torch.load(folder / f"rank{rank}.pth", weights_only=True) for rank in (0, 1))
    assert first["model"].keys() == second["model"].keys()
    for key, value in first["model"].items():
        assert torch.equal(value, second["model"][key]), key
        assert bool(torch.isfinite(value).all()), key
    assert_same_state(first["balancers"], second["balancers"], but=("rows",))  # the unfinished interval's own


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken run."""
    folder = tmp_path_factory.mktemp("whole")
    code, output = two(folder, "nothing")
    assert code == 0, output
    return folder


def test_both_ranks_end_with_the_same_weights_and_decisions(whole: Path) -> None:
    records = read_intervals(whole / "run" / "intervals.jsonl")
    assert [record.iteration for record in records] == [3, 6, 9]
    assert_alike(whole)
    assert_averaged(whole)


@pytest.mark.release
def test_a_run_resumes_in_the_middle_of_an_interval_on_both(tmp_path: Path, whole: Path) -> None:
    code, output = two(tmp_path, "nothing", "schedule.iterations=9", "schedule.checkpoint_every=4")
    assert code == 0, output
    (tmp_path / "run" / "checkpoints" / "iteration_00000009.pth").unlink()
    code, output = two(tmp_path, "nothing", resume=True)
    assert code == 0 and "iterations 9 to 9" in output, output
    assert_alike(tmp_path)
    for name in ("intervals.jsonl", "losses.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / "run" / name).read_bytes(), name


@pytest.mark.release
def test_a_nan_on_one_rank_is_named_with_level_term_iteration_and_rank(tmp_path: Path) -> None:
    code, output = two(tmp_path, "nan")
    assert code == 1, output
    assert "iteration 5, rank 1: the loss P5/cls is nan" in output, output
    assert "Traceback" not in output


@pytest.mark.release
def test_or_its_step_is_left_out_on_both(tmp_path: Path) -> None:
    code, output = two(tmp_path, "nan", "balance.on_nonfinite=skip")
    assert code == 0, output
    assert_alike(tmp_path)
    record = read_intervals(tmp_path / "run" / "intervals.jsonl")[1]
    assert [(n.level, n.term, n.iteration, n.rank) for n in record.nonfinite] == [("P5", "cls", 5, 1)]


@pytest.mark.release
def test_what_is_learned_is_alike_too_in_mixed_precision_with_accumulated_gradients(tmp_path: Path) -> None:
    changes = ("balance.strategy=uw", "schedule.iterations=4", "schedule.amp=bf16", "schedule.accumulate=2")
    code, output = two(tmp_path, "nothing", *changes)
    assert code == 0, output
    assert_alike(tmp_path)


HOOK_ONLY = """\
_base_ = "run/config.py"
custom_imports = dict(imports=["msbal_mmdet.hooks", "mmdet_two_processes"])
custom_hooks = [
    dict(type="MultiScaleBalanceHook", strategy="avw", interval=3, seed=5),
    dict(type="KeepRanks"),
]
model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None)
"""


def hook_only(folder: Path, *options: str) -> None:
    """mmdet's own training tool, as two processes."""
    import mmdet

    tool = Path(mmdet.__file__).parent / ".mim" / "tools" / "train.py"
    code, output = run(
        folder, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tool),
        "hook_only.py", "--launcher", "pytorch", "--work-dir", "work", *options,
    )  # fmt: skip
    assert code == 0, output[-3000:]


@pytest.mark.release
def test_mmengines_launcher_with_the_hook_alone(tmp_path: Path, whole: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.py").write_text((whole / "run" / "config.py").read_text())
    (tmp_path / "hook_only.py").write_text(HOOK_ONLY)
    hook_only(tmp_path)
    records = tmp_path / "work" / "intervals.jsonl"
    assert [r.iteration for r in read_intervals(records)] == [3, 6, 9]
    assert_alike(tmp_path)
    # In the middle of an interval, of which each rank saw its part. Nothing is random here: mmengine's own
    # resume would draw anew.
    kept, ends = records.read_bytes(), torch.load(tmp_path / "rank0.pth", weights_only=True)
    hook_only(tmp_path, "--resume", "work/iter_4.pth")
    assert_alike(tmp_path)
    assert records.read_bytes() == kept
    again = torch.load(tmp_path / "rank0.pth", weights_only=True)
    assert all(torch.equal(value, again["model"][key]) for key, value in ends["model"].items())
