"""The proposed ablation: read by the loader that `msbal ablate` uses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from crafted_diagnoses import make_diagnosis, make_group

from msbal.ablation.grid import Grid, make_grid, remarks
from msbal.ablation.spec import load_ablation
from msbal.diagnosis.findings import find
from msbal.diagnosis.proposal import propose
from msbal.records.diagnosis import GroupState, LevelDiagnosis
from msbal.spec import load_spec, save_spec

UNEVEN = (10.8, 18.2, 6.1, 6.5, 2.4)
SPEC = """\
backend: torchvision
model: {name: retinanet, min_size: 64}
data: {format: generated, size: 64}
schedule: {iterations: 60, warmup: 5, optimizer: {name: sgd, lr: 0.01}}
balance: {strategy: rlo, interval: 10, step: 0.02}
"""


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(SPEC, encoding="utf-8")
    return path


def judged(*groups: GroupState, **more: Any) -> LevelDiagnosis:
    diagnosis = make_diagnosis(*groups, **more)
    return replace(diagnosis, findings=find(diagnosis))


def grid_of(diagnosis: LevelDiagnosis, spec_file: Path, *overrides: str) -> tuple[str, Grid]:
    text = propose(diagnosis, load_spec(spec_file, overrides), spec_file.name, overrides)
    assert text is not None
    proposed = spec_file.with_name("ablation.yaml")
    proposed.write_text(text, encoding="utf-8")
    ablation = load_ablation(proposed)
    make_grid(ablation, smoke=True)
    grid = make_grid(ablation)
    assert not remarks(grid)
    return text, grid


def test_levels_of_unequal_norms(spec_file: Path) -> None:
    text, grid = grid_of(judged(make_group(UNEVEN)), spec_file)
    assert grid.arms == ("equal", "grad_norm", "equal-norms", "equal-lr")
    assert len(grid.seeds) == 5
    by_arm = {cell.arm: cell.spec for cell in grid.cells}
    assert by_arm["equal-norms"].balance.model_dump()["weights"] == pytest.approx(
        (0.53, 0.31, 0.96, 0.86, 2.3), rel=0.02
    )
    assert all(
        spec.model == by_arm["equal"].model and spec.balance.interval == 10 for spec in by_arm.values()
    )
    # Nearly unrelated gradients of equal norm n: their sum is sqrt(5) n long, where equal weights gave |norms|.
    optimizer = by_arm["equal-lr"].schedule.optimizer
    assert optimizer is not None
    assert optimizer.lr == pytest.approx(
        0.01 * (5 / sum(1 / n for n in UNEVEN)) * 5**0.5 / sum(n**2 for n in UNEVEN) ** 0.5, rel=0.1
    )
    assert "P4 dominates" in " ".join(text.replace("#", " ").split())
    assert all(len(line) < 120 for line in text.splitlines())


def test_an_optimizer_that_scales_its_steps_itself_is_controlled_by_random_weights(spec_file: Path) -> None:
    _, grid = grid_of(judged(make_group(UNEVEN)), spec_file, "schedule.optimizer.name=adamw", "seed=3")
    assert grid.arms == ("equal", "grad_norm", "equal-norms", "rlw")
    optimizers = [cell.spec.schedule.optimizer for cell in grid.cells]
    assert {optimizer.name for optimizer in optimizers if optimizer} == {
        "adamw"
    }  # the override counts for all


def test_conflicts_ask_for_a_gramian_weighting(spec_file: Path) -> None:
    pytest.importorskip("torchjd")
    _, grid = grid_of(judged(make_group((1,) * 5, cosines={(0, 3): -0.7})), spec_file)
    assert grid.arms == ("equal", "upgrad", "rlw")
    _, grid = grid_of(judged(make_group(UNEVEN, cosines={(0, 3): -0.7})), spec_file)
    assert grid.arms[:3] == ("equal", "grad_norm", "upgrad")
    assert len(grid.arms) == 4


@pytest.mark.parametrize(("measure", "kept"), [(500, None), (5, 5)])
def test_arms_that_decide_by_gradients_have_some_in_each_interval(
    spec_file: Path, measure: int, kept: int | None
) -> None:
    diagnosis = judged(make_group(UNEVEN, cosines={(0, 1): -0.6}))
    _, grid = grid_of(diagnosis, spec_file, f"balance.measure={measure}")
    by_arm = {cell.arm: cell.spec.balance.measure for cell in grid.cells}
    assert by_arm["equal"] == measure
    assert by_arm["grad_norm"] == kept


def test_of_a_runs_own_spec(spec_file: Path, tmp_path: Path) -> None:
    """Its spec is complete: keys of its strategy must not stand in the way of another."""
    run = tmp_path / "runs" / "a"
    spec = load_spec(spec_file, [f"output={run}"])
    save_spec(spec, run / "spec.yaml")
    _, grid = grid_of(judged(make_group(UNEVEN), make_group(UNEVEN)), run / "spec.yaml")
    assert all(
        re.fullmatch(r".*/a-ablation/runs/[\w-]+/seed-\d", str(cell.spec.output)) for cell in grid.cells
    )


def test_a_run_that_was_not_evaluated_is_evaluated_in_the_ablation(spec_file: Path) -> None:
    _, grid = grid_of(judged(make_group(UNEVEN)), spec_file, "evaluate.enabled=false")
    assert all(cell.spec.evaluate.enabled for cell in grid.cells)


def test_nothing_is_proposed_for_nothing(spec_file: Path) -> None:
    spec = load_spec(spec_file)
    assert propose(judged(make_group((1,) * 5)), spec, "own.yaml") is None
    noisy = judged(make_group((1, 2.2, 1, 1, 1), noise=0.8, batches=4), batches=4)
    assert propose(noisy, spec, "own.yaml") is None
