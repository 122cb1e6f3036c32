"""A detectron2 run killed at any moment and resumed ends in the same bytes as one that was never killed.

``MSBAL_KILLS=20`` kills that many runs, each three times; by default one. ``-rP`` shows what each was killed at.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("detectron2", reason="detectron2 is not installed")
pytest.importorskip("msbal_detectron2", reason="the detectron2 backend is not installed")

import msbal_process
from detectron2_specs import write_spec
from killed_runs import (
    DAMAGE,
    assert_same_records,
    copied,
    die_twice,
    go_on_without_the_newest,
    interrupt_and_go_on,
    kill_three_times,
    train,
    train_unbroken,
)
from msbal_process import finish
from states import assert_same_state

from msbal.training import checkpoints
from msbal_detectron2.trainer import CHECKPOINTS

msbal_process.PRELOAD += ["msbal_detectron2.splitters", "msbal_detectron2.detector"]
ROUNDS = int(os.environ.get("MSBAL_KILLS", "1"))
LAST = 24

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills by POSIX signals")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a spec that has all the state there is: accumulation, an average, a loss normalizer."""
    made = tmp_path_factory.mktemp("resume")
    write_spec(
        made,
        schedule={
            "iterations": LAST, "checkpoint_every": 3, "accumulate": 2, "ema": 0.9, "clip_norm": 1.0, "amp": "bf16"
        },
        balance={"strategy": "rlo", "interval": 5},
        evaluate={"enabled": False},
    )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> Path:
    return train_unbroken(folder)


def assert_same(run: Path, unbroken: Path) -> None:
    assert_same_records(run, unbroken)
    mine, other = (CHECKPOINTS.load(checkpoints.path_of(r / "checkpoints", LAST)) for r in (run, unbroken))
    assert (
        mine["balancing"]["loss_state"]
        == other["balancing"]["loss_state"]
        != [{"all": {"loss_normalizer": None}}]
    )
    for part in ("model", "average", "balancing"):
        assert_same_state(mine[part], other[part])


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_killed_run_resumes_to_the_same_bytes(folder: Path, unbroken: Path, round_: int) -> None:
    run = folder / f"killed{round_}"
    kill_three_times(lambda: train(folder, run), run, unbroken, round_)
    finish(train(folder, run), folder)
    assert_same(run, unbroken)


@pytest.mark.release
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power"])
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_run_that_dies_while_it_writes(folder: Path, unbroken: Path, round_: int, power: bool) -> None:
    run = folder / f"died{round_}{power:d}"
    die_twice(folder, run, round_, power)
    finish(train(folder, run), folder)
    assert_same(run, unbroken)


def test_a_checkpoint_waits_for_the_step_that_its_gradients_are_for(unbroken: Path) -> None:
    """Every third iteration one is due, every second one has a step."""
    assert [path.name for path in checkpoints.find(unbroken / "checkpoints")] == [
        f"iteration_{done:08d}.pth" for done in (24, 22)
    ]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_said_and_the_one_before_it_used(
    folder: Path, unbroken: Path, damage: str
) -> None:
    run = copied(folder, unbroken, f"damaged-{damage}")
    go_on_without_the_newest(folder, run, DAMAGE[damage], LAST)
    assert_same(run, unbroken)


def test_ctrl_c_says_how_to_continue_and_continues(folder: Path, unbroken: Path) -> None:
    assert_same(interrupt_and_go_on(folder), unbroken)
