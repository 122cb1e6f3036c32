"""docs/imbalances.md is what docs/imbalances.py makes of the records that are kept, and they say what it says."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("imbalances", DOCS / "imbalances.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runs(writer: ModuleType) -> list[Any]:
    return writer.kept()  # type: ignore[no-any-return]


def test_the_page_has_what_was_measured(writer: ModuleType, runs: list[Any]) -> None:
    text = writer.PAGE.read_text(encoding="utf-8")
    assert writer.page(text, runs) == text


def test_every_setup_was_measured_in_every_interval(writer: ModuleType, runs: list[Any]) -> None:
    setups = writer.setups(runs)
    assert len(setups) == 4 and all(0 in {run.seed for run in each} for each in setups.values())
    for run in runs:
        assert run.series.loss.shape == (30, 5) and not run.series.missing.any()
        assert all(np.isfinite(run.series.gradient_norm[part]).all() for part in writer.PARTS)


def test_what_the_prose_says_of_the_numbers(writer: ModuleType, runs: list[Any]) -> None:
    setups = writer.setups(runs)
    same = {name: [writer.same_level(run, "backbone") for run in each] for name, each in setups.items()}
    assert min(same["FCOS, BCCD"]) > 0.9 and max(same["RetinaNet, BCCD"]) < 0.2
    assert all(max(same[name]) < 0.6 for name in same if "COCO" in name)
    for run in runs:
        positives, loss = (
            writer.share(values, writer.START) for values in (run.series.positives, run.series.loss)
        )
        assert np.abs(positives - loss).max() < 0.1, "the loss follows the boxes"
        picked = writer.top(run.series.variance_reduction)[1:]
        assert 0.4 < writer.overlap(picked, writer.top(run.series.gradient_norm["backbone"])[1:]) < 1.1


def test_the_one_conflict_is_where_the_prose_says(writer: ModuleType, runs: list[Any]) -> None:
    for name, found in writer.setups(runs).items():
        lowest = {when: writer.opposed(found, part) for when, part in writer.PHASES.items()}
        conflict = lowest.pop("11 to 30") if name == "FCOS, BCCD" else (-1.0, 0, 1)
        assert conflict[0] < -0.4 and conflict[1:] == (0, 1)
        assert all(cosine > -0.1 for cosine, _, _ in lowest.values())


def test_the_picks_of_avw_stay_as_rarely_as_those_of_noise(writer: ModuleType, runs: list[Any]) -> None:
    stayed = [count for run in runs for count in writer.kept_picks(run.losses, 10)]
    of_noise = np.mean(writer.kept_picks(writer.noise(10), 10))
    assert np.mean(stayed) == pytest.approx(of_noise, abs=0.1) and of_noise < 0.5


def test_the_rates_are_those_that_the_runs_recorded(writer: ModuleType, runs: list[Any]) -> None:
    for run in runs:
        rates = writer.reductions(run.losses, 10)
        known = run.series.variance > 1e-6  # of the others nothing is left in four digits
        assert np.allclose(rates[known], run.series.variance_reduction[known], rtol=0.05, atol=0.02)


def test_levels_and_weights_by_hand(writer: ModuleType, runs: list[Any]) -> None:
    assert writer.top(np.array([[3.0, 1.0, 3.0, 5.0], [1.0, 1.0, 1.0, 0.0]])) == [{3, 0}, {0, 1}]
    weights = writer.weights_for(np.array([1.0, 2.0, 4.0]))
    assert weights == pytest.approx([12 / 7, 6 / 7, 3 / 7])
    series = replace(
        runs[0].series, loss=np.array([[1.0, 2.0], [3.0, 1.0]]), gradient_norm={"head": np.array([[0.1, 0.2]] * 2)}
    )  # fmt: skip
    assert writer.same_level(replace(runs[0], series=series), "head") == 0.5
