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
from typing import Literal

# Eq 7 as it stands multiplies rounding errors; with this many digits nothing of that is seen.
getcontext().prec = 100

ACTIONS = ("avw", "min_loss", "max_loss", "equal")


# -- random numbers: Philox4x64-10 as published (Salmon et al., SC 2011) ---------------------------


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """One block: ten rounds, each two multiplications, with a key that walks by two Weyl constants."""
    a, b, c, d = counter
    k, m = key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (
            (second >> 64) ^ b ^ k, second % 2**64,
            (first >> 64) ^ d ^ m, first % 2**64,
        )  # fmt: skip
        k, m = (k + 0x9E3779B97F4A7C15) % 2**64, (m + 0xBB67AE8584CAA73B) % 2**64
    return a, b, c, d


def uniform(seed: int, group: str, interval: int) -> float:
    """The draw of one interval: the top 53 bits of the first output, as a number in [0, 1).

    NumPy raises the counter before it makes a block, so the first has 1 in its lowest word.
    """
    first, *_ = philox((1, interval, 0, 0), (seed % 2**64, zlib.crc32(group.encode())))
    return (first >> 11) / 2**53


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


def trend_reward(totals: list[float]) -> int | None:
    """`reward: trend`, from the total losses of all intervals so far; None where there is nothing to compare with.

    Each interval t has a pace: t, less a half, times the fall relative to the mean of the two losses. It is compared
    with the moving average of those before.
    """
    paces = []
    for t in range(2, len(totals) + 1):
        before, now = totals[t - 2], totals[t - 1]
        mean = (before + now) / 2
        paces.append((t - 0.5) * (before - now) / mean if mean > 0 else 0.0)
    if len(paces) < 2:
        return None
    average = paces[0]
    for pace in paces[1:-1]:
        average = 0.7 * average + 0.3 * pace
    return (paces[-1] > average) - (paces[-1] < average)


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
    reward: Literal["fall", "trend"] = "fall"
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
                judged: int | None = reward(before_loss, loss)
                if settings.reward == "trend":
                    judged = trend_reward([math.fsum(one.loss) for one in done] + [math.fsum(loss)])
                earned = judged or 0
                if judged is not None:
                    p = reinforce(p, last_action, judged, settings.step, settings.p_min, settings.p_max)
            last_action, passed = 0, p[0]
            drawn = uniform(settings.seed, settings.group, t + 1)
            while passed <= drawn and last_action < len(p) - 1:
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
