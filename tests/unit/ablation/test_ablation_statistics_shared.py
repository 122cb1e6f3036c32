"""Noise that all arms share, and runs far from the rest, against statsmodels, scipy and simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from msbal.ablation.grid import Comparison
from msbal.ablation.statistics.blocks import Blocks, Run, make_blocks, residual_space
from msbal.ablation.statistics.conclude import Study, conclude
from msbal.ablation.statistics.conclusion import Conclusion
from msbal.ablation.statistics.odd import odd_runs
from msbal.ablation.statistics.samples import Paired, Summary, pair, summarize
from msbal.ablation.statistics.shared import Design, Shared, shared_tests
from msbal.ablation.statistics.words import method_text

GAIN = 0.005
Arms = dict[str, dict[int, float]]


def drawn(seed: int, arms: int = 5, seeds: int = 3, sd: float = 0.003, prefix: str = "") -> Arms:
    """Return runs without a difference between arms; what a seed shares is larger than the noise."""
    draw = np.random.default_rng(seed)
    values = 0.3 + draw.normal(0, 0.01, (seeds, 1)) + draw.normal(0, sd, (seeds, arms))
    return {
        f"{prefix}{arm}": dict(enumerate(values[:, i].tolist())) for i, arm in enumerate("abcdefghij"[:arms])
    }


def tables(arms: Arms, groups: Sequence[Sequence[str]]) -> tuple[dict[Comparison, Paired], Blocks]:
    runs = {arm: summarize(values) for arm, values in arms.items()}
    comparisons = [Comparison(arm, group[0]) for group in groups for arm in group[1:]]
    return {each: pair(runs[each.to], runs[each.arm]) for each in comparisons}, make_blocks(runs, groups)


def sharing(arms: Arms, *groups: Sequence[str]) -> Shared:
    found = shared_tests(*tables(arms, groups or [list(arms)]))
    assert found is not None
    return found


def said(arms: Arms, *contrasts: tuple[str, str], groups: Any = None) -> Mapping[str, Conclusion]:
    groups = groups or [list(arms)]
    runs: dict[str, Summary] = {arm: summarize(values) for arm, values in arms.items()}
    planned = [Comparison(arm, group[0]) for group in groups for arm in group[1:]]
    planned += [Comparison(*each) for each in contrasts]
    return {
        f"{c.comparison.arm}-{c.comparison.to}": c
        for c in conclude(Study(runs, planned, groups, GAIN)).values()
    }


def p_values(found: Shared) -> dict[str, float]:
    return {each.arm: test.p for each, test in found.tests.items()}


# The fit


@pytest.mark.parametrize("missing", [(), (("a", 0), ("c", 2), ("d", 3))])
def test_the_noise_is_that_of_the_two_way_fit_of_statsmodels(missing: tuple[tuple[str, int], ...]) -> None:
    regression = pytest.importorskip("statsmodels.regression.linear_model")
    arms = drawn(1, arms=4, seeds=5)
    for arm, seed in missing:
        del arms[arm][seed]
    blocks = make_blocks({arm: summarize(values) for arm, values in arms.items()}, [list(arms)])
    design = np.array([
        [run.arm == arm for arm in arms] + [run.seed == seed for seed in range(1, 5)] for run in blocks.values
    ], float)  # fmt: skip
    values = np.array(list(blocks.values.values()))
    fit = regression.OLS(values, design).fit()
    basis = residual_space(list(blocks.values))
    assert basis.shape[1] == fit.df_resid
    assert np.sum((values @ basis) ** 2) == pytest.approx(fit.ssr)


def test_arms_without_noise_of_their_own_do_not_make_it_look_smaller() -> None:
    arms = drawn(2, arms=4)
    plain = sharing(arms)
    twin = {**arms, "twin": dict(arms["b"])}
    shifted = {**arms, "shifted": {seed: value + 0.25 for seed, value in arms["c"].items()}}
    dead = {**arms, "dead": dict.fromkeys(range(3), 0.0)}
    for more in (twin, shifted, dead):
        found = sharing(more)
        for each, test in plain.tests.items():
            assert found.tests[each].sd == pytest.approx(test.sd)
            assert found.tests[each].degrees == test.degrees
    again = sharing(twin)
    assert p_values(again)["twin"] == p_values(again)["b"]
    assert again.tests[Comparison("twin", "a")].p == pytest.approx(
        plain.tests[Comparison("b", "a")].p, abs=0.005
    )
    # What cannot share the noise is tested by itself: a dead arm is far below.
    assert said(dead)["dead-a"].method == "paired" and said(dead)["dead-a"].verdict.startswith("worse")
    assert said(dead)["b-a"].method == "shared"


def test_to_be_the_same_run_as_the_baseline_is_no_comparison() -> None:
    arms = drawn(3, arms=4)
    found = said({**arms, "same": dict(arms["a"])})
    assert (found["same-a"].verdict, found["same-a"].tested) == ("the same", None)
    assert found["b-a"].method == "shared"


# The test


@pytest.mark.parametrize(("arms", "seeds", "critical"), [(5, 3, 3.02), (3, 6, 2.57), (5, 6, 2.65)])
def test_one_estimate_of_the_noise_gives_dunnetts_critical_values(
    arms: int, seeds: int, critical: float
) -> None:
    # Dunnett, "New tables for multiple comparisons with a control", 1964, two-sided 5 %.
    runs = tuple(Run("0", seed, str(arm)) for seed in range(seeds) for arm in range(arms))
    pairs = tuple(tuple((arms * seed + arm, arms * seed) for seed in range(seeds)) for arm in range(1, arms))
    design = Design(runs, pairs, ("0",) * (arms - 1), others=0)
    seen = design.statistics(np.random.default_rng(0).normal(0, 1, (100_000, len(runs))))
    t = np.abs(seen.mean / np.sqrt(2 * seen.noise / seeds)[:, None]).max(axis=1)
    assert np.quantile(t, 0.95) == pytest.approx(critical, abs=0.025)
    assert (seen.se >= np.sqrt(2 * seen.noise / seeds)[:, None] - 1e-12).all()


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(-0.02, 0.02))
def test_p_and_the_interval_agree(seed: int, effect: float) -> None:
    arms = drawn(seed, arms=4)
    arms["b"] = {s: value + effect for s, value in arms["b"].items()}
    for each, test in sharing(arms).tests.items():
        assert (test.p < 0.05) == (not test.interval[0] <= 0 <= test.interval[1])
        assert test.interval[0] < test.inner[0] < test.mean < test.inner[1] < test.interval[1]
        own = tables(arms, [list(arms)])[0][each]
        assert test.mean == own.mean and own.sd is not None and test.sd >= own.sd - 1e-12


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from((3, 5)), st.floats(-0.006, 0.006))
def test_from_five_pairs_on_a_claim_holds_by_the_pairs_themselves(
    seed: int, seeds: int, effect: float
) -> None:
    arms = drawn(seed, arms=4, seeds=seeds)
    arms["b"] = {s: value + effect for s, value in arms["b"].items()}
    pairs, blocks = tables(arms, [list(arms)])
    found = shared_tests(pairs, blocks)
    assert found is not None
    for each, test in found.tests.items():
        assert (test.p < 0.05) == (not test.interval[0] <= 0 <= test.interval[1])
        if seeds >= 5:
            own = stats.ttest_1samp(list(pairs[each].differences.values()), 0.0)
            wide, narrow = own.confidence_interval(0.95), own.confidence_interval(0.9)
            assert test.p >= own.pvalue
            assert test.interval[0] <= wide.low + 1e-12 and wide.high - 1e-12 <= test.interval[1]
            assert test.inner[0] <= narrow.low + 1e-12 and narrow.high - 1e-12 <= test.inner[1]


def test_three_seeds_claim_what_the_pairs_alone_leave_open_and_five_do_not() -> None:
    def p_of_both(seed: int, seeds: int, effect: float) -> tuple[float, float]:
        arms = drawn(seed, seeds=seeds)
        arms["b"] = {s: value + effect * 0.003 * 2**0.5 for s, value in arms["b"].items()}
        found = said(arms)["b-a"]
        assert found.tested is not None and found.paired.p is not None
        return found.tested.p, found.paired.p

    three = [p_of_both(seed, 3, 2.5) for seed in range(12)]
    five = [p_of_both(seed, 5, 1.5) for seed in range(12)]
    assert any(p < 0.05 < own for p, own in three)
    assert not any(p < 0.05 < own for p, own in five)
    assert any(p == own for p, own in five)


def test_two_seeds_share_no_noise() -> None:
    found = said(drawn(4, seeds=2))
    assert {each.method for each in found.values()} == {"paired"}
    assert all(each.noise_agrees is None for each in found.values())  # there is nothing to see by
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    expected = multitest.multipletests([each.paired.p for each in found.values()], method="holm")[1]
    assert [each.tested.p for each in found.values() if each.tested is not None] == pytest.approx(
        expected.tolist()
    )


def test_an_arm_with_two_runs_stands_for_itself_and_the_others_share_their_noise() -> None:
    arms = drawn(6, arms=4, seeds=5)
    arms["d"] = {s: arms["d"][s] for s in (0, 1)}
    found = said(arms)
    assert [found[each].method for each in ("b-a", "c-a", "d-a")] == ["shared", "shared", "paired"]
    alone = found["d-a"]
    assert alone.tested is not None and alone.paired.p is not None
    assert alone.tested.p == pytest.approx(min(1, 3 * alone.paired.p))


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_the_order_of_arms_and_seeds_is_nothing(seed: int, random: Any) -> None:
    arms = drawn(seed, arms=4)
    names = ["a", *random.sample("bcd", 3)]
    mixed = {arm: {s: arms[arm][s] for s in random.sample(range(3), 3)} for arm in names}
    assert sharing(mixed, names).tests == pytest.approx(sharing(arms).tests)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.lists(st.floats(-0.1, 0.1), min_size=3, max_size=3), st.floats(0.1, 2.0))
def test_what_a_seed_shares_and_the_unit_are_nothing(seed: int, shifts: list[float], scale: float) -> None:
    arms = drawn(seed, arms=4)
    moved = {
        arm: {s: scale * (value + shifts[s]) for s, value in values.items()} for arm, values in arms.items()
    }
    first, second = sharing(arms), sharing(moved)
    for each, test in first.tests.items():
        assert second.tests[each].p == pytest.approx(test.p, abs=1e-4)
        assert second.tests[each].interval == pytest.approx([scale * bound for bound in test.interval])
    assert second.agrees == pytest.approx(first.agrees, abs=1e-4)


def test_p_is_uniform_without_a_difference_and_three_seeds_of_five_arms_see_one() -> None:
    smallest, seen = [], 0
    for seed in range(80):
        arms = drawn(seed)
        smallest.append(min(p_values(sharing(arms)).values()))
        arms["b"] = {s: value + 2.5 * 0.003 * 2**0.5 for s, value in arms["b"].items()}
        seen += p_values(sharing(arms))["b"] < 0.05
    assert stats.kstest(smallest, "uniform").pvalue > 0.001
    assert seen / 80 > 0.82 - 0.13  # three standard errors


def test_planned_comparisons_without_a_result_count() -> None:
    arms = drawn(5, arms=4)
    arms["b"] = {s: value + 0.008 for s, value in arms["b"].items()}
    few, many = said(arms)["b-a"].tested, said({**arms, "late": {}, "later": {0: 0.3}})["b-a"].tested
    assert few is not None and many is not None
    assert many.p > few.p and many.interval[0] < few.interval[0]


def test_contrasts_share_the_noise_and_those_across_groups_do_not() -> None:
    arms = drawn(6, arms=3) | drawn(7, arms=2, prefix="x")
    found = said(arms, ("b", "c"), ("b", "xb"), groups=[["a", "b", "c"], ["xa", "xb"]])
    assert [found[each].method for each in ("b-a", "b-c", "xb-xa", "b-xb")] == ["shared"] * 3 + ["paired"]
    across = found["b-xb"]
    assert across.tested is not None and across.paired.p is not None
    assert across.tested.p == pytest.approx(min(1, 5 * across.paired.p))


def test_one_comparison_has_nothing_to_share_with() -> None:
    assert shared_tests(*tables(drawn(8, arms=2), [["a", "b"]])) is None


# The check


def test_arms_of_other_noise_are_tested_each_by_itself() -> None:
    arms = drawn(9, arms=4, seeds=6)
    arms["c"] = drawn(10, arms=4, seeds=6, sd=0.06)["c"]
    found = said(arms)
    assert {each.method for each in found.values()} == {"paired"}
    assert all(each.noise_agrees is not None and each.noise_agrees < 0.01 for each in found.values())
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    expected = multitest.multipletests([each.paired.p for each in found.values()], method="holm")[1]
    assert [each.tested.p for each in found.values() if each.tested is not None] == pytest.approx(
        expected.tolist()
    )


def test_the_check_of_equal_noise_is_right_where_it_is_equal() -> None:
    agrees = np.array([sharing(drawn(seed, arms=4, seeds=4)).agrees for seed in range(80)])
    assert stats.kstest(agrees, "uniform").pvalue > 0.001


def test_a_noisy_arm_is_not_made_certain_by_the_others() -> None:
    wrong = 0
    for seed in range(60):
        arms = drawn(seed, arms=5, seeds=5)
        noise = np.random.default_rng(seed + 500).normal(0, 0.008, 5)
        arms["b"] = {s: value + float(noise[s]) for s, value in arms["b"].items()}
        wrong += any(c.tested is not None and c.tested.p < 0.05 for c in said(arms).values())
    assert wrong / 60 < 0.17  # three standard errors above 6.8 %


# Runs far from the rest


def test_a_run_far_from_the_rest_is_named_and_left_out_of_a_second_mean() -> None:
    arms = drawn(11, arms=4, seeds=5)
    arms["b"][2] -= 0.06
    found = said(arms)
    assert found["b-a"].odd == {"b": (2,)}
    rest = [arms["b"][s] - arms["a"][s] for s in (0, 1, 3, 4)]
    assert found["b-a"].mean_without_odd == pytest.approx(np.mean(rest))
    assert found["c-a"].odd == {} and found["c-a"].mean_without_odd is None


def test_a_run_far_from_the_rest_is_said_to_widen_all_intervals() -> None:
    arms = drawn(11, arms=5, seeds=3)
    calm, _ = tables(arms, [list(arms)])
    arms["b"][1] += 0.024
    found = said(arms)
    assert found["b-a"].odd == {"b": (1,)} and found["c-a"].method == "shared"
    study = Study(
        {arm: summarize(values) for arm, values in arms.items()}, list(calm), [list(arms)], GAIN, looks=(3,)
    )
    notes = method_text(conclude(study), study)
    assert "What lies far from the rest (seed 1 of b) makes this noise larger, in all comparisons." in notes


def test_two_odd_runs_do_not_hide_each_other_and_an_odd_baseline_concerns_all() -> None:
    arms = drawn(12, arms=5, seeds=6)
    arms["a"][1] -= 0.08
    arms["d"][4] += 0.08
    found = said(arms)
    assert found["b-a"].odd == {"a": (1,)}
    assert found["d-a"].odd == {"d": (4,), "a": (1,)}


def test_of_two_arms_the_run_far_from_its_own_arm_is_odd() -> None:
    arms = {
        "a": {s: 0.30 + s / 1e4 for s in range(8)},
        "b": {s: 0.31 + s / 1e4 + (s % 3) / 1e3 for s in range(8)},
    }
    arms["b"][5] = 0.1
    runs = {arm: summarize(values) for arm, values in arms.items()}
    assert odd_runs(make_blocks(runs, [["a", "b"]])) == {"b": (5,)}


def test_studentised_residuals_are_those_of_statsmodels() -> None:
    pytest.importorskip("statsmodels")
    from statsmodels.regression.linear_model import OLS

    for seed, shift in ((13, 0.006), (14, 0.012), (15, 0.02), (16, 0.03)):
        arms = drawn(seed, arms=4, seeds=5)
        arms["c"][3] += shift
        runs = {arm: summarize(values) for arm, values in arms.items()}
        blocks = make_blocks(runs, [list(arms)])
        design = np.array([
            [run.arm == arm for arm in arms] + [run.seed == s for s in range(1, 5)] for run in blocks.values
        ], float)  # fmt: skip
        outliers = OLS(np.array(list(blocks.values.values())), design).fit().outlier_test("bonf")
        assert bool(odd_runs(blocks)) == bool(np.min(outliers[:, 2]) < 0.01)


def test_calm_runs_are_not_odd_and_few_cannot_be() -> None:
    odd = 0
    for seed in range(150):
        runs = {arm: summarize(values) for arm, values in drawn(seed, arms=4, seeds=4).items()}
        odd += bool(odd_runs(make_blocks(runs, [list(runs)])))
    assert odd <= 6
    few = {arm: summarize(values) for arm, values in drawn(0, arms=2, seeds=3).items()}
    assert odd_runs(make_blocks(few, [["a", "b"]])) == {}
