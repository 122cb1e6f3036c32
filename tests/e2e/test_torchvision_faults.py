"""A run that dies in the middle of writing, by a signal or by a loss of power, resumes to the same bytes.

Every step of every write is a point at which a run can be made to die; see `fault_points`. ``MSBAL_KILLS=20``
lets twenty times six runs die, and the resumed ones too, at points drawn from all kinds in turn; by default once.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import sys
from pathlib import Path

import fault_points
import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")

from msbal_process import finish, start, write_spec
from test_torchvision_resume import LAST, assert_same

ROUNDS = int(os.environ.get("MSBAL_KILLS", "1"))
EVALUATED = ("--set", "evaluate.enabled=true", "--set", "evaluate.every=10")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc to know what is synced")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("faults")
    write_spec(made, LAST)
    return made


def train(folder: Path, run: Path, die_at: int = 0, power: bool = False):  # type: ignore[no-untyped-def]
    again = ["--resume"] * (run / "spec.yaml").exists()
    first = functools.partial(fault_points.install, str(run), die_at, power, str(folder / "events.txt"))
    return start(folder, "train", "spec.yaml", "-o", run.name, "--plain", *EVALUATED, *again, first=first)


def events(folder: Path) -> list[str]:
    return (folder / "events.txt").read_text().splitlines()


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> tuple[Path, list[str]]:
    finish(train(folder, folder / "unbroken"), folder)
    return folder / "unbroken", events(folder)


def points(happened: list[str]) -> dict[str, list[int]]:
    """The points of each kind, by number."""
    found: dict[str, list[int]] = {}
    for number, event in enumerate(happened, start=1):
        found.setdefault(event, []).append(number)
    return found


def test_every_kind_of_write_has_its_points(unbroken: tuple[Path, list[str]]) -> None:
    kinds = set(points(unbroken[1]))
    for name in ("temporary iteration.pth", "intervals.jsonl", "losses.csv", "temporary metrics.json"):
        assert {f"half written {name}", f"written {name}", f"synced {name}"} <= kinds, kinds
    for name in ("iteration.pth", "metrics.json", "spec.yaml", "predictions.json"):
        assert {f"to be named {name}", f"named {name}"} <= kinds, kinds
    assert {"to be deleted iteration.pth", "synced checkpoints", "synced unbroken"} <= kinds, kinds


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power"])
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_run_that_dies_while_it_writes(
    folder: Path, unbroken: tuple[Path, list[str]], round_: int, power: bool
) -> None:
    whole, happened = unbroken
    draw = random.Random(round_)
    kinds = points(happened)
    names = sorted(kinds)
    random.Random(7).shuffle(names)
    for at in range(6):
        kind = names[(6 * round_ + at) % len(names)]
        run = folder / f"run{round_}{at}{power:d}"
        chosen = draw.choice(kinds[kind])
        died = train(folder, run, chosen, power)
        died.join(240)
        assert died.exitcode == -signal.SIGKILL, (kind, chosen, (folder / "output.txt").read_text())
        # And again on the way, which ends sooner or later than that point.
        died = train(folder, run, draw.randint(1, len(happened)), power)
        died.join(240)
        assert died.exitcode in (0, -signal.SIGKILL), (kind, chosen, (folder / "output.txt").read_text())
        finish(train(folder, run), folder)
        assert_same(run, whole)
        for name in ("metrics.json", "predictions.json"):
            assert (run / name).read_bytes() == (whole / name).read_bytes(), (kind, chosen, name)
