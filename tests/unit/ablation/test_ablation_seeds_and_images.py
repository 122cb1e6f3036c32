"""One interval over seeds and images: its variances, how often it holds the truth, the test it stands beside."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from msbal.ablation.grid import Comparison
from msbal.ablation.statistics.conclude import Study, conclude
from msbal.ablation.statistics.images import SeedsAndImages, seeds_and_images
from msbal.ablation.statistics.paired import paired_tests
from msbal.ablation.statistics.samples import pair, summarize

Array = NDArray[np.float64]
RLO = Comparison("rlo", "equal")


def drawn(values: Array, resamples: int = 300) -> list[Array]:
    """The mean of each seed's images, ``[n, I]``, on draws of them."""
    return list(values @ weights(values.shape[1], resamples))


@cache
def weights(images: int, resamples: int) -> Array:
    return np.random.default_rng(0).multinomial(images, [1 / images] * images, resamples).T / images


def found_in(values: Array, **more: int) -> SeedsAndImages:
    found = seeds_and_images(values.mean(axis=1).tolist(), drawn(values), values.shape[1], **more)
    assert found is not None
    return found


def test_the_variances_are_those_of_an_analysis_of_variance() -> None:
    draw = np.random.default_rng(1)
    n, images = 4, 60
    values = (
        draw.normal(0, 0.2, (n, 1)) + draw.normal(0, 1, (1, images)) + 0.5 * draw.normal(size=(n, images))
    )
    found = seeds_and_images(values.mean(axis=1).tolist(), drawn(values, 20_000), images)
    assert found is not None
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    of_rest = (rest**2).sum() / ((n - 1) * (images - 1))
    of_images = n * values.mean(axis=0).var(ddof=1)
    of_seeds = images * values.mean(axis=1).var(ddof=1)
    assert found.over_images == pytest.approx((of_images - of_rest) / (n * images), rel=0.03)
    assert found.seeds == pytest.approx(of_seeds / (of_seeds + of_images - of_rest), rel=0.03)


def old_interval(draws: list[Array], seed: int) -> tuple[float, float]:
    """Percentiles of the mean over seeds drawn with replacement, each on one draw of the images."""
    rng, matrix = np.random.default_rng(seed), np.stack(draws)
    chosen = rng.integers(0, len(matrix), (len(matrix), matrix.shape[1]))
    low, high = np.quantile(matrix[chosen, np.arange(matrix.shape[1])].mean(axis=0), [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize(
    ("seeds", "images", "share", "old_below"),
    [(2, 10, 0.1, 0.72), (2, 200, 0.7, 0.93), (3, 50, 0.2, 0.85), (8, 20, 0.5, 0.935)],
)
def test_the_interval_holds_the_truth_in_93_to_97_of_100_studies(
    seeds: int, images: int, share: float, old_below: float
) -> None:
    draw = np.random.default_rng([seeds, images])
    held, old = [], []
    for study in range(300):
        values = draw.normal(0, (share * images) ** 0.5, (1, images))
        values = values + draw.normal(0, ((1 - share) * seeds) ** 0.5, (seeds, 1))
        found = found_in(values)
        # The mean is a standard normal draw, independent of how far the interval reaches.
        held.append(1 - 2 * stats.norm.sf((found.high - found.low) / 2))
        low, high = old_interval(drawn(values), study)
        old.append(1 - 2 * stats.norm.sf((high - low) / 2))
    assert 0.925 < np.mean(held) < 0.975
    assert np.mean(old) < old_below


def test_what_cannot_be_known_has_no_interval() -> None:
    values = np.random.default_rng(3).normal(size=(3, 20))
    means, draws = values.mean(axis=1).tolist(), drawn(values, 100)
    assert seeds_and_images(means[:1], draws[:1], 20) is None, "one pair"
    assert seeds_and_images(means, draws, 1) is None, "one image"
    assert seeds_and_images([0.1] * 3, [np.full(100, 0.1)] * 3, 20) is None, "no noise"
    for undefined, whether in ((5, True), (6, False)):
        some = [each.copy() for each in draws]
        some[1][:undefined] = np.nan
        assert (seeds_and_images(means, some, 20) is not None) == whether


def test_more_comparisons_more_noise_and_few_images_make_it_wider() -> None:
    values = np.random.default_rng(4).normal(size=(3, 20)) + np.linspace(-2, 2, 20)
    one, four = found_in(values), found_in(values, planned=4)
    assert four.low < one.low < one.inner[0] < one.inner[1] < one.high < four.high
    means, draws = values.mean(axis=1).tolist(), drawn(values)
    few = seeds_and_images(means, draws, 4)
    assert few is not None and few.high > one.high


differences = st.lists(st.integers(-400, 400).map(lambda value: value / 1e4), min_size=2, max_size=8)


@settings(max_examples=60, deadline=None)
@given(differences, differences, st.floats(0, 1), st.integers(4, 500))
@example([0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0001], 0.125, 4)
def test_beside_a_test_it_says_the_same_without_noise_of_the_images_and_less_with_some(
    one: list[float], other: list[float], spread: float, degrees: int
) -> None:
    base = summarize(dict.fromkeys(range(8), 0.4))
    pairs = {
        Comparison(arm, "equal"): pair(base, summarize({s: 0.4 + d for s, d in enumerate(of)}))
        for arm, of in (("one", one), ("other", other))
    }
    for each, tested in paired_tests(pairs).items():
        n, count = pairs[each].n, len(pairs)
        alone = SeedsAndImages(0, 0, 1, (0, 0), 0.0, degrees).beside(tested, n, count)
        assert (alone.low, alone.high) == pytest.approx(tested.interval, abs=1e-12)
        assert alone.inner == pytest.approx(tested.inner, abs=1e-12)
        assert alone.seeds == 1 and alone.holds_zero == (tested.p >= 0.05)
        variance = (spread * tested.sd) ** 2
        found = SeedsAndImages(0, 0, 1, (0, 0), variance, degrees).beside(tested, n, count)
        assert found.seeds <= 1 and found.inner[0] >= found.low and found.inner[1] <= found.high
        if tested.degrees <= degrees:
            continue
        # A little noise of the images adds more degrees of freedom than width (Satterthwaite).
        slack = 0.02 * (alone.high - alone.low)
        assert found.low <= alone.low + slack and alone.high <= found.high + slack


def test_images_that_dominate_leave_the_difference_open() -> None:
    summaries = {
        "equal": summarize({0: 0.40, 1: 0.41, 2: 0.40, 3: 0.42}),
        "rlo": summarize({0: 0.42, 1: 0.431, 2: 0.419, 3: 0.44}),
    }
    for spread, open_ in ((0.0005, False), (0.02, True)):
        images = SeedsAndImages(0, 0, 0, (0, 0), spread**2, 49)
        study = Study(summaries, [RLO], [("equal", "rlo")], 0.005, (4,), {RLO: images}, seeds=(0, 1, 2, 3))
        found = conclude(study)[RLO]
        assert found.verdict == "better by at least the gain"
        assert found.images is not None and found.images.holds_zero == open_
        assert ("On these images only" in found.words) == open_
