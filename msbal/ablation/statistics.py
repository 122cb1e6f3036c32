"""Draw conclusions from arms x seeds.

Runs of one seed share initial weights, data order and augmentation, so arms are compared in pairs. The verdict rests on
Student's t for paired samples over the seeds (scipy), with Holm's correction for the number of arms. The seeds are the
sample: with few of them the interval is wide, as it should be.

Metrics are in 0..1 throughout. n seeds, A arms.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Verdict = Literal["baseline", "better", "worse", "within seed noise", "unknown"]
MAX_SEEDS = 10_000
FAR = 30.0  # the noncentrality beyond which only the chi in t matters
FEW_PAIRS = 6  # below, the 95 % interval of a standard deviation is wider than a factor of four
EXACT = 1e-12  # smaller differences count as none


@dataclass(frozen=True)
class Summary:
    """One metric of one arm.

    Attributes:
        values: by seed, if the metric is defined.
        mean, sd: those of the sample; sd is None for one run, both are None for none.
    """

    values: Mapping[int, float]
    mean: float | None
    sd: float | None

    @property
    def n(self) -> int:
        """Runs."""
        return len(self.values)


@dataclass(frozen=True)
class Paired:
    """An arm minus its baseline, over the seeds that both have.

    Attributes:
        differences: by seed.
        mean: None without a pair.
        sd: of the differences; None for fewer than two pairs.
        low, high: the t interval of their mean; p: two-sided, for no difference. None if the differences show
            no noise: fewer than two, or all the same and not zero.
    """

    differences: Mapping[int, float]
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def n(self) -> int:
        """Pairs."""
        return len(self.differences)

    @property
    def identical(self) -> bool:
        """Whether every pair is equal to the last digit."""
        return bool(self.differences) and all(abs(d) <= EXACT for d in self.differences.values())


@dataclass(frozen=True)
class Conclusion:
    """One arm against the baseline, in one metric.

    Attributes:
        p: corrected for the number of arms; None if it cannot be computed.
        images: the bootstrap's interval over seeds and images, if there is one.
        seeds_needed: how many show the wanted gain in four of five ablations; None if unknown.
        words: one sentence.
    """

    arm: str
    paired: Paired
    verdict: Verdict
    p: float | None
    words: str
    seeds_needed: int | None = None
    images: tuple[float, float] | None = None


def summarize(values: Mapping[int, float | None]) -> Summary:
    """Return the mean and standard deviation of the runs whose metric is defined."""
    there = {seed: value for seed, value in values.items() if value is not None}
    return Summary(
        there,
        statistics.fmean(there.values()) if there else None,
        statistics.stdev(there.values()) if len(there) > 1 else None,
    )


def pair(baseline: Summary, arm: Summary, confidence: float = 0.95) -> Paired:
    """Return the differences between an arm and its baseline, with `scipy.stats.ttest_1samp` of them."""
    differences = {
        seed: arm.values[seed] - baseline.values[seed] for seed in arm.values if seed in baseline.values
    }
    if not differences:
        return Paired({})
    values = list(differences.values())
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Paired(differences, mean)
    spread = statistics.stdev(values)
    if spread <= EXACT:
        # Identical settings give differences of zero. Others may give equal differences by chance, since metrics
        # of few images move in steps: t would be infinite, and two seeds enough for certainty.
        same = abs(mean) <= EXACT
        return Paired(differences, mean, 0.0, *((mean, mean, 1.0) if same else (None, None, None)))
    test = stats.ttest_1samp(values, 0.0)
    bounds = test.confidence_interval(confidence)
    return Paired(differences, mean, spread, float(bounds.low), float(bounds.high), float(test.pvalue))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return corrected p-values by Holm, "A simple sequentially rejective multiple test procedure", 1979.

    scipy has no such function (``false_discovery_control`` bounds another error). None stays None and does not
    count.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        corrected[i] = highest
    return corrected


def power(seeds: int, gain: float, sd: float, level: float = 0.05) -> float:
    """Return the probability that a paired t-test over `seeds` sees a true `gain`.

    It uses the noncentral t distribution (`scipy.stats.nct`), as in Cohen, "Statistical power analysis for the
    behavioral sciences", 1988, chapter 2.

    Args:
        sd: that of the differences between pairs.
        level: two-sided.
    """
    if seeds < 2:
        return 0.0
    if sd <= EXACT:
        return 1.0
    degrees = seeds - 1
    critical = stats.t.isf(level / 2, degrees)
    shift = abs(gain) / sd * math.sqrt(seeds)
    if shift < FAR:
        seen = float(stats.nct.sf(critical, degrees, shift) + stats.nct.cdf(-critical, degrees, shift))
        if not math.isnan(seen):
            return seen
    # Far out only the chi in t matters, not its normal part, and scipy's nct gives NaN or takes minutes.
    return float(stats.chi2.cdf(degrees * (shift / critical) ** 2, degrees))


def seeds_needed(
    gain: float, sd: float, comparisons: int = 1, level: float = 0.05, wanted: float = 0.8
) -> int | None:
    """Return the fewest seeds that show a true `gain` with probability `wanted`.

    Args:
        sd: that of the differences between pairs, itself only an estimate.
        comparisons: how many arms are compared; the level is divided by it, a little stricter than Holm.

    Returns:
        None if more than 10,000 are needed.
    """
    if gain <= 0:
        raise ValueError(f"Parameter `gain` should be positive. Found {gain}.")
    level /= max(1, comparisons)
    if power(MAX_SEEDS, gain, sd, level) < wanted:
        return None
    low, high = 1, MAX_SEEDS  # power grows with the seeds: halve the range
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, gain, sd, level) >= wanted else (middle, high)
    return high


def bootstrap_interval(
    baseline: Sequence[NDArray[np.float64]],
    arm: Sequence[NDArray[np.float64]],
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float] | None:
    """A percentile interval of the mean difference, both seeds and images drawn anew.

    Each resample draws the images (the same draw for every run: `msbal.evaluation.bootstrap.resampled`) and,
    with replacement, the pairs of runs. With few seeds it is too narrow, by about sqrt((n - 1) / n): the t
    interval is the one to go by, this one tells whether other images could have turned the difference.

    Args:
        baseline, arm: n arrays ``[R]`` each, the metric on the same draws, in the order of the seeds.

    Returns:
        None for fewer than two pairs, or where more than one draw in twenty is undefined.
    """
    if len(baseline) != len(arm):
        raise ValueError(f"Parameters should be pairs. Found {len(baseline)} and {len(arm)} runs.")
    if len(arm) < 2:
        return None
    differences = np.stack(arm) - np.stack(baseline)  # [n, R]
    pairs, resamples = differences.shape
    draw = np.random.Generator(np.random.Philox(key=[seed, resamples]))
    chosen = draw.integers(0, pairs, (pairs, resamples))
    means = np.take_along_axis(differences, chosen, axis=0).mean(axis=0)
    means = means[~np.isnan(means)]
    if len(means) < 0.95 * resamples or not len(means):
        return None
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return low, high


def conclude(
    summaries: Mapping[str, Summary],
    baseline: str | Mapping[str, str],
    gain: float,
    images: Mapping[str, tuple[float, float] | None] | None = None,
    level: float = 0.05,
) -> dict[str, Conclusion]:
    """Return the conclusion on every arm that is not a baseline.

    Args:
        summaries: one metric, by arm.
        baseline: that of all arms, or of each. The correction is for all comparisons together.
        gain: the difference worth seeing, for `seeds_needed`.
        images: by arm, `bootstrap_interval`.
    """
    of = dict.fromkeys(summaries, baseline) if isinstance(baseline, str) else baseline
    others = [arm for arm in summaries if of[arm] != arm]
    pairs = {arm: pair(summaries[of[arm]], summaries[arm], 1 - level) for arm in others}
    # Metrics that are all 0 do not show agreement: they get no interval and count as no comparison.
    blank = {arm for arm in others if pairs[arm].identical and not any(summaries[arm].values.values())}
    pairs |= {arm: replace(pairs[arm], low=None, high=None, p=None) for arm in blank}
    corrected = dict(zip(others, holm([pairs[arm].p for arm in others]), strict=True))
    found = {}
    for arm in others:
        paired, p = pairs[arm], corrected[arm]
        needed = (
            seeds_needed(gain, paired.sd, len(others), level)
            if paired.sd is not None and paired.sd > EXACT
            else None
        )
        bounds = None if arm in blank else (images or {}).get(arm)
        verdict = _verdict(paired, p, level)
        tested = sum(p is not None for p in corrected.values())
        words = _words(arm, of[arm], paired, p, verdict, bounds, gain, needed, tested, level)
        if arm in blank:
            words = f"{arm}: as with {of[arm]}, every run's metric is 0: none has learned enough to compare."
        found[arm] = Conclusion(arm, paired, verdict, p, words, needed, bounds)
    return found


def _verdict(paired: Paired, p: float | None, level: float) -> Verdict:
    if paired.mean is None or p is None:
        return "unknown"  # no pair, or no noise to measure the difference against
    if p >= level:
        return "within seed noise"
    return "better" if paired.mean > 0 else "worse"


def _words(
    arm: str,
    baseline: str,
    paired: Paired,
    p: float | None,
    verdict: Verdict,
    images: tuple[float, float] | None,
    gain: float,
    needed: int | None,
    comparisons: int,
    level: float,
) -> str:
    if paired.mean is None:
        return f"{arm}: no seed with a finished run of both it and {baseline}; nothing can be concluded."
    by = f"{100 * paired.mean:+.2f} points over {paired.n} seed{'s' if paired.n != 1 else ''}"
    if paired.n < 2:
        return f"{arm}: {by}; one pair shows no noise, so nothing can be concluded."
    if p is None or paired.p is None or paired.low is None or paired.high is None:
        return (
            f"{arm}: {by}, the same on each: no noise can be seen, so nothing can be concluded. "
            "More seeds, or more images to evaluate on, would show some."
        )
    if paired.identical:
        return f"{arm}: the same metrics as {baseline} on every seed: within seed noise."
    span = f"{100 * (1 - level):g} % interval {100 * paired.low:+.2f} .. {100 * paired.high:+.2f}"
    corrected = f"p = {p:.2g}" + (f", corrected for {comparisons} comparisons" if comparisons > 1 else "")
    wish = f"{100 * gain:g} points"
    if verdict == "within seed noise":
        seeds = f"more than {MAX_SEEDS:,} seeds" if needed is None else f"about {needed:,} seeds"
        alone = f" (p = {paired.p:.2g} alone would be below {level:g})" if paired.p < level else ""
        rough = f", of which {paired.n} pairs give only a rough idea," if paired.n < FEW_PAIRS else ""
        return (
            f"{arm}: {by} ({span}; {corrected}): within seed noise{alone}. "
            f"To see a gain of {wish} at this noise{rough} {seeds} are needed."
        )
    text = f"{arm}: {verdict} than {baseline}, {by} ({span}; {corrected})."
    if images is not None and images[0] <= 0 <= images[1]:
        text += (
            f" With other images too it could be otherwise (seeds and images: "
            f"{100 * images[0]:+.2f} .. {100 * images[1]:+.2f})."
        )
    return text
