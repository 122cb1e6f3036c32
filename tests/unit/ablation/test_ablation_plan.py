"""The plan of an ablation: written first, and what was changed later is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
import yaml
from finished_grid import STRATEGIES, finished

from msbal.ablation.cells import failure_file
from msbal.ablation.foresight import foresight
from msbal.ablation.grid import Grid, make_grid
from msbal.ablation.plan import FILE, Question, question_of, read_plan, sentences, write_plan
from msbal.ablation.spec import AblationSpec
from msbal.cli.app import run
from msbal.errors import SpecError

ASKED = Question(
    "AP", 0.005, (0, 1, 2), (3,), (("rlo", "equal"), ("avw", "equal")), {"equal": "e", "rlo": "r", "avw": "a"}
)
LATE = "; a p-value does not hold for seeds that are added until it is small"


def said_after(tmp_path: Path, finished: int = 6, **changes: Any) -> tuple[str, ...]:
    """What is said of a plan that was changed after so many runs."""
    write_plan(tmp_path, ASKED, 0)
    return sentences(write_plan(tmp_path, replace(ASKED, **changes), finished))


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, ASKED, 0)
    assert read_plan(tmp_path) == plan == write_plan(tmp_path, ASKED, 5) and plan.newest == ASKED
    assert sentences(plan) == ()
    changed = write_plan(tmp_path, replace(ASKED, seeds=(0, 1, 2, 3), looks=(4,)), 6)
    assert (
        read_plan(tmp_path) == changed and changed.newest.seeds == (0, 1, 2, 3) and changed.question == ASKED
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "AP50"}, ["Metric: planned AP, changed to AP50 after 6 runs had finished."]),
        ({"gain": 0.01}, ["Gain: planned 0.5 points, changed to 1 after 6 runs had finished."]),
        (
            {"seeds": tuple(range(8)), "looks": (8,)},
            [f"Seeds: planned 0 to 2, extended to 0 to 7 after 6 runs had finished{LATE}."],
        ),
        (
            {"seeds": (5, 7), "looks": (2,), "specs": {"equal": "x", "rlo": "y", "avw": "z"}},
            ["Seeds: planned 0 to 2, changed to 5 and 7 after 6 runs had finished."],
        ),
        ({"looks": (2, 3)}, ["Looks: planned after 3 seeds, changed to 2 and 3 after 6 runs had finished."]),
        (
            {"comparisons": (("rlo", "equal"), ("rlo", "avw"))},
            ["Comparisons: rlo with avw added; avw with equal left out after 6 runs had finished."],
        ),
        (
            {"comparisons": (*ASKED.comparisons, ("rlo", "avw"))},
            ["Comparisons: rlo with avw added after 6 runs had finished."],
        ),
        (
            {"comparisons": ASKED.comparisons[:1]},
            ["Comparisons: avw with equal left out after 6 runs had finished."],
        ),
        ({"comparisons": ASKED.comparisons[::-1]}, []),
        (
            {"specs": {"equal": "e", "rlo": "new", "avw": "a"}},
            ["Settings of rlo: changed after 6 runs had finished."],
        ),
    ],
)
def test_what_was_changed_is_said(tmp_path: Path, changes: dict[str, Any], said: list[str]) -> None:
    assert list(said_after(tmp_path, **changes)) == said


def test_what_was_changed_before_the_first_result_is_no_matter(tmp_path: Path) -> None:
    assert said_after(tmp_path, finished=0, metric="AP50") == ()


def test_a_folder_without_a_plan(tmp_path: Path) -> None:
    assert sentences(None) == ()
    assert sentences(None, ASKED, 1) == ("Nothing was planned: 1 run had finished before there was a plan.",)
    assert sentences(write_plan(tmp_path, ASKED, 9)) == ("Planned only after 9 runs had finished.",)


@pytest.mark.parametrize("text", ["", "null", '{"question": {}}', '{"question": null, "changes": []}'])
def test_a_plan_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(SpecError, match=r"plan\.json: not readable.*delete it") as error:
        read_plan(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("gain", "half", "gain: .* Found 'half'"),
        ("seeds", [], "seeds: .*"),
        ("metric", 3, "metric: .* Found 3"),
    ],
)
@pytest.mark.parametrize("changed", [False, True])
def test_a_plan_that_was_damaged_by_hand(
    tmp_path: Path, key: str, value: Any, said: str, changed: bool
) -> None:
    write_plan(tmp_path, ASKED, 0)
    write_plan(tmp_path, replace(ASKED, seeds=(0, 1, 2, 3), gain=0.01, metric="AP50"), 6)
    raw = json.loads((tmp_path / FILE).read_text())
    if changed:
        next(each for each in raw["changes"] if each["key"] == key)["after"] = value
    else:
        raw["question"][key] = value
    (tmp_path / FILE).write_text(json.dumps(raw))
    with pytest.raises(SpecError, match=rf"plan\.json: not readable: .*{said}") as error:
        read_plan(tmp_path)
    assert "\n" not in str(error.value)


@pytest.fixture
def reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Grid, str]]:
    """A finished grid, and the report on it that more arguments ask for."""
    monkeypatch.chdir(tmp_path)
    arms = {name: STRATEGIES[name] for name in ("equal", "rlo")}
    ablation, grid = finished(tmp_path, intervals=2, seeds=3, arms=arms)
    raw = ablation.model_dump(mode="json", exclude_unset=True)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw))
    write_plan(grid.output, question_of(ablation, grid), 0)

    def report(*arguments: str) -> tuple[Grid, str]:
        assert run(["ablate", "mine.yaml", "--report-only", "--resamples", "0", *arguments]) == 0
        return grid, (grid.output / "report" / "report.md").read_text()

    return report


def test_a_report_on_another_question_says_so_and_leaves_the_plan(
    tmp_path: Path, reported: Callable[..., tuple[Grid, str]]
) -> None:
    before = (tmp_path / "out" / FILE).read_bytes()
    _, text = reported("--set", "metric=mAP", "--set", "gain=0.01", "--set", "seeds=2")
    for said in (
        "Metric: planned AP, in this report mAP.",
        "Gain: planned 0.5 points, in this report 1.",
        "Seeds: planned 0 to 2, in this report 0 and 1.",
    ):
        assert said in text
    assert (tmp_path / "out" / FILE).read_bytes() == before


def test_a_later_report_knows_which_runs_failed(
    tmp_path: Path, reported: Callable[..., tuple[Grid, str]]
) -> None:
    grid, whole = reported()
    cell = next(cell for cell in grid.cells if (cell.arm, cell.seed) == ("rlo", 2))
    shutil.rmtree(cell.spec.output)
    unfinished = "1 of 6 runs is neither finished nor failed. Seed 2 is left out of the conclusions"
    assert unfinished in reported()[1]
    failure_file(grid.output, cell).parent.mkdir(exist_ok=True)
    failure_file(grid.output, cell).write_text("error: it went wrong\n")
    failed = reported()[1]
    assert unfinished not in failed and "Left out: seed 2, where rlo failed." in failed
    assert "Left out" not in whole


# -- what a grid can see -----------------------------------------------------------------------------


def seen(ablation: AblationSpec) -> Any:
    return foresight(ablation, make_grid(ablation))


def test_the_gain_that_a_grid_can_see(ablation: Callable[..., AblationSpec]) -> None:
    table = seen(ablation(arms={"one": {}, "two": {}}, seeds=6, noise=0.003))
    # The table of the documentation: at a noise of 0.3 points, 6 seeds show half a point.
    assert table.rows[0][0] == "0.30" and table.rows[0][2] == "6"
    assert 0.4 < float(table.rows[0][1]) <= 0.5
    assert "`noise` in the spec" in table.notes[0]
    assert [row[0] for row in seen(ablation(arms={"one": {}, "two": {}})).rows] == ["0.20", "0.50", "1.00"]
    assert seen(ablation(arms={"one": {}, "two": {}}, seeds=1)) is None
    assert seen(ablation(arms={"one": {}})) is None


def test_two_seeds_of_many_arms_share_no_noise(ablation: Callable[..., AblationSpec]) -> None:
    arms: dict[str, dict[str, Any]] = {name: {} for name in ("one", "two", "three", "four", "five")}
    ((_, two, needed),) = seen(ablation(arms=arms, seeds=2, noise=0.0001)).rows
    ((_, three, _),) = seen(ablation(arms=arms, seeds=3, noise=0.0001)).rows
    assert needed == "3"
    assert float(two) > 20 * float(three)


def test_the_seeds_that_a_sequential_grid_takes(ablation: Callable[..., AblationSpec]) -> None:
    table = seen(ablation(arms={"one": {}, "two": {}}, stop="sequential", noise=0.002))
    row = dict(zip(table.header, table.rows[0], strict=True))
    averages = [float(cell) for name, cell in row.items() if name.startswith("seeds on average")]
    assert len(averages) == 3 and all(3 <= seeds <= 12 for seeds in averages)
    assert averages[2] < averages[1], "a larger difference ends earlier"
    assert "after 3, 5, 8 and 12 seeds" in table.notes[1] and "0.016" in table.notes[1]


def test_the_noise_of_finished_runs_is_taken(tmp_path: Path) -> None:
    ablation, grid = finished(
        tmp_path, intervals=1, seeds=4, arms={n: STRATEGIES[n] for n in ("equal", "rlo")}
    )
    table = foresight(ablation, grid)
    assert table is not None and len(table.rows) == 1 and "the 4 pairs that are finished" in table.notes[0]
    metrics = {
        (c.arm, c.seed): json.loads((c.spec.output / "metrics.json").read_text())["final"]["AP"]
        for c in grid.cells
    }
    differences = [metrics["rlo", seed] - metrics["equal", seed] for seed in range(4)]
    assert float(table.rows[0][0]) == pytest.approx(100 * stdev(differences), abs=0.006)
