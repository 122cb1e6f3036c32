"""The rules before this study: what `msbal ablate` said of a difference until its verdict was measured by `gain`.

A difference is "better" or "worse" where Holm's p of the paired t-tests is below 0.05, otherwise "within seed noise".
The interval beside it is not corrected. Images came in by a percentile bootstrap.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize, stats

from msbal.ablation.statistics.power import power
from study.rules import Found, holm, t_of
from study.worlds import Array

MOST = 30
"""Seeds beyond which nobody follows the old advice."""


def old_rules(metrics: Array) -> Found:
    """Test each arm against the first, ``[S, A, n]`` -> ``[S, A - 1]``."""
    mean, error, degrees, p = t_of(metrics[:, 1:] - metrics[:, :1])
    reach = stats.t.isf(0.025, degrees) * error
    low, high = mean - reach, mean + reach
    nothing = np.full_like(low, np.inf)  # the old rules never ruled a difference out
    return Found(mean, holm(p), low, high, -nothing, nothing)


def three_seeds_then_more(metrics: Array) -> Found:
    """Follow the old advice: run three seeds; where nothing is seen, read off how many are needed, and add them.

    Args:
        metrics: of `MOST` seeds.
    """
    arms = metrics.shape[1]
    first = old_rules(metrics[..., :3])
    sd = (metrics[:, 1:, :3] - metrics[:, :1, :3]).std(axis=-1, ddof=1)
    needed = np.searchsorted(_enough(arms - 1), np.where(first.p < 0.05, 0, sd).max(axis=1), side="left")
    seeds = np.clip(needed, 3, MOST)
    last = Found(*(values.copy() for values in vars(first).values()))
    for n in np.unique(seeds):
        chosen = seeds == n
        then = old_rules(metrics[chosen][..., :n])
        for name, values in vars(last).items():
            values[chosen] = np.where(first.p[chosen] < 0.05, values[chosen], vars(then)[name])
    return last


def _enough(comparisons: int) -> list[float]:
    """Return, for 0 .. `MOST` seeds, the largest sd with which so many were said to show a gain of 0.5 points."""

    def too_few(sd: float, seeds: int) -> float:
        return power(seeds, 0.005, sd, 0.05 / comparisons) - 0.8

    return [0.0, 0.0, *(float(optimize.brentq(too_few, 1e-5, 0.5, (n,))) for n in range(2, MOST + 1))]


def old_images(differences: Array, draws: Array, seed: int) -> tuple[float, float]:
    """Return the percentile interval over seeds and images.

    Args:
        differences: ``[n]``, not used.
        draws: ``[n, R]``, each pair's difference on the same draws of the images.
    """
    pairs, resamples = draws.shape
    chosen = np.random.default_rng(seed).integers(0, pairs, (pairs, resamples))
    low, high = np.quantile(np.take_along_axis(draws, chosen, axis=0).mean(axis=0), [0.025, 0.975])
    return float(low), float(high)
