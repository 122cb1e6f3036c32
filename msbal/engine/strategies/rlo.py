"""Reinforcement Learning Optimization, the paper's section 2.3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from msbal.engine.statistics import Array, IntervalStatistics
from msbal.engine.strategies.actions import Equal, SelectionStrategy
from msbal.engine.strategies.base import Decision, State, Strategy, refuse_unless
from msbal.engine.strategies.registry import available, register

ACTIONS = ("avw", "min_loss", "max_loss", "equal")
"""The paper's a0 to a3."""

REWARDS = ("fall", "trend")

TREND_DECAY = 0.7
"""Of the moving average that the pace of a fall is compared with by `reward: trend`."""


def reward(previous_loss: Array, loss: Array) -> int:
    """Return eq 6: the sign (-1, 0 or 1) of the fall of the total loss; the losses are ``[K]``."""
    return int(np.sign(previous_loss.sum() - loss.sum()))


def pace(previous_loss: Array, loss: Array, interval: int) -> float:
    """Return how fast the total loss falls in interval t: about p where it falls as ``t ** -p``, below 0 if it rises.

    Losses fall ever more slowly, about as a power of t. A bare fall, even a relative one, is therefore nearly always
    below the moving average of those before; the pace of such a curve is constant. A rise counts as much as the fall
    that undoes it, and neither counts more than ``2 t - 1``.
    """
    before, now = previous_loss.sum(), loss.sum()
    return float((2 * interval - 1) * (before - now) / ((abs(before) + abs(now)) or 1.0))


def reinforce(
    p: dict[str, float], action: str, reward: int, step: float, p_min: float, p_max: float
) -> dict[str, float]:
    """Apply eq 7: raise the probability of a rewarded action, lower it after any other outcome. `step` is gamma.

    Only that action's probability is kept within [p_min, p_max]; the others are rescaled so that the sum stays 1, and
    may leave it. They are divided by their own sum, which equals the paper's ``1 - p`` but does not accumulate its
    rounding over thousands of intervals.
    """
    moved = min(max(p[action] + (step if reward > 0 else -step), p_min), p_max)
    others = sum(p[q] for q in p if q != action)
    return {q: moved if q == action else p[q] * (1.0 - moved) / others for q in p}


@register
@dataclass(frozen=True)
class RLO(Strategy):
    """Picks one of several strategies at every interval's end, by probabilities that rewards move.

    Attributes:
        amplification: lambda of eq 5, for every action that amplifies.
        top_k: levels that such an action amplifies.
        step: gamma of eq 7.
        p_min, p_max: beta of eq 7, the bounds of the rewarded or punished action's probability.
        actions: names of strategies, at least two; the paper's four by default. Their initial
            probabilities are equal.
        reward: what earns +1. `fall`: that the total loss fell (eq 6). `trend`: that it fell faster than lately. While
            all losses fall, eq 6 rewards whatever was chosen, `trend` about every other choice.
    """

    name: ClassVar[str] = "rlo"
    amplification: float = 1.5
    top_k: int = 2
    step: float = 0.01
    p_min: float = 0.1
    p_max: float = 0.9
    actions: tuple[str, ...] = ACTIONS
    reward: Literal["fall", "trend"] = "fall"

    def __post_init__(self) -> None:
        object.__setattr__(self, "actions", tuple(self.actions))
        words = "at least two different names (for one, use it as the strategy itself)"
        refuse_unless(len(set(self.actions)) == len(self.actions) >= 2, "actions", words, list(self.actions))
        refuse_unless(self.reward in REWARDS, "reward", f"one of {', '.join(REWARDS)}", f"`{self.reward}`")
        refuse_unless(0 < self.step < 1, "step", "between 0 and 1", self.step)
        bounds, start = f"{self.p_min} and {self.p_max}", 1 / len(self.actions)
        refuse_unless(0 < self.p_min < self.p_max < 1, "p_min and p_max", "0 < p_min < p_max < 1", bounds)
        words = f"on both sides of the initial probability of {len(self.actions)} actions, {start:.4g}"
        refuse_unless(self.p_min <= start <= self.p_max, "p_min and p_max", words, bounds)
        for action in self.actions:
            self._strategy(action)

    def _strategy(self, action: str) -> Strategy:
        """Return the strategy of an action."""
        known = available()
        kind = known.get(action)
        if kind is not None and issubclass(kind, SelectionStrategy):
            return kind(amplification=self.amplification, top_k=self.top_k)
        fit = sorted(n for n, found in known.items() if issubclass(found, SelectionStrategy | Equal))
        refuse_unless(action in fit, "actions", f"from {', '.join(fit)}", f"`{action}`")
        return known[action]()

    def check(self, levels: int) -> None:
        for action in self.actions:
            self._strategy(action).check(levels)

    def initial_state(self, levels: int) -> State:
        start = dict.fromkeys(self.actions, 1 / len(self.actions))
        return {"probabilities": start, "action": "", "reward": 0}

    def _judge(self, statistics: IntervalStatistics, state: State) -> tuple[int | None, State]:
        """Return the reward of the action in force, None where it cannot be judged yet, and the new trend, if any."""
        if not state["action"]:  # before any has been taken there is nothing to reward
            return None, {}
        if self.reward == "fall":
            return reward(statistics.previous_loss, statistics.loss), {}
        fall = pace(statistics.previous_loss, statistics.loss, statistics.interval)
        trend = state.get("trend")
        if trend is None:
            return None, {"trend": fall}
        return int(np.sign(fall - trend)), {"trend": TREND_DECAY * trend + (1 - TREND_DECAY) * fall}

    def decide(self, statistics: IntervalStatistics, state: State, rng: np.random.Generator) -> Decision:
        p = dict(state["probabilities"])
        earned, trend = self._judge(statistics, state)
        if earned is not None:
            p = reinforce(p, state["action"], earned, self.step, self.p_min, self.p_max)
        # The inverse of the cumulative distribution. The last sum may round to less than the draw, hence `min`.
        passed = np.searchsorted(np.cumsum(list(p.values())), rng.random(), side="right")
        action = self.actions[min(int(passed), len(self.actions) - 1)]
        weights, _ = self._strategy(action).decide(statistics, {}, rng)
        return weights, {"probabilities": p, "action": action, "reward": earned or 0, **trend}
