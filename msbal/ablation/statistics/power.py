"""What a number of seeds can see, and how many are needed.

`rows`: from how many rows of differences the noise is estimated, a row having one difference for each seed. It is 1 for
two arms by themselves; where all arms share their noise, it is the number of arms that are no baseline. The degrees of
freedom are ``rows * (seeds - 1)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy import optimize, special, stats

from msbal.ablation.statistics.samples import EXACT

MAX_SEEDS = 10_000
FAR = 30.0  # the noncentrality beyond which only the chi in t matters


def power(seeds: int, gain: float, sd: float, level: float = 0.05, rows: int = 1) -> float:
    """Return the probability that a t-test over `seeds` sees a true `gain`.

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
    degrees = rows * (seeds - 1)
    critical = stats.t.isf(level / 2, degrees)
    shift = abs(gain) / sd * math.sqrt(seeds)
    if shift < FAR:
        seen = float(stats.nct.sf(critical, degrees, shift) + stats.nct.cdf(-critical, degrees, shift))
        if not math.isnan(seen):
            return seen
    # Far out only the chi in t matters, not its normal part, and scipy's nct gives NaN or takes minutes.
    return float(stats.chi2.cdf(degrees * (shift / critical) ** 2, degrees))


def gain_seen(
    seeds: int, sd: float, comparisons: int = 1, rows: int = 1, level: float = 0.05, wanted: float = 0.8
) -> float | None:
    """Return the smallest true gain that `seeds` show with probability `wanted`; None for fewer than two seeds.

    The level is divided by the comparisons, a little stricter than what is done later. Where arms share their noise,
    the largest of several estimates counts, and from five seeds on each comparison's own test, too. With five arms this
    says 2.41, 1.66 and 1.25 sd for 3, 5 and 8 seeds, and simulation 2.45, 1.79 and 1.27.
    """
    if seeds < 2:
        return None
    if sd <= EXACT:
        return 0.0
    level /= max(1, comparisons)
    high = sd
    while power(seeds, high, sd, level, rows) < wanted:
        high *= 2
    return float(
        optimize.brentq(lambda gain: power(seeds, gain, sd, level, rows) - wanted, 0.0, high, rtol=1e-4)
    )


def seeds_needed(
    gain: float, sd: float, comparisons: int = 1, rows: int = 1, level: float = 0.05, wanted: float = 0.8
) -> int | None:
    """Return the fewest seeds that show a true `gain` with probability `wanted`, before any has run.

    Args:
        sd: that of the differences between pairs, itself only an estimate.
        comparisons: the level is divided by it, a little stricter than what is done later.

    Returns:
        None if more than 10,000 are needed.
    """
    if gain <= 0:
        raise ValueError(f"Parameter `gain` should be positive. Found {gain}.")
    level /= max(1, comparisons)
    return _fewest(lambda seeds: power(seeds, gain, sd, level, rows) >= wanted, more_than=1)


def seeds_to_tell(
    gain: float,
    sd: float,
    seen: float,
    done: int,
    comparisons: int = 1,
    rows: float = 1,
    level: float = 0.05,
    wanted: float = 0.8,
) -> int | None:
    """Return how many seeds, `done` included, will tell with probability `wanted` whether there is a gain.

    They tell if a difference shows, or if `gain` is ruled out. One of the two is certain once the whole interval is
    shorter than the gain, so a true difference between 0 and `gain` is no obstacle. The probability is that given the
    runs so far, since these left the question open: the mean over N seeds is then normal around the mean over the n
    seeds done, with the variance sd^2 (1 / n - 1 / N) (the predictive power of Spiegelhalter, Freedman and Blackburn,
    "Monitoring clinical trials: conditional or predictive power?", 1986).

    Args:
        sd: that of the differences between pairs.
        seen: the mean difference over the `done` seeds. Turn its sign to ask about a loss.

    Returns:
        More than `done`; None if more than 10,000 are needed.
    """
    level /= max(1, comparisons)

    def tell(seeds: int) -> bool:
        degrees, se = rows * (seeds - 1), sd / math.sqrt(seeds)
        outer, inner = (-float(special.stdtrit(degrees, tail)) * se for tail in (level / 2, level))
        low, high = max(-outer, gain - inner), outer  # the means that leave it open
        spread = sd * math.sqrt(1 / done - 1 / seeds)
        still_open = special.ndtr((high - seen) / spread) - special.ndtr((low - seen) / spread)
        return bool(still_open <= 1 - wanted)

    return _fewest(tell, more_than=done)


def _fewest(enough: Callable[[int], bool], more_than: int) -> int | None:
    """Return the fewest seeds that are enough, where more are better; None if `MAX_SEEDS` are not."""
    if not enough(MAX_SEEDS):
        return None
    low, high = more_than, MAX_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def noise_interval(sd: float, degrees: float, confidence: float = 0.8) -> tuple[float, float]:
    """Return the interval of a standard deviation, by the chi-square distribution of its square."""
    tail = (1 - confidence) / 2
    low, high = (sd * math.sqrt(degrees / float(stats.chi2.isf(p, degrees))) for p in (tail, 1 - tail))
    return low, high
