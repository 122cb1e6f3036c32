"""The verdicts hold what they say, the old ones did not, and the study has the product's own rules."""

from __future__ import annotations

import numpy as np
import pytest

from msbal.ablation.grid import Comparison, Treatment
from msbal.ablation.statistics.conclude import Study, conclude
from msbal.ablation.statistics.conclusion import Conclusion
from msbal.ablation.statistics.detectors import over_groups
from msbal.ablation.statistics.samples import summarize
from study import measures
from study.page import markdown_table
from study.rules import Found, detector_rules, new_rules, sequential_rules
from study.shares import Row, share
from study.worlds import GAIN, Array, World, draw

NOT_BEFORE = (
    "all intervals beside the verdicts hold the truth",
    "no difference at all",
    "a gain of 2.5 sd is seen",
    "sequential",
    "gains on six detectors",
    "seeds and images",
)
"""What the old rules did not hold, by words of the row."""


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(measures.all_rows(measures.SMALL))


@pytest.mark.release
def test_the_verdicts_hold_what_they_must(rows: list[Row]) -> None:
    assert [row.cells for row in rows if not row.holds(row.new)] == []


@pytest.mark.release
@pytest.mark.parametrize("words", NOT_BEFORE)
def test_the_old_rules_fail(rows: list[Row], words: str) -> None:
    compared = [row for row in rows if words in row.text and row.old is not None]
    assert [row for row in compared if row.old is not None and not row.holds(row.old)]


@pytest.mark.parametrize(
    ("seeds", "noise", "effects"),
    [
        (3, "normal", (2.0,)),
        (2, "seeds", (9.0, 0.0)),
        (5, "normal", (1.5, 0.0, 1.5, -1.5)),
        (4, "steps", (0.0,)),
        (3, "normal", (3.0, 0.0, 1.7, -2.0)),
        (6, "triple", (1.0, 0.0)),
        (5, "seeds", (1.6, 4.0)),
    ],
)
def test_the_rules_are_those_of_the_product(seeds: int, noise: str, effects: tuple[float, ...]) -> None:
    metrics = draw(World(seeds, noise, effects), 25, key=3)
    found = new_rules(metrics)
    assert len(found.p) == 25
    for number, metric in enumerate(metrics):
        for at, conclusion in enumerate(_concluded(metric, (seeds,)).values()):
            _same(found, (number, at), conclusion)


def test_the_sequential_rules_are_those_of_the_product() -> None:
    looks = (3, 5, 8)
    metrics = draw(World(8, "normal", (2.0, 0.0, 1.0)), 20, key=4)
    found, ends = sequential_rules(metrics, looks, GAIN)
    for number, metric in enumerate(metrics):
        for at, conclusion in enumerate(_concluded(metric, looks).values()):
            _same(found, (number, at), conclusion)
            assert conclusion.tested is not None
            assert conclusion.tested.look == ends[number, at]
    assert len(np.unique(ends)) == 3


def test_the_rules_over_detectors_are_those_of_the_product() -> None:
    differences = np.random.default_rng(2).normal(0.004, 0.005, (20, 4, 3))
    found = detector_rules(differences)
    comparisons = tuple(Comparison(f"{group},rlo", f"{group},equal") for group in range(4))
    for number, of_groups in enumerate(differences):
        values = {}
        for (arm, to), difference in zip(comparisons, of_groups, strict=True):
            values[to] = dict.fromkeys(range(3), 0.4)
            values[arm] = {seed: 0.4 + d for seed, d in enumerate(difference.tolist())}
        summaries = {arm: summarize(of_arm) for arm, of_arm in values.items()}
        study = Study(summaries, comparisons, [(to, arm) for arm, to in comparisons], GAIN, (3,))
        (over,) = over_groups((Treatment("rlo", "detectors", comparisons),), conclude(study), GAIN)
        _same(found, (number, 0), over)  # type: ignore[arg-type]


def test_a_row_fails_beyond_chance_only() -> None:
    row = Row("false alarms", None, share(520, 10_000), high=0.05)
    assert row.holds(row.new)
    assert not row.holds(share(700, 10_000))
    assert not Row("seen", None, row.new, low=0.9).holds(row.new)
    assert Row("seen", share(1, 2), share(9, 10), low=0.8).cells == (
        "seen",
        "50.0 %",
        "90.0 %",
        "at least 80.0 %",
    )
    assert "| false alarms | - | 5.2 % | at most 5.0 % |" in markdown_table([row])


def _concluded(metrics: Array, looks: tuple[int, ...]) -> dict[Comparison, Conclusion]:
    arms = [str(arm) for arm in range(len(metrics))]
    summaries = {
        arm: summarize(dict(enumerate(of_arm.tolist()))) for arm, of_arm in zip(arms, metrics, strict=True)
    }
    comparisons = [Comparison(arm, "0") for arm in arms[1:]]
    return conclude(Study(summaries, comparisons, [arms], GAIN, looks, seeds=range(looks[-1])))


def _same(found: Found, at: tuple[int, int], conclusion: Conclusion) -> None:
    """What the study finds is what the product says, numbers and verdict."""
    tested = conclusion.tested
    if tested is None:
        assert np.isnan(found.p[at])
        return
    seen = [
        values[at]
        for values in (found.mean, found.p, found.low, found.high, found.inner_low, found.inner_high)
    ]
    assert seen == pytest.approx([tested.mean, tested.p, *tested.interval, *tested.inner], rel=1e-6, abs=1e-9)
    said = conclusion.verdict
    assert found.better[at] == said.startswith("better")
    assert found.worse[at] == said.startswith("worse")
    assert found.at_least(GAIN)[at] == said.endswith("by at least the gain")
    assert found.less_than(GAIN)[at] == (
        said
        in (
            "no difference as large as the gain",
            "better by less than the gain",
            "worse by less than the gain",
        )
    )
    assert found.no_gain(GAIN)[at] == (found.less_than(GAIN)[at] or said == "no gain")
