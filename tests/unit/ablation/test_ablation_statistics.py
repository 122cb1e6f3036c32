"""Pairs, tests, verdicts and power, against scipy, statsmodels, textbook values and simulation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from msbal.ablation.grid import Comparison
from msbal.ablation.statistics import conclusion
from msbal.ablation.statistics.conclude import Study, conclude
from msbal.ablation.statistics.conclusion import Conclusion, verdict
from msbal.ablation.statistics.paired import holm, paired_tests, single_step
from msbal.ablation.statistics.power import gain_seen, noise_interval, power, seeds_needed, seeds_to_tell
from msbal.ablation.statistics.samples import pair, summarize

GAIN = 0.005
Runs = Sequence[float] | Mapping[int, float]


def said(arms: Mapping[str, Runs], *contrasts: tuple[str, str], **study: Any) -> dict[str, Conclusion]:
    """Return the conclusions on all arms against the first, by the arm's name, and the contrasts as ``a-b``."""
    runs = {
        arm: summarize(dict(runs if isinstance(runs, Mapping) else enumerate(runs)))
        for arm, runs in arms.items()
    }
    base, *others = runs
    comparisons = [Comparison(arm, base) for arm in others] + [Comparison(*each) for each in contrasts]
    found = conclude(Study(runs, comparisons, [list(runs)], GAIN, **study))
    return {each.arm if each.to == base else f"{each.arm}-{each.to}": c for each, c in found.items()}


# Samples and pairs


def test_mean_sd_and_n_leave_out_what_is_undefined() -> None:
    found = summarize({0: 0.2, 1: None, 2: 0.4})
    assert (found.n, found.mean) == (2, pytest.approx(0.3))
    assert found.sd == pytest.approx(math.sqrt(0.02))
    assert summarize({0: 0.2}).sd is None
    assert summarize({}).mean is None


def test_pairs_are_scipys_related_t_test() -> None:
    base, arm = [0.30, 0.32, 0.35, 0.31], [0.33, 0.36, 0.36, 0.35]
    found = pair(summarize(dict(enumerate(base))), summarize(dict(enumerate(arm))))
    test = stats.ttest_rel(arm, base)
    bounds = test.confidence_interval(0.95)
    assert found.p == pytest.approx(test.pvalue)
    assert (found.low, found.high) == (pytest.approx(bounds.low), pytest.approx(bounds.high))
    assert found.mean == pytest.approx(0.03)


def test_only_seeds_that_both_have_are_paired() -> None:
    found = pair(summarize({0: 0.1, 1: 0.2}), summarize({1: 0.3, 2: 0.9}))
    assert found.differences == {1: pytest.approx(0.1)}
    assert found.p is None and found.mean == pytest.approx(0.1)
    assert pair(summarize({0: 0.1}), summarize({1: 0.3})).mean is None


# Correction for several comparisons


def test_holm_is_that_of_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    draw = np.random.default_rng(0)
    for count in range(1, 9):
        p_values = (draw.random(count) ** 3).tolist()
        assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1].tolist())


def test_a_planned_comparison_without_a_result_counts() -> None:
    assert holm([0.01, None, 0.03]) == pytest.approx([0.03, None, 0.06])
    assert holm([]) == []


def test_intervals_beside_corrected_p_are_bonferronis() -> None:
    base = summarize({0: 0.30, 1: 0.31, 2: 0.32, 3: 0.33})
    arms = [summarize({seed: base.values[seed] + d for seed, d in enumerate(found)}) for found in (
        (0.001, 0.003, 0.002, 0.001), (-0.004, 0.003, 0.001, -0.002), (0.002, 0.009, 0.004, 0.001)
    )]  # fmt: skip
    pairs = {Comparison(str(i), "base"): pair(base, arm) for i, arm in enumerate(arms)}
    for each, tested in paired_tests(pairs).items():
        values = list(pairs[each].differences.values())
        for interval, confidence in ((tested.interval, 1 - 0.05 / 3), (tested.inner, 1 - 0.10 / 3)):
            bounds = stats.ttest_1samp(values, 0).confidence_interval(confidence)
            assert interval == (pytest.approx(bounds.low), pytest.approx(bounds.high))


def test_an_interval_does_not_contradict_holm() -> None:
    base = summarize(dict.fromkeys(range(5), 0.3))
    clear = pair(
        base, summarize({seed: 0.3 + d for seed, d in enumerate((0.0099, 0.0101, 0.01, 0.01, 0.0099))})
    )
    near = pair(
        base, summarize({seed: 0.3 + d for seed, d in enumerate((0.004, 0.012, 0.008, 0.003, 0.013))})
    )
    assert near.p is not None
    level = (
        2.1 * near.p
    )  # where Holm's second step, times 2, shows a difference, and Bonferroni, times 3, does not
    found = paired_tests({Comparison(str(i), "base"): near if i else clear for i in range(3)}, level)
    bonferroni = single_step(near, 3, level)
    assert bonferroni is not None and bonferroni.p > level and bonferroni.interval[0] < 0
    assert all(tested.p < level and tested.interval[0] >= 0 for tested in found.values())


# Verdicts


@pytest.mark.parametrize(
    ("p", "interval", "inner", "expected"),
    [
        (0.01, (0.006, 0.010), (0.0065, 0.0095), "better by at least the gain"),
        (0.01, (0.002, 0.010), (0.003, 0.009), "better"),
        (0.01, (0.001, 0.0052), (0.0015, 0.0047), "better by less than the gain"),
        (1e-9, (0.00002, 0.00004), (0.000021, 0.000039), "better by less than the gain"),
        (0.30, (-0.003, 0.0052), (-0.002, 0.0049), "no difference as large as the gain"),
        (0.30, (-0.009, 0.0052), (-0.008, 0.0049), "no gain"),
        (0.30, (-0.009, 0.008), (-0.008, 0.007), "cannot tell yet"),
        (0.30, (-0.002, 0.008), (-0.001, 0.007), "cannot tell yet"),
        (0.01, (-0.0052, -0.001), (-0.0047, -0.0015), "worse by less than the gain"),
        (0.01, (-0.010, -0.002), (-0.009, -0.003), "worse"),
        (0.01, (-0.010, -0.006), (-0.0095, -0.0065), "worse by at least the gain"),
    ],
)  # fmt: skip
def test_the_gain_decides_the_words(
    p: float, interval: tuple[float, float], inner: tuple[float, float], expected: str
) -> None:
    mean = sum(interval) / 2
    assert verdict(conclusion.Tested(mean, 0.003, 4, p, interval, inner), GAIN) == expected


@pytest.mark.parametrize(("seeds", "share"), [(3, 0.40), (5, 0.84), (10, 0.99)])
def test_no_difference_can_be_said_and_is_seldom_wrong(seeds: int, share: float) -> None:
    studies = 2000
    noise = np.random.default_rng(seeds).normal(0, 0.003, (studies, seeds))
    reach = stats.t.isf(0.05, seeds - 1) * noise.std(axis=1, ddof=1) / math.sqrt(seeds)
    means = noise.mean(axis=1)

    def within(true: float) -> Any:
        return (true + means + reach < GAIN) & (true + means - reach > -GAIN)

    assert within(0.0).mean() > share - 0.03
    assert within(GAIN).mean() < 0.05 + 0.015  # of all differences that matter, the one most often overlooked
    # What is simulated above is what is said.
    for row, expected in enumerate(within(0.0)[:40]):
        found = said({"base": [0.3] * seeds, "arm": (0.3 + noise[row]).tolist()})["arm"]
        assert expected == (found.verdict in {
            "no difference as large as the gain", "better by less than the gain", "worse by less than the gain"
        })  # fmt: skip


# What cannot be concluded


def test_the_same_runs_are_a_fact_and_no_finding() -> None:
    found = said({"base": [0.31, 0.33, 0.30], "same": [0.31, 0.33, 0.30]})["same"]
    assert (found.verdict, found.tested, found.seeds_needed) == ("the same", None, None)
    assert found.paired.identical and found.paired.p == 1.0


def test_the_same_difference_on_every_seed_proves_nothing() -> None:
    # AP of two images moves in steps: two seeds on the same step are no rare event.
    found = said({"base": [0.50, 0.25], "arm": [0.75, 0.50]})["arm"]
    assert (found.verdict, found.reason, found.tested) == ("unknown", "no noise", None)


@pytest.mark.parametrize("arm", [[0.0] * 3, [0.1, 0.12, 0.11]])
def test_a_baseline_that_learned_nothing_concludes_nothing(arm: list[float]) -> None:
    found = said({"base": [0.0] * 3, "arm": arm})["arm"]
    assert (found.verdict, found.reason) == ("unknown", "nothing learned")
    assert (found.tested, found.paired.p, found.paired.low, found.seeds_needed) == (None,) * 4


@pytest.mark.parametrize(
    ("arm", "reason"), [({0: 0.4}, "one pair"), ({}, "no pair"), ({7: 0.4, 8: 0.4}, "no pair")]
)
def test_fewer_than_two_pairs_conclude_nothing(arm: dict[int, float], reason: str) -> None:
    found = said({"base": {0: 0.3, 1: 0.31}, "arm": arm})["arm"]
    assert (found.verdict, found.reason, found.tested) == ("unknown", reason, None)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.integers(1, 3))
def test_identical_arms_are_never_different(values: list[float], arms: int) -> None:
    found = said({f"arm {i}": values for i in range(arms + 1)})
    assert {each.verdict for each in found.values()} == {"the same" if any(values) else "unknown"}


# One arm and a baseline


metrics = st.floats(0, 1).map(lambda value: round(value, 4))
pairs = st.integers(2, 8).flatmap(
    lambda n: st.tuples(st.lists(metrics, min_size=n, max_size=n), st.lists(metrics, min_size=n, max_size=n))
)


def turned(text: str) -> str:
    return {"better": "worse", "worse": "better"}.get(text.split()[0], text.split()[0])


@given(pairs)
def test_one_arm_is_students_t_and_to_swap_it_turns_the_sign(both: tuple[list[float], ...]) -> None:
    one, other = both
    there, back = said({"one": one, "other": other})["other"], said({"other": other, "one": one})["one"]
    if there.tested is not None and back.tested is not None:
        assert there.method == "paired"
        assert there.tested.p == there.paired.p and there.tested.interval == (
            pytest.approx(there.paired.low), pytest.approx(there.paired.high)
        )  # fmt: skip
        assert (there.tested.p < 0.05) == (not there.tested.interval[0] <= 0 <= there.tested.interval[1])
        assert back.tested.p == pytest.approx(there.tested.p)
        if "gain" not in (there.verdict + back.verdict):
            assert back.verdict.split()[0] == turned(there.verdict)
        assert there.better_on + back.better_on <= there.paired.n
    for found in (there, back):
        assert found.seeds_needed is None or found.seeds_needed > found.paired.n


def test_seed_noise_alone_is_seldom_called_a_difference() -> None:
    draw = np.random.default_rng(1)
    wrong = 0
    for _ in range(100):
        runs = {name: draw.normal(0.3, 0.01, 3).tolist() for name in ("base", "one", "two")}
        wrong += any(c.tested is not None and c.tested.p < 0.05 for c in said(runs).values())
    assert wrong / 100 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100)


def test_a_broken_arm_is_worse_even_among_many() -> None:
    base = [0.31, 0.33, 0.30]
    noise = {f"noise {i}": [0.32, 0.31, 0.30 + i / 1000] for i in range(3)}
    found = said({"base": base, "broken": [0.0, 0.001, 0.0], **noise})
    assert found["broken"].verdict.startswith("worse")
    assert {found[arm].verdict for arm in noise} == {"cannot tell yet"}


def test_missing_runs_are_counted_out_of_the_pairs() -> None:
    found = said(
        {"base": {0: 0.3, 1: 0.31, 2: 0.30}, "arm": {0: 0.31, 1: 0.33, 5: 0.4}}, crashed={"arm": (2,)}
    )["arm"]
    assert (found.paired.n, found.better_on, found.unpaired, found.crashed) == (2, 2, (2, 5), {"arm": (2,)})


# Power


@pytest.mark.parametrize(("seeds", "effect"), [(2, 3.0), (3, 1.5), (8, 0.8), (34, 0.5)])
def test_power_is_that_of_statsmodels(seeds: int, effect: float) -> None:
    reference = pytest.importorskip("statsmodels.stats.power").TTestPower()
    assert power(seeds, effect, 1.0) == pytest.approx(reference.power(effect, seeds, 0.05), abs=1e-6)


def test_power_with_shared_noise_has_more_degrees_of_freedom() -> None:
    draw = np.random.default_rng(0)
    noise = np.sqrt(draw.chisquare(8, 40_000) / 8)
    t = (draw.normal(0, 1, 40_000) + 2.5 * math.sqrt(3)) / noise
    assert power(3, 2.5, 1.0, 0.0125, rows=4) == pytest.approx(np.mean(t > stats.t.isf(0.00625, 8)), abs=0.01)


def test_seeds_needed_are_the_textbooks_and_the_fewest() -> None:
    # Cohen's d = 0.5, two-sided 5 %, power 0.8: 34 pairs (G*Power, statsmodels).
    assert seeds_needed(0.5, 1.0) == 34
    assert (seeds_needed(0.5, 1.0, comparisons=3) or 0) > 34
    assert power(34, 0.5, 1.0) >= 0.8 > power(33, 0.5, 1.0)
    assert seeds_needed(1e-6, 1.0) is None
    assert seeds_needed(10.0, 1e-3) == 2
    with pytest.raises(ValueError, match="gain"):
        seeds_needed(0, 1.0)


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("seeds", [2, 3, 8, 40])
def test_the_gain_seen_has_the_power_that_is_said(seeds: int, rows: int) -> None:
    found = gain_seen(seeds, 0.003, comparisons=4, rows=rows)
    assert found is not None
    assert power(seeds, found, 0.003, 0.05 / 4, rows) == pytest.approx(0.8, abs=1e-3)
    assert seeds_needed(1.001 * found, 0.003, 4, rows) == seeds
    assert gain_seen(1, 0.003) is None and gain_seen(3, 0.0) == 0.0


@given(st.integers(2, 60), st.floats(0.001, 0.2), st.floats(0.001, 0.2))
def test_more_seeds_and_less_noise_see_more(seeds: int, gain: float, sd: float) -> None:
    assert power(seeds + 1, gain, sd) >= power(seeds, gain, sd) - 1e-6
    assert power(seeds, gain, sd / 2) >= power(seeds, gain, sd) - 1e-6
    assert 0 <= power(seeds, gain, sd) <= 1 + 1e-9


@pytest.mark.parametrize("seen", [-0.004, 0.0, 0.0025, 0.005, 0.007])
def test_the_seeds_that_tell_do_in_four_of_five(seen: float) -> None:
    sd, done = 0.006, 5
    needed = seeds_to_tell(GAIN, sd, seen, done)
    assert needed is not None and needed > done
    draw = np.random.default_rng(3)
    for seeds, enough in ((needed, True), (needed - 1, False)):
        if seeds == done:
            continue
        # The truth, given what was seen; then the runs to come.
        true = draw.normal(seen, sd / math.sqrt(done), 20_000)
        later = draw.normal(true, sd / math.sqrt(seeds - done))
        mean = (done * seen + (seeds - done) * later) / seeds
        outer, inner = (stats.t.isf(tail, seeds - 1) * sd / math.sqrt(seeds) for tail in (0.025, 0.05))
        told = np.mean((np.abs(mean) > outer) | (mean + inner < GAIN))
        assert told > 0.79 if enough else told < 0.81


@given(
    st.floats(0.001, 0.05),
    st.floats(-0.1, 0.1),
    st.integers(2, 30),
    st.integers(1, 6),
    st.sampled_from([1, 2, 5]),
)
def test_more_seeds_are_needed_than_there_are(
    sd: float, seen: float, done: int, comparisons: int, rows: int
) -> None:
    needed = seeds_to_tell(GAIN, sd, seen, done, comparisons, rows)
    assert needed is None or needed > done
    # Once the interval is shorter than the gain, no mean leaves the question open.
    certain = (2 * 4.5 * sd / GAIN) ** 2 + 100
    assert needed is None or needed <= max(done + 1, certain)


def test_an_open_question_says_what_would_tell_and_an_answered_one_does_not() -> None:
    noise = (0.006, -0.006, 0.002, -0.004, 0.005, -0.003, 0.001, -0.001)
    found = said({"base": [0.3] * 8, "arm": [0.3 + 0.0025 + d for d in noise]})["arm"]
    assert (
        found.verdict == "cannot tell yet"
        and found.seeds_needed is not None
        and found.needed_range is not None
    )
    low, high = found.needed_range
    assert low is not None and high is not None and 8 < low <= found.seeds_needed <= high
    found = said({"base": [0.3] * 8, "arm": [0.3 + 0.02 + d for d in noise]})["arm"]
    assert found.verdict.startswith("better") and (found.seeds_needed, found.needed_range) == (None, None)


def test_the_interval_of_the_noise_covers_it_as_often_as_is_said() -> None:
    sample = np.random.default_rng(4).normal(0, 1, (5000, 4)).std(axis=1, ddof=1)
    low, high = noise_interval(1.0, 3)
    assert np.mean((low * sample < 1) & (high * sample > 1)) == pytest.approx(0.8, abs=0.02)
