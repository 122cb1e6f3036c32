"""One line over several detectors."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from msbal.ablation.grid import Comparison, Treatment
from msbal.ablation.reporting.arm_tables import over_table
from msbal.ablation.statistics.conclude import Study, conclude
from msbal.ablation.statistics.detectors import OverGroups, over_groups
from msbal.ablation.statistics.samples import summarize

PAPER = (0.8, 0.7, 0.5, 0.3, 0.9, 0.5)


def of_differences(*treatments: list[list[float]], gain: float = 0.5, looks: int = 1) -> list[OverGroups]:
    """Conclude on differences in points, by treatment, group and seed."""
    made, values = [], {}
    for t, groups in enumerate(treatments):
        for g, differences in enumerate(groups):
            values[f"{g}"] = dict.fromkeys(range(20), 0.4)
            values[f"{g},{t}"] = {seed: 0.4 + d / 100 for seed, d in enumerate(differences)}
        comparisons = tuple(Comparison(f"{g},{t}", f"{g}") for g in range(len(groups)))
        made.append(Treatment(f"t{t}", "detectors", comparisons))
    summaries = {arm: summarize(found) for arm, found in values.items()}
    planned = [each for treatment in made for each in treatment.comparisons]
    study = Study(summaries, planned, [tuple({arm for pair in planned for arm in pair})], gain / 100)
    return list(over_groups(tuple(made), conclude(study), gain / 100, looks))


def drawn(gains: tuple[float, ...], seeds: int, sd: float = 0.42, shared: float = 0.0) -> list[list[float]]:
    rng = np.random.default_rng(5)
    noise = math.sqrt(1 - shared) * rng.normal(size=(len(gains), seeds))
    noise += math.sqrt(shared) * rng.normal(size=seeds)
    return (np.array(gains)[:, None] + sd * noise).tolist()


def test_small_gains_on_six_detectors_are_a_gain_over_all_of_them() -> None:
    differences = drawn(PAPER, 3)
    (found,) = of_differences(differences)
    assert found.verdict == "better"
    assert found.tested is not None and found.others is not None
    assert 100 * found.tested.mean == pytest.approx(np.mean(differences))
    low, high = found.tested.interval
    assert 0 < low < found.tested.mean < high
    between = stats.ttest_1samp(np.mean(differences, axis=1), 0).confidence_interval()
    assert [100 * bound for bound in found.others] == pytest.approx([between.low, between.high])
    assert found.better_in == 6
    assert found.words.startswith(
        "Over all 6 detectors, t0 is better than the baselines, though perhaps by less"
    )
    assert "t0 is better in 6 of 6. For other detectors like these the 95 % interval is +0." in found.words
    json.dumps(asdict(found.tested))


def test_with_two_detectors_of_equal_noise_it_is_welch() -> None:
    one, two = [0.1, 0.5, 0.9], [0.3, 0.2, 0.4, 0.9, 0.1]
    (found,) = of_differences([one, two])
    # The mean of two groups is zero where one group equals the other's negative.
    welch = stats.ttest_ind(one, [-d for d in two], equal_var=False)
    assert found.tested is not None
    assert found.tested.p == pytest.approx(welch.pvalue)
    assert found.tested.degrees == pytest.approx(welch.df)
    assert found.others is None  # of two there is no telling how others are


def test_noise_that_the_seeds_share_does_not_average_out() -> None:
    shared = drawn((0.5,) * 6, 5, shared=1.0)
    (found,) = of_differences(shared)
    assert found.tested is not None
    error = found.tested.mean / stats.t.isf(found.tested.p / 2, found.tested.degrees)
    assert 100 * error == pytest.approx(np.std(shared[0], ddof=1) / math.sqrt(5))


def test_several_treatments_and_looks_make_it_stricter() -> None:
    differences = drawn((0.4, 0.4), 4)
    (alone,) = of_differences(differences)
    both = of_differences(differences, drawn((0.0, 0.1), 4))
    (looked,) = of_differences(differences, looks=3)
    assert alone.tested and both[0].tested and looked.tested
    assert both[0].tested.p == pytest.approx(2 * alone.tested.p)
    assert looked.tested.p == pytest.approx(3 * alone.tested.p)
    for stricter in (both[0], looked):
        assert stricter.tested is not None
        assert stricter.tested.interval[0] < alone.tested.interval[0]


def test_detectors_without_two_pairs_are_named_as_missing() -> None:
    (found,) = of_differences([[0.5, 0.7, 0.4], [0.6], [0.3, 0.5, 0.9]])
    assert found.missing == (("1,0", "1"),)
    assert found.words.startswith("Over 2 of 3 detectors, ")
    (found,) = of_differences([[0.5, 0.7], [0.6]])
    assert (found.tested, found.verdict) == (None, "unknown")
    assert found.words == (
        "Over all detectors, nothing can be concluded about t0: that takes two of them with two seeds each, and noise "
        "to measure by."
    )


def test_the_interval_shows_what_the_verdict_says() -> None:
    (found,) = of_differences(drawn((0.0, 0.1), 8))
    assert found.verdict == "no difference as large as the gain" and found.tested is not None
    low, high = (100 * end for end in found.tested.inner)
    assert f"(90 % interval {low:+.2f} .. {high:+.2f}, p = " in found.words and high < 0.5
    assert any("90 % interval" in note for note in over_table([found], 0.005).notes)
    assert not any("90 %" in note for note in over_table(of_differences(drawn((1.5, 1.6), 8)), 0.005).notes)
    seen = 0
    for second in np.linspace(0.2, 0.6, 21):
        for each in of_differences(drawn((3.0, 3.0), 4), [[second + d for d in (0.4, -0.3, 0.2, -0.2)]] * 2):
            assert each.tested is not None
            low, high = each.tested.interval
            assert (each.tested.p < 0.05) == (not low < 0 < high)
            seen += low == 0
    assert seen, "Holm's second step shows some that Bonferroni's interval leaves open"
