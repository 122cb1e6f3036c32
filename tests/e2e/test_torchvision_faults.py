"""A run that dies in the middle of writing, by a signal or by a loss of power, resumes to the same bytes.

Every step of every write is a point at which a run can be made to die; see `fault_points`. ``MSBAL_KILLS=20``
lets twenty times four runs die, and the resumed ones too, at points drawn from all kinds in turn; by default once.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path

import fault_points
import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")

from killed_runs import die_at, train
from msbal_process import finish, write_spec
from test_torchvision_resume import LAST, assert_same

ROUNDS = int(os.environ.get("MSBAL_KILLS", "1"))
EVALUATED = ("--set", "evaluate.enabled=true", "--set", "evaluate.every=10")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to know what is synced")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("faults")
    write_spec(made, LAST)
    return made


def events(folder: Path) -> list[str]:
    return (folder / "events.txt").read_text().splitlines()


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> tuple[Path, list[str]]:
    assert not die_at(folder, folder / "unbroken", (fault_points.ANY, 0), False, *EVALUATED)
    return folder / "unbroken", events(folder)


def test_every_kind_of_write_has_its_points(unbroken: tuple[Path, list[str]]) -> None:
    kinds = set(unbroken[1])
    for name in ("temporary iteration.pth", "intervals.jsonl", "losses.csv", "temporary metrics.json"):
        assert {f"half written {name}", f"written {name}", f"synced {name}"} <= kinds, kinds
    for name in ("iteration.pth", "metrics.json", "spec.yaml", "predictions.json"):
        assert {f"to be named {name}", f"named {name}"} <= kinds, kinds
    assert {"to be deleted iteration.pth", "synced checkpoints", "synced run's folder"} <= kinds, kinds


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power"])
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_run_that_dies_while_it_writes(
    folder: Path, unbroken: tuple[Path, list[str]], round_: int, power: bool
) -> None:
    whole, happened = unbroken
    draw = random.Random(round_)
    kinds = Counter(happened)
    names = sorted(kinds)
    random.Random(7).shuffle(names)
    for at in range(4):
        kind = names[(4 * round_ + at) % len(names)]
        run = folder / f"run{round_}{at}{power:d}"
        point = (kind, draw.randint(1, kinds[kind]))
        assert die_at(folder, run, point, power, *EVALUATED), point
        # And again on the way, which ends sooner or later than that point.
        die_at(folder, run, (fault_points.ANY, draw.randint(1, len(happened))), power, *EVALUATED)
        finish(train(folder, run, *EVALUATED), folder)
        assert_same(run, whole)
        for name in ("metrics.json", "predictions.json"):
            assert (run / name).read_bytes() == (whole / name).read_bytes(), (point, name)
