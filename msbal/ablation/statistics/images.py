"""One interval with the noise of the seeds and that of the images.

The difference that an ablation reports is a mean over seeds, on one set of images. Other seeds would give another,
and so would other images. Both noises are estimated apart and added, so that the interval covers the difference that
many seeds would show on many images of the same kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats


@dataclass(frozen=True)
class SeedsAndImages:
    """A difference over seeds and images. 0..1.

    Attributes:
        low, high: its 95 % interval.
        seeds: the share of the variance that is the seeds', 0..1; the rest is the images'.
    """

    low: float
    high: float
    seeds: float


def seeds_and_images(
    differences: Sequence[float],
    draws: Sequence[NDArray[np.float64]],
    images: int,
    confidence: float = 0.95,
) -> SeedsAndImages | None:
    """Return the interval of a mean difference over seeds and images.

    Args:
        differences: ``[n]``, on the images as they are.
        draws: n arrays ``[R]``, each pair's difference on the same R draws of the images, NaN where undefined.
        images: how many there are.

    Returns:
        None for fewer than two pairs, or where more than one draw in twenty is undefined.
    """
    count = len(differences)
    if count < 2:
        return None
    drawn = np.stack(draws)  # [n, R]
    drawn = drawn[:, ~np.isnan(drawn).any(axis=0)]
    if not drawn.size or drawn.shape[1] < 0.95 * len(draws[0]):
        return None
    over_seeds = float(np.var(differences, ddof=1)) / count
    # Images drawn anew move the mean difference by the images' own variance and by a share of that of image and seed
    # together, which also is in the spread over the seeds and must not count twice.
    of_mean = float(drawn.mean(axis=0).var(ddof=1))
    of_each = float(drawn.var(axis=1, ddof=1).mean())
    over_images = max(0.0, of_mean - (of_each - of_mean) / (count - 1)) * images / max(1, images - 1)
    variance = over_seeds + over_images
    if variance <= 0:
        return None
    degrees = variance**2 / (
        over_seeds**2 / (count - 1) + over_images**2 / max(1, images - 1)
    )  # Satterthwaite
    reach = float(stats.t.isf((1 - confidence) / 2, degrees)) * variance**0.5
    mean = float(np.mean(differences))
    return SeedsAndImages(mean - reach, mean + reach, over_seeds / variance)
