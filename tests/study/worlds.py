"""Ablations whose truth is known: metrics of arms and seeds, drawn.

The unit is the standard deviation of a paired difference between two arms with plain noise. S studies, A arms (the
baseline first), n seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

POINTS = 0.003
"""The unit as a metric, 0..1: 0.3 points."""

GAIN = 0.005
"""The product's usual `gain` as a metric, 0..1: 0.5 points."""

AS_LARGE = GAIN / POINTS
"""An effect as large as the gain."""

EVEN = {
    "normal": "normal noise",
    "heavy": "noise with heavy tails: Student's t with 4 degrees of freedom",
    "skewed": "exponential noise",
    "steps": "metrics of few images, which move in steps of half a standard deviation",
    "seeds": "an effect of the seed on all arms, three times the noise",
}
"""The same noise in all arms."""

UNEVEN = {
    "double": "one arm with double the noise",
    "triple": "one arm with triple the noise",
    "noisy baseline": "a baseline with double the noise",
    "uneven seeds": "an effect of the seed that grows from arm to arm, up to 1.5 times the noise",
    "skewed arms": "exponential noise in all arms but the baseline, whose noise is normal",
    "twins": "two arms that are nearly the same",
}
"""Noise that is not."""

NOISES = {**EVEN, **UNEVEN}


@dataclass(frozen=True)
class World:
    """One kind of ablation.

    Attributes:
        noise: a key of `NOISES`.
        effects: the true difference of each arm from the baseline.
    """

    seeds: int
    noise: str
    effects: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.seeds} seeds, {len(self.effects) + 1} arms, {self.noise}"


def draw(world: World, studies: int, key: int = 0) -> Array:
    """Return metrics in 0..1, ``[S, A, n]``; the same for the same arguments."""
    arms = len(world.effects) + 1
    name = sorted(NOISES).index(world.noise)
    rng = np.random.default_rng([key, world.seeds, arms, name, round(100 * sum(map(abs, world.effects)))])
    shape = (studies, arms, world.seeds)
    noise = rng.standard_t(4, shape) / math.sqrt(2) if world.noise == "heavy" else rng.standard_normal(shape)
    if world.noise.startswith("skewed"):
        first = 1 if world.noise == "skewed arms" else 0
        noise[:, first:] = rng.standard_exponential((studies, arms - first, world.seeds)) - 1
    if world.noise in ("double", "triple"):
        noise[:, -1] *= {"double": 2, "triple": 3}[world.noise]
    if world.noise == "noisy baseline":
        noise[:, 0] *= 2
    if world.noise == "twins" and arms > 2:
        noise[:, -1] = noise[:, -2] + 0.1 * noise[:, -1]
    of_seed = rng.standard_normal((studies, 1, world.seeds))
    if world.noise == "seeds":
        noise += 3 * of_seed
    if world.noise == "uneven seeds":
        noise += of_seed * np.linspace(0, 1.5, arms)[:, None]
    noise /= math.sqrt(2)  # of one run; a difference has two
    values = noise + np.array((0.0, *world.effects))[:, None]
    if world.noise == "steps":
        values = (
            np.round(2 * values + rng.uniform(size=(studies, 1, 1))) / 2
        )  # where the steps lie is chance, too
    return 0.4 + POINTS * values
