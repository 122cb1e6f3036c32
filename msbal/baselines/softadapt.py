"""SoftAdapt."""

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
class SoftAdapt(Strategy):
    """Favours the levels whose loss rises, or falls least, from one interval to the next.

    Heydari, Thompson and Mehmood, "SoftAdapt: Techniques for Adaptive Loss Weighting of Neural Networks with
    Multi-Part Loss Functions", 2019, arXiv 1912.12355: ``w = K softmax(beta s)``, ``s_i = L_i(t) - L_i(t-1)``. Its two
    variants, which can be combined: normalized, s divided by ``sum_j |s_j|``; loss-weighted, each exponential times
    ``L_i(t)``. Deviates: L is the interval's, and s one difference, not one over up to five losses; normalized by
    default, since s by itself grows with the interval and shrinks as training goes on. (The authors' code divides by
    ``sum_j s_j``, which is negative while the losses fall, and so favours the level that falls most.) A level without
    positives in the interval, or with a loss of zero in one of the two, has the weight 1.

    Attributes:
        beta: how strongly. Below 0 it favours the levels whose loss falls most; 0 weighs all alike. The authors' 0.1
            is for differences that are not normalized.
        normalized: whether to divide the differences by the sum of their absolute values, so that only the levels'
            shares of the change count.
        loss_weighted: whether to multiply by the losses, too, so that of two levels that change alike the one with the
            larger loss counts more.
    """

    name: ClassVar[str] = "softadapt"
    beta: float = 1.0
    normalized: bool = True
    loss_weighted: bool = False

    def __post_init__(self) -> None:
        refuse_unless(math.isfinite(self.beta), "beta", "a finite number", self.beta)

    def decide(self, statistics: IntervalStatistics, state: State, rng: np.random.Generator) -> Decision:
        kept = has_loss(statistics) & (statistics.previous_loss > 0)
        loss = statistics.loss[kept]
        change = loss - statistics.previous_loss[kept]
        if self.normalized and change.any():
            change = (
                change / np.abs(change).max()
            )  # first, as their sum could overflow, or be too small to divide by
            change = change / np.abs(change).sum()
        with np.errstate(over="ignore"):
            logits = self.beta * change
        return fill_softmax(logits + np.log(loss) if self.loss_weighted else logits, kept), state
