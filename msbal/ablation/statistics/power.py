"""What a number of seeds can see, and how many are needed."""

from __future__ import annotations

import math

from scipy import stats

from msbal.ablation.statistics.samples import EXACT

MAX_SEEDS = 10_000
FAR = 30.0  # the noncentrality beyond which only the chi in t matters


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
