"""The product's tests and verdicts on thousands of studies at once; `test_study.py` holds them against `conclude`.

S studies, A arms, n seeds, m comparisons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from msbal.ablation.statistics.blocks import Run
from msbal.ablation.statistics.samples import EXACT
from msbal.ablation.statistics.sequential import FEWEST, nominal_level, smallest_p
from msbal.ablation.statistics.shared import FEWEST as FEWEST_SHARED
from msbal.ablation.statistics.shared import OWN_FROM, STUDIES, Design, _simulated, check_level
from study.worlds import Array

Mask = NDArray[np.bool_]
LEVEL = 0.05


@dataclass(frozen=True)
class Found:
    """`msbal.ablation.statistics.conclusion.Tested` of many studies, ``[S, m]`` each; p is NaN where there is none."""

    mean: Array
    p: Array
    low: Array
    high: Array
    inner_low: Array
    inner_high: Array

    @property
    def better(self) -> Mask:
        """A difference is seen, and it is above zero."""
        return (self.p < LEVEL) & (self.mean > 0)

    @property
    def worse(self) -> Mask:
        return (self.p < LEVEL) & (self.mean < 0)

    def at_least(self, gain: float) -> Mask:
        """Said to be better, or worse, by at least the gain."""
        return (self.better & (self.low >= gain)) | (self.worse & (self.high <= -gain))

    def less_than(self, gain: float) -> Mask:
        """Said to differ by less than the gain: no difference as large, or better or worse by less."""
        differs = self.p < LEVEL
        within = (self.inner_low > -gain) & (self.inner_high < gain)
        by_less = (self.better & (self.inner_high < gain)) | (self.worse & (self.inner_low > -gain))
        return np.where(differs, by_less, within & ~np.isnan(self.p))

    def no_gain(self, gain: float) -> Mask:
        """A gain is ruled out, by whatever verdict; "worse" says so in the same words as before."""
        return ~np.isnan(self.p) & ~(self.p < LEVEL) & (self.inner_high < gain) | self.less_than(gain)


def t_of(differences: Array) -> tuple[Array, Array, int, Array]:
    """Return the mean over the last axis, its standard error, the degrees of freedom and Student's two-sided p.

    As in `samples.pair`: no p where all differences are the same and not zero, 1 where all are zero.
    """
    seeds = differences.shape[-1]
    mean = differences.mean(axis=-1)
    spread = differences.std(axis=-1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * special.stdtr(seeds - 1.0, -np.abs(mean) / (spread / np.sqrt(seeds)))
    still = spread <= EXACT
    p = np.where(still, np.where(np.abs(mean) <= EXACT, 1.0, np.nan), p)
    return mean, spread / np.sqrt(seeds), seeds - 1, p


def holm(p: Array, planned: int | None = None) -> Array:
    """Return Holm's p by row; NaN stays, and counts only if `planned` says so."""
    order = np.argsort(p, axis=-1)  # NaN last
    ordered = np.take_along_axis(p, order, axis=-1)
    count = (~np.isnan(p)).sum(axis=-1, keepdims=True) if planned is None else planned
    raised = np.minimum(1.0, ordered * np.maximum(1, count - np.arange(p.shape[-1])))
    raised = np.where(np.isnan(ordered), np.nan, np.fmax.accumulate(raised, axis=-1))
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, raised, axis=-1)
    return corrected


def paired_rules(metrics: Array) -> Found:
    """`msbal.ablation.statistics.paired.paired_tests`, of each arm against the first."""
    mean, error, degrees, p = t_of(metrics[:, 1:] - metrics[:, :1])
    planned = p.shape[1]
    p = holm(p, planned)
    p = np.where(error > EXACT, p, np.nan)
    reach, inner = (stats.t.isf(tail / planned, degrees) * error for tail in (LEVEL / 2, LEVEL))
    return around(mean, p, reach, inner)


def around(mean: Array, p: Array, reach: Array, inner: Array) -> Found:
    """Return intervals around the means that end at 0 where Holm shows a difference and Bonferroni's do not."""
    above, below = (p < LEVEL) & (mean > 0), (p < LEVEL) & (mean < 0)
    lows = [np.where(above, np.maximum(0, mean - x), mean - x) for x in (reach, inner)]
    highs = [np.where(below, np.minimum(0, mean + x), mean + x) for x in (reach, inner)]
    return Found(mean, p, lows[0], highs[0], lows[1], highs[1])


def new_rules(metrics: Array) -> Found:
    """What `conclude` does with a fixed number of seeds: noise shared over the arms where a check allows it.

    Studies in which two arms differ by the same on every seed, as happens with metrics in steps, are left out where
    noise is shared: each would have a design of its own.
    """
    _, arms, seeds = metrics.shape
    if arms < 3 or seeds < FEWEST_SHARED:
        return paired_rules(metrics)
    between = metrics[:, :, None] - metrics[:, None]
    ties = (np.ptp(between, axis=-1) <= EXACT).sum(axis=(1, 2)) > arms
    kept = metrics[~ties]
    if not len(kept):
        return Found(*(np.empty((0, arms - 1)) for _ in range(6)))
    apart, shared = shared_rules(kept)
    paired = paired_rules(kept)
    return Found(
        *(
            np.where(apart[:, None], one, other)
            for one, other in zip(vars(paired).values(), vars(shared).values(), strict=True)
        )
    )


def shared_rules(metrics: Array) -> tuple[Mask, Found]:
    """`msbal.ablation.statistics.shared.shared_tests`; the first is where the check finds noise that is not equal."""
    _, arms, seeds = metrics.shape
    runs = tuple(Run("0", seed, str(arm)) for seed in range(seeds) for arm in range(arms))
    pairs = tuple(tuple((s * arms + arm, s * arms) for s in range(seeds)) for arm in range(1, arms))
    design = Design(runs, pairs, ("0",) * (arms - 1), 0)
    drawn = _simulated(design)
    seen = design.statistics(metrics.transpose(0, 2, 1).reshape(len(metrics), -1))
    rank = round(LEVEL * (STUDIES + 1)) - 1
    outer, inner = drawn.largest[-rank] * seen.se, drawn.highest[-rank] * seen.se
    p = (1 + STUDIES - np.searchsorted(drawn.largest, np.abs(seen.mean) / seen.se)) / (STUDIES + 1)
    apart = (1 + STUDIES - np.searchsorted(drawn.apart, seen.apart)) / (STUDIES + 1) < check_level(seeds)
    mean = seen.mean
    if seeds >= OWN_FROM:  # each comparison's own test must agree, uncorrected
        _, error, degrees, own = t_of(metrics[:, 1:] - metrics[:, :1])
        p = np.fmax(p, own)
        outer, inner = (
            np.maximum(reach, stats.t.isf(tail, degrees) * error)
            for reach, tail in ((outer, LEVEL / 2), (inner, LEVEL))
        )
    return apart, Found(mean, p, mean - outer, mean + outer, mean - inner, mean + inner)


def sequential_rules(metrics: Array, looks: tuple[int, ...], gain: float) -> tuple[Found, Array]:
    """`msbal.ablation.statistics.sequential.sequential_tests`, of each arm against the first.

    Returns:
        What each comparison's verdict rests on, and after how many seeds it is decided, ``[S, m]``.
    """
    differences = metrics[:, 1:] - metrics[:, :1]
    studies, planned, _ = differences.shape
    smallest = smallest_p(looks)
    reaches = [nominal_level(error / planned, looks) / 2 for error in (LEVEL, 2 * LEVEL)]
    kept = Found(*(np.full((studies, planned), np.nan) for _ in range(6)))
    known = np.full((studies, planned), np.nan)
    still_open = np.ones((studies, planned), dtype=bool)
    ends = np.full((studies, planned), float(looks[-1]))
    for look in looks:
        mean, error, degrees, p = t_of(differences[..., :look])
        p = np.where(error > EXACT, p, np.nan)
        below = np.searchsorted(smallest, p, side="right")
        with np.errstate(invalid="ignore"):
            floor = np.maximum(below, FEWEST) / len(smallest)
            p = np.where(np.isnan(p), np.nan, np.minimum(np.minimum(1.0, len(looks) * p), floor))
        known = np.where(still_open & ~np.isnan(p), p, known)
        outer, inner = (stats.t.isf(tail, degrees) * error for tail in reaches)
        corrected = holm(known, planned)
        now = around(mean, corrected, outer, inner)
        update = still_open & ~np.isnan(p)
        for name, values in vars(kept).items():
            values[update] = vars(now)[name][update]
        decided = update & (kept.better | kept.worse | (kept.inner_high < gain))
        ends[decided] = look
        still_open &= ~decided
    return kept, ends


def detector_rules(differences: Array, treatments: int = 1) -> Found:
    """`msbal.ablation.statistics.detectors.over_groups`, of one treatment on G groups, ``[S, G, n]`` -> ``[S, 1]``."""
    mean, error, within, _ = t_of(differences)
    variances, groups = error**2, differences.shape[1]
    variance = variances.sum(axis=1) / groups**2
    degrees = variances.sum(axis=1) ** 2 / (variances**2).sum(axis=1) * within
    over_seeds = t_of(differences.mean(axis=1))[1] ** 2
    over, error = mean.mean(axis=1), np.sqrt(np.maximum(variance, over_seeds))
    p = 2 * special.stdtr(degrees, -np.abs(over) / error)
    outer, inner = (stats.t.isf(tail / treatments, degrees) * error for tail in (LEVEL / 2, LEVEL))
    return Found(*(x[:, None] for x in (over, p, over - outer, over + outer, over - inner, over + inner)))
