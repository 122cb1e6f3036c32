"""Relative loss balancing with random lookback."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from msbal.baselines.masked import fill_softmax, has_loss
from msbal.engine.statistics import IntervalStatistics
from msbal.engine.strategies.base import Decision, State, Strategy, refuse_unless, rescaled
from msbal.engine.strategies.registry import register


@register
@dataclass(frozen=True)
class ReLoBRaLo(Strategy):
    """Favours the levels whose loss falls slowest, against the interval before and, now and then, against the first.

    Bischof and Kraus, "Multi-Objective Loss Balancing for Physics-Informed Deep Learning", 2021, arXiv 2110.09813
    (ReLoBRaLo): with ``b(u) = K softmax(L(t) / (T L(u)))``,
    ``w(t) = a (r w(t-1) + (1 - r) b(0)) + (1 - a) b(t-1)``, r mostly 1 and, by chance, 0: a look back
    puts the progress since the start in place of the weights' history. As in the authors' code the first comparison
    replaces the weights that training began with. Deviates: t is an interval, not a step, and the defaults are for
    that; L(0) is the loss of the first interval in which the level has positives and a loss above zero. A level without
    positives in the interval, or with a loss of zero in it or the one before, has the weight 1 and no part in b.

    Attributes:
        decay: a, how much of the weights' history is kept from interval to interval. The authors' 0.999 a step is 0.9
            in 100 steps.
        lookback: the probability, in each interval, that the history is replaced by the progress since the first:
            1 minus the paper's expectation of r.
        temperature: T; the larger, the more equal the weights.
    """

    name: ClassVar[str] = "relobralo"
    decay: float = 0.9
    lookback: float = 0.1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        refuse_unless(0 <= self.decay < 1, "decay", "at least 0 and below 1", self.decay)
        refuse_unless(0 <= self.lookback <= 1, "lookback", "from 0 to 1", self.lookback)
        refuse_unless(0 < self.temperature < math.inf, "temperature", "finite and above 0", self.temperature)

    def initial_state(self, levels: int) -> State:
        return {"first": [0.0] * levels}

    def decide(self, statistics: IntervalStatistics, state: State, rng: np.random.Generator) -> Decision:
        loss, previous, found = statistics.loss, statistics.previous_loss, has_loss(statistics)
        first = np.array(state["first"])
        first = np.where(found & (first == 0), loss, first)
        kept, weights, state = found & (previous > 0), np.ones(len(loss)), {"first": first.tolist()}
        if not kept.any():
            return weights, state
        with np.errstate(over="ignore"):
            since_first = fill_softmax(loss[kept] / first[kept] / self.temperature, kept)[kept]
            since_last = fill_softmax(loss[kept] / previous[kept] / self.temperature, kept)[kept]
        # They have to sum to the number of kept levels again, as there may be others than in the interval before.
        history = rescaled(np.maximum(statistics.weights[kept], 1e-9))
        if rng.random() < self.lookback or (first[kept] == previous[kept]).all():
            history = since_first
        weights[kept] = self.decay * history + (1 - self.decay) * since_last
        return weights, state
