"""`msbal ablate --dry-run`: what it measures, what it multiplies, and that it leaves nothing behind."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ablation_tiny import BASE

from msbal.ablation import estimate as module
from msbal.ablation.estimate import Cost, estimate, measure, total_seconds
from msbal.ablation.grid import Grid
from msbal.cli.app import run
from msbal.training import prepare

Make = Callable[..., Grid]
COST = Cost(iterations=100, step=0.5, image=0.1, images=20, evaluations=3)


def test_a_run_is_its_steps_and_its_evaluations() -> None:
    assert COST.seconds == pytest.approx(100 * 0.5 + 3 * 20 * 0.1)


def test_jobs_share_the_work_but_no_run_is_split(grid: Make) -> None:
    cells = list(grid(arms={"one": {}, "two": {}}, seeds=3).cells)
    costs = {"one": COST, "two": COST}
    assert total_seconds(cells, costs, 1) == pytest.approx(6 * 56)
    assert total_seconds(cells, costs, 3) == pytest.approx(2 * 56)
    assert total_seconds(cells, costs, 50) == pytest.approx(56)
    assert total_seconds([], costs, 1) == 0


def test_only_arms_that_cost_something_else_are_measured(grid: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Any] = []
    monkeypatch.setattr(module, "prepare", lambda spec: spec)
    monkeypatch.setattr(module, "measure", lambda spec: measured.append(spec) or COST)
    arms = {
        "rlo": {},
        "equal": {"balance.strategy": "equal"},
        "slow": {"schedule.optimizer.lr": 0.0},
        "large": {"model.fpn_channels": 16},
        "long": {"schedule.iterations": 8},
    }
    told: list[str] = []
    assert set(estimate(grid(arms=arms), told.append)) == set(arms)
    assert told == [f"measuring one step of {arm} ..." for arm in ("rlo", "large", "long")]
    assert len(measured) == 3


def test_a_real_step_is_measured(grid: Make, tmp_path: Path) -> None:
    made = grid(
        arms={"one": {}},
        seeds=1,
        set={"evaluate.every": 3, "schedule.iterations": 7, "data.root": str(tmp_path)},
    )
    cost = measure(prepare(made.cells[0].spec))
    assert (cost.iterations, cost.images, cost.evaluations) == (7, 2, 3)
    assert cost.step > 0 and cost.image > 0


def test_what_measuring_gradients_takes_is_part_of_a_step(
    grid: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        def __init__(self, parameters: Any) -> None:
            assert parameters

        def measure(self, losses: Any) -> None:
            time.sleep(2)

    monkeypatch.setattr(module, "LevelGradients", Slow)
    arms = {"one": {}, "two": {"balance.strategy": "grad_norm"}}
    made = grid(arms=arms, seeds=1, set={"balance.interval": 2, "data.root": str(tmp_path)})
    told: list[str] = []
    costs = estimate(made, told.append)
    assert len(told) == 2
    assert costs["one"].step < 1 <= costs["two"].step


def test_the_command_prints_the_grid_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretend: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("msbal.ablation.work.PROGRAM", pretend)
    monkeypatch.setattr("msbal.ablation.work.POLL_SECONDS", 0.05)
    base = {**BASE, "data": {**BASE["data"], "root": str(tmp_path / "pictures")}}
    arms = {"plain": {"balance.strategy": "equal"}, "moved": {}}
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({"base": base, "arms": arms, "output": "out"}, sort_keys=False)
    )
    assert run(["ablate", "mine.yaml", "--dry-run", "--jobs", "2"]) == 0
    out, error = capsys.readouterr()
    assert not (tmp_path / "out").exists()
    assert error.count("measuring one step") == 1
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["plain"][1:6] == ["new", "new", "new", "equal", "4"]
    assert re.fullmatch(r"\d+\.\d{3}", rows["plain"][6])
    assert re.search(r"6 of 6 runs to do: about \d+:\d\d:\d\d with --jobs 2", out)
    assert "baseline plain, metric AP, output out" in out
    # What is finished is no longer counted, and a changed run is seen, but nothing is touched.
    assert run(["ablate", "mine.yaml", "--quiet", "--set", "seeds=1"]) == 0
    capsys.readouterr()
    changed = ["--set", "base.schedule.checkpoint_every=4"]
    assert run(["ablate", "mine.yaml", "--dry-run"]) == 0
    assert "4 of 6 runs to do" in capsys.readouterr().out
    assert run(["ablate", "mine.yaml", "--dry-run", *changed]) == 0
    out = capsys.readouterr().out
    assert next(line for line in out.splitlines() if line.split()[:1] == ["plain"]).split()[1] == "changed"
    before = (tmp_path / "out" / "starts.txt").read_text()
    assert run(["ablate", "mine.yaml", *changed]) == 2
    assert "schedule.checkpoint_every was 2, is 4" in capsys.readouterr().err
    assert (tmp_path / "out" / "starts.txt").read_text() == before
    assert run(["ablate", "mine.yaml", "--quiet", "--force", *changed]) == 0
    assert (tmp_path / "out" / "starts.txt").read_text().count("--force") == 2
