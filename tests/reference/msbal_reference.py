"""Equations 1 to 7 once more, slow and obvious: plain Python numbers, one line of the paper at a time.

Shares nothing with msbal. Where the paper is open it reads it as msbal's documentation does: ties go to the
finer level, the variance before the first interval is 1, the first interval earns a reward of 0 and moves no
probability, only the rewarded or punished action is kept within its bounds, an iteration with a loss that is
not finite is left out and the sums are scaled up to the whole interval.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from decimal import Decimal, getcontext

# Eq 7 as it stands multiplies rounding errors; with this many digits nothing of that is seen.
getcontext().prec = 100

ACTIONS = ("avw", "min_loss", "max_loss", "equal")


# -- random numbers: SplitMix64 as published (Steele, Lea and Flood, OOPSLA 2014) ------------------


class SplitMix64:
    """The generator as its authors write it: a state that walks by the golden gamma."""

    GOLDEN_GAMMA = 0x9E3779B97F4A7C15

    def __init__(self, seed: int) -> None:
        self.state = seed % 2**64

    @staticmethod
    def mix(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        return z ^ (z >> 31)

    def next(self) -> int:
        self.state = (self.state + self.GOLDEN_GAMMA) % 2**64
        return self.mix(self.state)


def uniforms(seed: int, stream: str, count: int) -> list[float]:
    """The draws of intervals 1 to `count`: the top 53 bits of SplitMix64's outputs, as numbers in [0, 1)."""
    crc = zlib.crc32(stream.encode())
    key = SplitMix64.mix((SplitMix64.mix(seed % 2**64) + (1 + crc) * SplitMix64.GOLDEN_GAMMA) % 2**64)
    generator = SplitMix64(key)
    return [(generator.next() >> 11) / 2**53 for _ in range(count)]


# -- equations 2 to 7 ------------------------------------------------------------------------------


def interval_loss(losses: list[float]) -> float:
    """Eq 2."""
    return math.fsum(losses)


def variance(losses: list[float]) -> float:
    """Eq 3."""
    alpha = len(losses)
    mean = interval_loss(losses) / alpha
    return math.fsum((loss - mean) ** 2 for loss in losses) / (alpha - 1)


def variance_reduction(before: float, now: float, epsilon: float) -> float:
    """Eq 4."""
    return (before - now) / (before + epsilon)


def weights(selected: list[int], loss: list[float], amplification: float) -> list[float]:
    """Eq 5."""
    total = math.fsum(loss)
    if total == 0:
        return [1.0] * len(loss)
    return [1 + amplification * loss[i] / total if i in selected else 1.0 for i in range(len(loss))]


def reward(before: list[float], now: list[float]) -> int:
    """Eq 6."""
    fall = math.fsum(before) - math.fsum(now)
    return (fall > 0) - (fall < 0)


def reinforce(
    p: list[Decimal], action: int, reward: int, gamma: float, beta_min: float, beta_max: float
) -> list[Decimal]:
    """Eq 7."""
    moved = p[action] + Decimal(gamma) if reward > 0 else p[action] - Decimal(gamma)
    moved = min(max(moved, Decimal(beta_min)), Decimal(beta_max))
    return [moved if q == action else p[q] * (1 - moved) / (1 - p[action]) for q in range(len(p))]


def best(score: list[float], count: int) -> list[int]:
    """The levels with the highest score; of equals the finer, which comes first."""
    return sorted(range(len(score)), key=lambda i: (-score[i], i))[:count]


# -- one run ---------------------------------------------------------------------------------------


@dataclass
class Settings:
    strategy: str = "rlo"
    alpha: int = 100
    amplification: float = 1.5
    top_k: int = 2
    step: float = 0.01
    p_min: float = 0.1
    p_max: float = 0.9
    actions: tuple[str, ...] = ACTIONS
    epsilon: float = 1e-5
    seed: int = 0
    group: str = "all"


@dataclass
class Interval:
    loss: list[float]
    variance: list[float]
    variance_reduction: list[float]
    weights: list[float]
    reward: int = 0
    action: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)


def run(losses: list[list[float]], settings: Settings) -> list[Interval]:
    """All whole intervals of ``losses[iteration][level]``."""
    levels = len(losses[0])
    before_loss, before_variance = None, [1.0] * levels
    p = [1 / Decimal(len(settings.actions))] * len(settings.actions)
    last_action = None
    whole = len(losses) // settings.alpha
    draws = uniforms(settings.seed, settings.group, whole)
    done = []
    for t in range(whole):
        rows = losses[t * settings.alpha : (t + 1) * settings.alpha]
        rows = [row for row in rows if all(math.isfinite(loss) for loss in row)]
        by_level = [[row[i] for row in rows] for i in range(levels)]
        loss = [interval_loss(series) * settings.alpha / len(rows) for series in by_level]
        var = [variance(series) for series in by_level]
        r = [variance_reduction(before_variance[i], var[i], settings.epsilon) for i in range(levels)]

        selections = {
            "avw": best(r, settings.top_k),
            "min_loss": best([-x for x in loss], settings.top_k),
            "max_loss": best(loss, settings.top_k),
            "equal": [],
        }
        earned, action = 0, settings.strategy
        if settings.strategy == "rlo":
            if last_action is not None:
                earned = reward(before_loss, loss)
                p = reinforce(p, last_action, earned, settings.step, settings.p_min, settings.p_max)
            last_action, passed = 0, p[0]
            while passed <= draws[t] and last_action < len(p) - 1:
                last_action += 1
                passed += p[last_action]
            action = settings.actions[last_action]
        w = weights(selections[action], loss, settings.amplification)
        probabilities = {}
        if settings.strategy == "rlo":
            probabilities = dict(zip(settings.actions, map(float, p), strict=True))
        done.append(Interval(loss, var, r, w, earned, action, probabilities))
        before_loss, before_variance = loss, var
    return done
