"""Smooth Tchebycheff scalarization."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from msbal.baselines.masked import fill_softmax, has_loss
from msbal.engine.statistics import IntervalStatistics
from msbal.engine.strategies.base import Decision, State, Strategy, refuse_unless
from msbal.engine.strategies.registry import register


@register
@dataclass(frozen=True)
class STCH(Strategy):
    """Follows the gradient of a smooth maximum: favours the level with the largest loss.

    Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML 2024, arXiv 2402.19078:
    minimises ``mu log sum_i exp(c_i (f_i - z_i) / mu)``, whose gradient is
    ``sum_i w_i grad f_i, w_i ~ c_i softmax(c (f - z) / mu)_i``; rescaled to the sum K. Deviates: z, the least that each
    loss can be, is 0. f is the interval's loss, which is nearer to the paper's loss over all data than a batch's, in
    units of the levels' mean loss in the first interval, so that neither the interval nor the model changes what mu
    means. A level without positives, or with a loss of zero, has the weight 1 and is no term of the sum.

    TorchJD's ``STCH(mu / K)`` of the same f gives these weights times a factor: its preferences sum to 1, ours to K.
    The authors' own code, and LibMTL's after it, take the logarithm of each loss divided by an early mean of its own,
    n_i, since tasks differ in unit: there weights are proportional to ``(f_i / n_i)^(1 / mu) / f_i``. The levels of one
    head share a unit. To compare each with its own beginning all the same, give ``1 / n_i`` as `preference`.

    Attributes:
        mu: how smooth; small values leave only the level with the largest loss. The paper tries 0.01 to 1.
        preference: c, one number above 0 per level, finest first; only their ratios count. By default all alike.
    """

    name: ClassVar[str] = "stch"
    mu: float = 1.0
    preference: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        refuse_unless(0 < self.mu < math.inf, "mu", "finite and above 0", self.mu)
        if self.preference is not None:
            object.__setattr__(self, "preference", tuple(map(float, self.preference)))
            fits, words = (
                all(0 < c < math.inf for c in self.preference),
                "finite numbers above 0, one per level",
            )
            refuse_unless(fits, "preference", words, list(self.preference))

    def check(self, levels: int) -> None:
        fits = self.preference is None or len(self.preference) == levels
        words = f"{levels} numbers, one per level"
        refuse_unless(fits, "preference", words, self.preference and len(self.preference))

    def initial_state(self, levels: int) -> State:
        return {"first": [0.0] * levels}

    def decide(self, statistics: IntervalStatistics, state: State, rng: np.random.Generator) -> Decision:
        loss, kept = statistics.loss, has_loss(statistics)
        first = np.array(state["first"])
        first = np.where(kept & (first == 0), loss, first)
        state = {"first": first.tolist()}
        if not kept.any():
            return np.ones(len(loss)), state
        preference = np.array(self.preference or [1.0] * len(loss))
        preference /= preference.mean()
        unit = first[first > 0].mean()
        with np.errstate(over="ignore"):
            logits = preference * loss / unit / self.mu + np.log(preference)
        return fill_softmax(logits[kept], kept), state
