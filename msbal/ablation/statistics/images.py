"""One interval with the noise of the seeds and that of the images.

The difference that an ablation reports is a mean over seeds, on one set of images. Other seeds would give another,
and so would other images. Both noises are estimated apart and added, so that the interval covers the difference that
many seeds would show on many images of the same kind.

The model is that of two crossed random effects: a pair of runs of seed s differs on image i by
``mean + a_s + b_i + c_si``. Of the mean over n seeds and I images, the variance ``(s_a^2 + s_c^2 / I) / n`` is in the
spread over the seeds, and ``s_b^2 / I`` is the images'. The bootstrap over images estimates the latter, once the c_si,
which also are in the spread over the seeds, are taken out (`_over_images`).

How many standard errors the interval reaches lies between t's quantiles for the seeds alone and for the images alone.
Satterthwaite's degrees of freedom ("An approximate distribution of estimates of variance components", 1946) say
where, but not with two seeds: when these agree by chance, the images' many degrees are taken for those of the sum.
`_Noise.critical` has what holds there too. Coverage in %, the lowest and the highest of all simulated cells: 10 to
1,000 images, 0 to 90 % of the variance the images', none to all of the seeds' noise another one on each image.

    =====  ============  =============  ==============
    seeds  this          Satterthwaite  redrawing both
    =====  ============  =============  ==============
    2      93.3 to 96.9  87.3 to 95.4   46 to 99
    3      94.5 to 96.7  92.1 to 95.7   73 to 100
    5      94.3 to 96.1  93.8 to 95.9   85 to 99
    8      93.6 to 96.2  93.5 to 96.1   89 to 99
    12     93.5 to 96.1  93.2 to 96.1   91 to 99
    =====  ============  =============  ==============

"Redrawing both" are the percentiles of drawing seeds and images anew, each with replacement. With two seeds and a
correction for several comparisons, the interval errs more often than it should where the images have about a tenth of
the variance: by 2.3 % instead of 1 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from msbal.ablation.statistics.intervals import Interval, apart_from_zero, around
from msbal.ablation.statistics.samples import EXACT

if TYPE_CHECKING:
    from msbal.ablation.statistics.conclusion import Tested


@dataclass(frozen=True)
class SeedsAndImages:
    """A difference over seeds and images. 0..1.

    Attributes:
        low, high: its 95 % interval.
        seeds: the share of the variance that is the seeds', 0..1; the rest is the images'.
        inner: its 90 % interval: a difference outside it is ruled out with an error of 5 % (two one-sided tests).
        over_images: the variance that is the images'.
        degrees: of freedom, of `over_images`.
    """

    low: float
    high: float
    seeds: float
    inner: Interval
    over_images: float
    degrees: int

    @property
    def holds_zero(self) -> bool:
        """Whether seeds and images together show no difference."""
        return self.low < 0 < self.high

    def beside(self, tested: Tested, pairs: int, planned: int, level: float = 0.05) -> SeedsAndImages:
        """Return the same with the seeds' noise as a test estimates it, corrected as the test is.

        Without noise of the images, its intervals are the test's, and it shows a difference where the test's p does.

        Args:
            pairs: of runs, that were tested.
            planned: comparisons.
        """
        noise = _Noise(tested.sd**2 / pairs, tested.degrees, self.over_images, self.degrees)
        se = noise.over_seeds**0.5

        def reach(span: Interval, tail: float) -> float:
            # Holm may have drawn in the end at 0; the other is as far from the mean as a single step says.
            alone = max(tested.mean - span[0], span[1] - tested.mean) / se
            return noise.critical(tail / planned, alone) * noise.se

        # What the correction multiplies this comparison's p by, at most `planned`: Holm's later steps have less.
        plain = 2 * float(stats.t.sf(abs(tested.mean) / se, tested.degrees))
        steps = max(1.0, tested.p / plain) if plain > 0 else 1.0
        apart = abs(tested.mean) > noise.critical(level / 2 / steps) * noise.se
        outer, inner = (
            around(tested.mean, reach(span, tail))
            for span, tail in ((tested.interval, level / 2), (tested.inner, level))
        )
        if apart:
            outer, inner = (apart_from_zero(span, tested.mean) for span in (outer, inner))
        return replace(self, low=outer[0], high=outer[1], inner=inner, seeds=noise.seeds)


def seeds_and_images(
    differences: Sequence[float],
    draws: Sequence[NDArray[np.float64]],
    images: int,
    confidence: float = 0.95,
    planned: int = 1,
) -> SeedsAndImages | None:
    """Return the interval of a mean difference over seeds and images.

    Args:
        differences: ``[n]``, on the images as they are.
        draws: n arrays ``[R]``, each pair's difference on the same R draws of the images, NaN where undefined.
        images: how many of them have boxes: the others add nothing to learn from.
        planned: comparisons; the interval is corrected for their number (Bonferroni).

    Returns:
        None for fewer than two pairs or images, without any noise, or where more than one draw in twenty is
        undefined.
    """
    count = len(differences)
    if count < 2 or images < 2:
        return None
    drawn = defined(draws)
    if drawn is None:
        return None
    noise = _Noise(
        float(np.var(differences, ddof=1)) / count, count - 1, _over_images(drawn, images), images - 1
    )
    if noise.se <= EXACT:
        return None
    mean, tail = float(np.mean(differences)), (1 - confidence) / 2 / planned
    outer, inner = (around(mean, noise.critical(part) * noise.se) for part in (tail, 2 * tail))
    return SeedsAndImages(*outer, noise.seeds, inner, noise.over_images, noise.of_images)


def defined(draws: Sequence[NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """Return the draws on which all pairs are defined, ``[n, R]``; None where more than one in twenty is not."""
    drawn = np.stack(draws)
    kept = drawn[:, ~np.isnan(drawn).any(axis=0)]
    return kept if kept.shape[1] >= max(2, 0.95 * drawn.shape[1]) else None


def _over_images(drawn: NDArray[np.float64], images: int) -> float:
    """Return the variance of the mean difference that is the images', from the draws ``[n, R]``.

    Over draws, the variance of the mean is ``(s_b^2 + s_c^2 / n) / I``, that of a single pair ``(s_b^2 + s_c^2) / I``;
    both times ``(I - 1) / I``, as the bootstrap divides by I.
    """
    of_mean = float(drawn.mean(axis=0).var(ddof=1))
    of_each = float(drawn.var(axis=1, ddof=1).mean())
    return max(0.0, of_mean - (of_each - of_mean) / (len(drawn) - 1)) * images / (images - 1)


@dataclass(frozen=True)
class _Noise:
    """The two variances of a mean difference, each with its degrees of freedom."""

    over_seeds: float
    of_seeds: float
    over_images: float
    of_images: int

    @property
    def se(self) -> float:
        return float((self.over_seeds + self.over_images) ** 0.5)

    @property
    def seeds(self) -> float:
        """The share of the seeds."""
        return self.over_seeds / (self.over_seeds + self.over_images)

    def critical(self, tail: float, alone: float | None = None) -> float:
        """Return how many standard errors leave `tail` on each side.

        It lies between t's quantile of the seeds and that of the images: with many seeds, where Satterthwaite's does;
        with two, as far up as the seeds' share of the variance is on its way from 4 x `tail` to 0.7, which was found by
        simulation.

        Args:
            alone: what a test takes for the seeds alone; by default t's quantile.
        """
        share, begin = self.seeds, min(4 * tail, 0.2)
        degrees = 1 / (share**2 / self.of_seeds + (1 - share) ** 2 / self.of_images)
        seeds, images, both = (
            float(stats.t.isf(tail, each)) for each in (self.of_seeds, self.of_images, degrees)
        )
        way = min(max((share - begin) / (0.7 - begin), 0.0), 1.0)
        between = both + (images + way * (seeds - images) - both) / self.of_seeds
        return between if alone is None else between * (alone / seeds) ** share
