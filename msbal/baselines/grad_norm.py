"""Equal gradient norms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from msbal.baselines.averaged_gramian import GramianStrategy, Mask
from msbal.engine.statistics import Array, IntervalStatistics
from msbal.engine.strategies.base import Decision, State, refuse_unless
from msbal.engine.strategies.registry import register


@register
@dataclass(frozen=True)
class GradNorm(GramianStrategy):
    """Gives every level's gradient the same norm.

    Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks", ICML 2018,
    arXiv 1711.02257: weights for which ``w_i ||g_i||`` is the mean norm times ``r_i^alpha``, r the loss relative to the
    initial one, over the levels' mean of that. Deviates: there the weights approach this by a step of gradient descent
    in every iteration, with g on the last shared layer; here they are its solution, ``w_i ~ r_i^alpha / ||g_i||``, once
    an interval, with g on all parameters that levels share, and the first interval's loss as the initial one. alpha is
    0 by default. The norms are averaged over intervals, and none counts as less than 1 / cap of the largest.

    Attributes:
        alpha: how strongly to favour levels whose loss has fallen less than the others'; 0 is equal norms. The paper
            used 0.12 to 1.5.
        cap: the largest ratio of two weights where alpha is 0, so that a level with hardly a box, and so hardly a
            gradient, does not take all the weight.
    """

    name: ClassVar[str] = "grad_norm"
    alpha: float = 0.0
    cap: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_unless(0 <= self.alpha <= 10, "alpha", "between 0 and 10", self.alpha)
        refuse_unless(1 < self.cap < math.inf, "cap", "finite and above 1", self.cap)

    def weigh_gramian(
        self,
        gramian: Array,
        kept: Mask,
        statistics: IntervalStatistics,
        state: State,
        rng: np.random.Generator,
    ) -> Decision:
        norms = np.sqrt(np.diagonal(gramian))
        weights = 1 / np.maximum(norms, norms.max() / self.cap)
        if not self.alpha:
            return weights, {}
        first = np.array(state.get("first_loss", statistics.loss))
        now, before = statistics.loss[kept], first[kept]
        ratio = np.ones(len(now))
        known = (now > 0) & (before > 0)
        if known.any():
            ratio[known] = now[known] / before[known]
            ratio[known] /= ratio[known].mean()
        return weights * ratio**self.alpha, {"first_loss": first.tolist()}
