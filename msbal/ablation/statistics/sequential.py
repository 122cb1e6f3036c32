"""Look at the results several times, and stop as soon as they answer, without erring more often than after one look.

Whoever looks four times at a level of 5 % finds a difference that is not there in one study of seven. So every look has
the same, stricter level (Pocock, "Group sequential methods in the design and analysis of clinical trials", 1977). His
levels are those of a normal test. With three seeds only Student's t holds, and its levels are found here by
simulation.

The same levels give repeated confidence intervals (Jennison and Turnbull, "Interim analyses: the repeated confidence
interval approach", 1989): at all looks together they miss the true difference in no more than 5 % of the studies,
whatever one stops for. So a comparison may also stop once a gain is ruled out.

K looks, m planned comparisons. Metrics are in 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from msbal.ablation.grid import Comparison
from msbal.ablation.statistics.conclusion import Tested, verdict
from msbal.ablation.statistics.intervals import Interval, around
from msbal.ablation.statistics.paired import beyond_zero, holm
from msbal.ablation.statistics.samples import EXACT, Paired

STUDIES = 1_000_000
CHUNK = 1_000_000  # numbers drawn at once
PHILOX_KEY = 1977
FEWEST = 100  # of the simulated studies below a p: with fewer its share is too uncertain


def sequential_tests(
    pairs: Mapping[int, Mapping[Comparison, Paired]],
    comparisons: Sequence[Comparison],
    looks: Sequence[int],
    gain: float,
    level: float = 0.05,
) -> dict[Comparison, Tested]:
    """Test every comparison at each look that has taken place, until it is decided; p by Holm, intervals by Bonferroni.

    A comparison is decided by the first look whose verdict is more than "cannot tell yet". Its numbers stay those of
    that look, whatever runs are added later: a claim that changed with them would be a look that was not planned. An
    open comparison's numbers are those of the newest look.

    The error of all claims together is at most `level`: had all comparisons gone on to the last look, the smallest p
    of each would be no larger than the one that counts here, and so Holm on those would reject all that is rejected
    here, and perhaps more.

    Args:
        pairs: by look, those of the first so many seeds, of every comparison whose runs of these seeds are over.
        comparisons: all that are planned.
        looks: all that are planned, in numbers of seeds.

    Returns:
        What each comparison's verdict rests on; nothing for one without a look, or without noise to measure by.
    """
    planned, looks = max(1, len(comparisons)), tuple(looks)
    found: dict[Comparison, Tested] = {}
    p_values: dict[Comparison, float] = {}
    still_open = list(comparisons)
    for look in looks:
        at = pairs.get(look, {})
        if not still_open or any(each not in at for each in still_open):
            break
        for each in still_open:
            p = at[each].p if (at[each].sd or 0.0) > EXACT else None
            if p is not None:
                p_values[each] = sequential_p(p, looks)
        corrected = dict(zip(comparisons, holm([p_values.get(each) for each in comparisons]), strict=True))
        for each in still_open:
            paired, p = at[each], corrected[each]
            if paired.mean is None or paired.sd is None or paired.sd <= EXACT or p is None:
                continue
            spans = [_interval(paired, nominal_level(error / planned, looks)) for error in (level, 2 * level)]
            tested = Tested(paired.mean, paired.sd, paired.n - 1, p, spans[0], spans[1], look)
            found[each] = beyond_zero(tested, level)
        still_open = [
            each
            for each in still_open
            if each not in found or verdict(found[each], gain, level) == "cannot tell yet"
        ]
    return found


def sequential_p(p: float, looks: tuple[int, ...]) -> float:
    """Return how often, without a difference, the smallest p of all looks is no larger than `p`."""
    smallest = smallest_p(looks)
    below = int(np.searchsorted(smallest, p, side="right"))
    bound = min(1.0, len(looks) * p)  # Boole's inequality
    if below < FEWEST:
        return min(bound, FEWEST / len(smallest))
    return min(bound, below / len(smallest))


def nominal_level(error: float, looks: tuple[int, ...]) -> float:
    """Return the level of each look at which all together err as often as `error`: `sequential_p` turned round."""
    smallest = smallest_p(looks)
    rank = int(error * len(smallest))
    single = error / len(looks)
    return single if rank < FEWEST else max(single, float(smallest[rank - 1]))


@lru_cache(maxsize=8)
def smallest_p(looks: tuple[int, ...], studies: int = STUDIES) -> NDArray[np.float64]:
    """Return the smallest two-sided p over the looks of simulated studies without a difference, sorted, ``[studies]``.

    The differences are normal. Where runs have heavy tails, are skewed or move in steps, the paired t-test errs less
    often: differences of two runs are symmetric at least.
    """
    draws, rows = np.random.Generator(np.random.Philox(PHILOX_KEY)), max(1, CHUNK // looks[-1])
    found = [
        p_values_at(draws.standard_normal((min(rows, studies - begun), looks[-1])), looks).min(axis=1)
        for begun in range(0, studies, rows)
    ]
    return np.sort(np.concatenate(found))


def p_values_at(differences: NDArray[np.float64], looks: Sequence[int]) -> NDArray[np.float64]:
    """Return the two-sided p of the paired t-test at each look, ``[S, K]``, of S studies' differences, ``[S, n]``."""
    mean, se = means_at(differences, looks)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(2 * special.stdtr(np.asarray(looks) - 1.0, -np.abs(mean / se)))


def means_at(
    differences: NDArray[np.float64], looks: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean difference and its standard error at each look, ``[S, K]`` both."""
    begins, count = [0, *looks[:-1]], np.asarray(looks)
    within = differences[:, : looks[-1]]
    total = np.add.reduceat(within, begins, axis=1).cumsum(axis=1)
    squares = np.add.reduceat(within**2, begins, axis=1).cumsum(axis=1)
    spread = np.maximum(squares - total**2 / count, 0.0) / (count - 1)
    return total / count, np.sqrt(spread / count)


def expected_seeds(
    looks: Sequence[int],
    effect: float,
    gain: float,
    sd: float,
    comparisons: int = 1,
    level: float = 0.05,
    studies: int = 20_000,
) -> tuple[float, float]:
    """Return after how many seeds a comparison is decided on average, and how often it is found better, by simulation.

    It is the comparison that Holm treats most strictly.

    Args:
        effect: the true difference, 0..1.
        sd: that of the differences between pairs.
    """
    looks = tuple(looks)
    draws = np.random.Generator(np.random.Philox(PHILOX_KEY + 1))
    mean, se = means_at(effect + sd * draws.standard_normal((studies, looks[-1])), looks)
    tails = [nominal_level(error / comparisons, looks) / 2 for error in (level, 2 * level)]
    outer, inner = (stats.t.isf(tail, np.asarray(looks) - 1) * se for tail in tails)
    over = (np.abs(mean) > outer) | (mean + inner < gain)
    over[:, -1] = True
    last = over.argmax(axis=1)
    better = np.take_along_axis(mean > outer, last[:, None], axis=1)
    return float(np.asarray(looks)[last].mean()), float(better.mean())


def _interval(paired: Paired, error: float) -> Interval:
    assert paired.mean is not None and paired.sd is not None
    reach = float(stats.t.isf(error / 2, paired.n - 1)) * paired.sd / math.sqrt(paired.n)
    return around(paired.mean, reach)
