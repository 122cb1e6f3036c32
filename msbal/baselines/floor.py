"""A floor under each level's share of the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from msbal.baselines.masked import has_loss
from msbal.engine.statistics import IntervalStatistics
from msbal.engine.strategies.actions import shares
from msbal.engine.strategies.base import Decision, State, Strategy, refuse_unless
from msbal.engine.strategies.registry import register


@register
@dataclass(frozen=True)
class Floor(Strategy):
    """Raises the levels that hold too little of the loss, and leaves the others alone.

    ``w_i = min(c, tau / share_i)`` where level i's share of the interval's loss is below tau, else 1. After Chen et
    al., "Stitcher: Feedback-Driven Data Provider for Object Detection", 2020, arXiv 2004.12432, which stitches the next
    batch of shrunken images if small objects held less than tau = 0.1 of the loss. Deviates: it raises the weight, not
    the number of objects, and that of each level. The sum is K only with the balancer's `rescale`. A level without
    positives in the interval, or with a loss of zero, has the weight 1.

    Attributes:
        share: tau, the least share of the loss that a level should have.
        cap: c, the largest weight.
    """

    name: ClassVar[str] = "floor"
    share: float = 0.1
    cap: float = 5.0

    def __post_init__(self) -> None:
        refuse_unless(0 < self.share < 1, "share", "between 0 and 1", self.share)
        refuse_unless(1 < self.cap < math.inf, "cap", "finite and above 1", self.cap)

    def check(self, levels: int) -> None:
        words = f"at most {1 / levels:.4g}, the share of {levels} equal levels"
        refuse_unless(self.share <= 1 / levels, "share", words, self.share)

    def decide(self, statistics: IntervalStatistics, state: State, rng: np.random.Generator) -> Decision:
        share = shares(statistics.loss)
        low = has_loss(statistics) & (share < self.share)
        weights = np.ones(len(share))
        weights[low] = self.share / np.maximum(share[low], self.share / self.cap)
        return weights, state
