"""Statistics against scipy's own, textbook values and simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from msbal.ablation.statistics import (
    bootstrap_interval,
    conclude,
    holm,
    pair,
    power,
    seeds_needed,
    summarize,
)


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


def test_no_spread_is_no_certainty() -> None:
    same = pair(summarize({0: 0.1, 1: 0.2}), summarize({0: 0.1, 1: 0.2}))
    assert same.identical and same.p == 1.0
    shifted = pair(summarize({0: 0.5, 1: 0.5}), summarize({0: 0.0, 1: 0.0}))
    assert not shifted.identical and shifted.p is None and shifted.sd == 0.0


def test_the_same_difference_on_two_seeds_proves_nothing() -> None:
    # AP of two images moves in steps: two seeds on the same step are no rare event.
    base, arm = summarize({0: 0.50, 1: 0.25}), summarize({0: 0.75, 1: 0.50})
    found = conclude({"base": base, "arm": arm}, "base", 0.005)["arm"]
    assert found.verdict == "unknown"
    assert "+25.00 points over 2 seeds, the same on each: no noise can be seen" in found.words


def test_holms_own_example() -> None:
    # Wright, "Adjusted p-values for simultaneous inference", Biometrics 1992, works the same way.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_none_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for p, q in zip(p_values, corrected, strict=True):
        assert q is not None and p <= q <= min(1.0, p * len(p_values)) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert all(
        a <= b for a, b in zip(np.array(corrected)[order], np.array(corrected)[order][1:], strict=False)
    )


def test_power_is_what_simulation_says() -> None:
    draw = np.random.default_rng(0)
    samples = draw.normal(0.8, 1.0, (20_000, 8))
    seen = (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()
    assert power(8, 0.8, 1.0) == pytest.approx(seen, abs=0.012)


def test_seeds_needed_are_the_textbooks_and_the_fewest() -> None:
    # Cohen's d = 0.5, two-sided 5 %, power 0.8: 34 pairs (G*Power, statsmodels).
    assert seeds_needed(0.5, 1.0) == 34
    assert seeds_needed(0.5, 1.0, comparisons=3) > 34
    assert power(34, 0.5, 1.0) >= 0.8 > power(33, 0.5, 1.0)
    assert seeds_needed(1e-6, 1.0) is None
    assert seeds_needed(10.0, 1e-3) == 2
    with pytest.raises(ValueError, match="gain"):
        seeds_needed(0, 1.0)


def test_identical_arms_are_within_noise() -> None:
    same = summarize({0: 0.31, 1: 0.33, 2: 0.30})
    found = conclude({"base": same, "same": same}, "base", 0.005)["same"]
    assert found.verdict == "within seed noise"
    assert "within seed noise" in found.words


def test_runs_that_learned_nothing_show_nothing() -> None:
    nothing = summarize({0: 0.0, 1: 0.0, 2: 0.0})
    found = conclude({"base": nothing, "arm": nothing}, "base", 0.005)["arm"]
    assert found.verdict == "unknown"
    assert "none has learned enough to compare" in found.words
    assert (found.p, found.paired.low, found.images) == (None, None, None)
    base, arm = summarize({0: 0.0, 1: 0.0, 2: 0.0}), summarize({0: 0.1, 1: 0.12, 2: 0.11})
    both = conclude({"base": base, "nothing": nothing, "arm": arm}, "base", 0.005)
    assert both["arm"].p == pytest.approx(both["arm"].paired.p)  # the only comparison


def test_a_broken_arm_is_worse_even_among_many() -> None:
    base = summarize({0: 0.31, 1: 0.33, 2: 0.30})
    broken = summarize({0: 0.0, 1: 0.001, 2: 0.0})
    noise = {f"noise {i}": summarize({0: 0.32, 1: 0.31, 2: 0.30 + i / 1000}) for i in range(3)}
    found = conclude({"base": base, "broken": broken, **noise}, "base", 0.005)
    assert found["broken"].verdict == "worse"
    assert "worse than base" in found["broken"].words
    assert {found[arm].verdict for arm in noise} == {"within seed noise"}
    assert "of which 3 pairs give only a rough idea" in found["noise 1"].words
    assert "seeds are needed" in found["noise 1"].words


def test_without_correction_it_would_have_been_better() -> None:
    base = summarize({0: 0.30, 1: 0.31, 2: 0.32, 3: 0.33})
    near = summarize({0: 0.310, 1: 0.317, 2: 0.334, 3: 0.336})
    alone = conclude({"base": base, "near": near}, "base", 0.005)["near"]
    many = conclude({"base": base, "near": near, **{f"a{i}": base for i in range(9)}}, "base", 0.005)["near"]
    assert alone.verdict == "better"
    assert many.verdict == "within seed noise"
    assert "corrected for 10 comparisons" in many.words
    assert "alone would be below 0.05" in many.words and "alone" not in alone.words


def test_one_seed_concludes_nothing() -> None:
    found = conclude({"base": summarize({0: 0.3}), "arm": summarize({0: 0.4})}, "base", 0.005)["arm"]
    assert found.verdict == "unknown" and "nothing can be concluded" in found.words
    found = conclude({"base": summarize({0: 0.3}), "arm": summarize({})}, "base", 0.005)["arm"]
    assert found.verdict == "unknown"


def test_seed_noise_alone_is_seldom_called_a_difference() -> None:
    draw = np.random.default_rng(1)
    wrong = 0
    for _ in range(300):
        base, *others = (summarize(dict(enumerate(draw.normal(0.3, 0.01, 3).tolist()))) for _ in range(3))
        wrong += any(p is not None and p < 0.05 for p in holm([pair(base, other).p for other in others]))
    assert wrong / 300 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_the_bootstrap_draws_seeds_and_images() -> None:
    draw = np.random.default_rng(2)
    images = draw.normal(0, 0.01, 2000)  # the same draw of images moves both runs alike
    base = [0.3 + images for _ in range(8)]
    shifts = draw.normal(0, 0.01, 8)
    arm = [0.32 + images + shift for shift in shifts]
    low, high = bootstrap_interval(base, arm) or (0, 0)
    assert low < 0.02 + shifts.mean() < high
    # The mean's spread over resamples: the plug-in standard deviation by the root of n.
    assert high - low == pytest.approx(2 * 1.96 * shifts.std() / math.sqrt(8), rel=0.15)
    assert bootstrap_interval(base, arm) == (low, high)
    exact = bootstrap_interval(base, [0.32 + images for _ in range(8)])
    assert exact == pytest.approx((0.02, 0.02))
    assert bootstrap_interval(base[:1], arm[:1]) is None
    assert bootstrap_interval(base[:2], [np.full(2000, np.nan)] * 2) is None
    with pytest.raises(ValueError, match="pairs"):
        bootstrap_interval(base, arm[:2])


def test_other_images_are_mentioned_where_they_could_turn_it() -> None:
    base = summarize({0: 0.30, 1: 0.31, 2: 0.32})
    arm = summarize({0: 0.32, 1: 0.3301, 2: 0.34})
    found = conclude({"base": base, "arm": arm}, "base", 0.005, {"arm": (-0.01, 0.05)})["arm"]
    assert found.verdict == "better"
    assert "With other images too it could be otherwise" in found.words


metrics = st.floats(0, 1).map(lambda value: round(value, 4))
pairs = st.integers(2, 8).flatmap(
    lambda n: st.tuples(st.lists(metrics, min_size=n, max_size=n), st.lists(metrics, min_size=n, max_size=n))
)
OPPOSITE = {"better": "worse", "worse": "better"}


@given(pairs)
def test_to_swap_arm_and_baseline_turns_the_sign_and_nothing_else(both: tuple[list[float], ...]) -> None:
    one, other = (summarize(dict(enumerate(values))) for values in both)
    there = conclude({"one": one, "other": other}, "one", 0.005)["other"]
    back = conclude({"one": one, "other": other}, "other", 0.005)["one"]
    assert back.verdict == OPPOSITE.get(there.verdict, there.verdict)
    assert (back.p, back.seeds_needed) == (pytest.approx(there.p), there.seeds_needed)
    assert back.paired.mean == pytest.approx(-there.paired.mean)  # type: ignore[operator]
    if there.paired.low is not None:
        assert (back.paired.low, back.paired.high) == (
            pytest.approx(-there.paired.high), pytest.approx(-there.paired.low)  # type: ignore[operator]
        )  # fmt: skip


@given(st.lists(metrics, min_size=1, max_size=8), st.integers(1, 5))
def test_identical_arms_are_never_different(values: list[float], arms: int) -> None:
    same = summarize(dict(enumerate(values)))
    found = conclude({f"arm {i}": same for i in range(arms + 1)}, "arm 0", 0.005)
    expected = "within seed noise" if len(values) > 1 and any(values) else "unknown"
    assert {conclusion.verdict for conclusion in found.values()} == {expected}


@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_seeds_and_arms_is_nothing(both: tuple[list[float], ...], random: Any) -> None:
    arms = {name: dict(enumerate(values)) for name, values in zip(("base", "arm"), both, strict=True)}
    arms["third"] = {seed: 1 - value for seed, value in arms["arm"].items()}
    first = conclude({arm: summarize(values) for arm, values in arms.items()}, "base", 0.005)
    shuffled = {}
    for arm in random.sample(sorted(arms), len(arms)):
        seeds = random.sample(sorted(arms[arm]), len(arms[arm]))
        shuffled[arm] = summarize({seed: arms[arm][seed] for seed in seeds})
    second = conclude(shuffled, "base", 0.005)
    for arm, conclusion in first.items():
        assert second[arm].verdict == conclusion.verdict
        assert second[arm].p == pytest.approx(conclusion.p)


@given(pairs)
def test_a_verdict_needs_an_interval_without_zero(both: tuple[list[float], ...]) -> None:
    one, other = (summarize(dict(enumerate(values))) for values in both)
    found = conclude({"one": one, "other": other}, "one", 0.005)["other"]
    if found.verdict in OPPOSITE:
        assert found.paired.low is not None and found.paired.high is not None
        assert found.paired.low > 0 or found.paired.high < 0
        assert found.paired.n > 1 and found.p is not None and found.p < 0.05
    assert found.words.count("%") == 0 or "95 % interval" in found.words


@given(st.integers(2, 60), st.floats(0.001, 0.2), st.floats(0.001, 0.2))
def test_more_seeds_and_less_noise_see_more(seeds: int, gain: float, sd: float) -> None:
    assert power(seeds + 1, gain, sd) >= power(seeds, gain, sd) - 1e-6
    assert power(seeds, gain, sd / 2) >= power(seeds, gain, sd) - 1e-6
    assert 0 <= power(seeds, gain, sd) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("seeds", "verdict", "said"),
    [
        (1, "unknown", "over 1 seed; one pair shows no noise"),
        (2, "within seed noise", "of which 2 pairs give only a rough idea"),
        (3, "within seed noise", "of which 3 pairs give only a rough idea"),
        (12, "better", "better than base, +1.00 points over 12 seeds"),
    ],
)
def test_the_same_gain_and_noise_over_more_and_more_seeds(seeds: int, verdict: str, said: str) -> None:
    base = summarize({seed: 0.3 + (seed % 3) / 100 for seed in range(seeds)})
    noise = [0.006, -0.006] * (seeds // 2) + ([0.0] if seeds % 2 else [])
    arm = summarize({seed: base.values[seed] + 0.01 + noise[seed] for seed in range(seeds)})
    found = conclude({"base": base, "arm": arm}, "base", 0.005)["arm"]
    assert found.verdict == verdict
    assert said in found.words
