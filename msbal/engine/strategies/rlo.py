"""Reinforcement Learning Optimization, the paper's section 2.3."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from msbal.engine.draw import Draw
from msbal.engine.numbers import Numbers
from msbal.engine.statistics import IntervalStatistics
from msbal.engine.strategies.base import State, Strategy, available, ones, register
from msbal.engine.strategies.selection import SelectionStrategy
from msbal.engine.weighting import amplify_top

EQUAL = "equal"

ACTIONS = ("avw", "min_loss", "max_loss", EQUAL)
"""The paper's a0 to a3."""


def reward(previous_loss: Tensor, loss: Tensor) -> Tensor:
    """Eq 6: the sign (-1, 0 or 1) of the fall of the total loss; ``[K]`` each, float64."""
    return torch.sign(previous_loss.sum() - loss.sum())


def reinforce(
    probabilities: Tensor, action: Tensor, reward: Tensor, step: float, p_min: float, p_max: float
) -> Tensor:
    """Eq 7: raise the probability of a rewarded action, lower that of any other outcome.

    Only the action's own probability is kept within [p_min, p_max]; the others are rescaled so that
    the sum stays 1, and may leave it. They are divided by their own sum, not by the ``1 - p`` of the
    paper, which it equals: over thousands of intervals the rounding of ``1 - p`` would grow.

    Args:
        probabilities: ``[A]``.
        action: int64 scalar, the action that earned the reward; -1 leaves everything as it is.
        reward: scalar; above 0 is a reward, all else a punishment.
        step: gamma.
    """
    chosen = action.clamp_min(0).view(1)
    own = probabilities.index_select(0, chosen)
    moved = torch.where(reward > 0.0, own + step, own - step).clamp(p_min, p_max)
    others = probabilities.index_fill(0, chosen, 0.0)
    rescaled = others * ((1.0 - moved) / others.sum())
    return torch.where(action < 0, probabilities, rescaled.index_copy(0, chosen, moved))


def reinforced(
    probabilities: list[float], action: int, reward: float, step: float, p_min: float, p_max: float
) -> list[float]:
    """`reinforce` of numbers."""
    if action < 0:
        return probabilities
    moved = min(max(probabilities[action] + (step if reward > 0 else -step), p_min), p_max)
    scale = (1.0 - moved) / sum(p for i, p in enumerate(probabilities) if i != action)
    return [moved if i == action else p * scale for i, p in enumerate(probabilities)]


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
    """

    name: ClassVar[str] = "rlo"
    on_numbers: ClassVar[bool] = True
    amplification: float = 1.5
    top_k: int = 2
    step: float = 0.01
    p_min: float = 0.1
    p_max: float = 0.9
    actions: tuple[str, ...] = ACTIONS

    if TYPE_CHECKING:
        _strategies: tuple[Strategy, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "actions", tuple(self.actions))
        if len(self.actions) < 2 or len(set(self.actions)) != len(self.actions):
            raise ValueError(
                f"actions should be at least two different names (for one, use it as the strategy itself). "
                f"Found {list(self.actions)}."
            )
        if not 0 < self.step < 1:
            raise ValueError(f"step should be between 0 and 1. Found {self.step}.")
        if not 0 < self.p_min < self.p_max < 1:
            raise ValueError(
                f"p_min and p_max should be 0 < p_min < p_max < 1. Found {self.p_min} and {self.p_max}."
            )
        start = 1 / len(self.actions)
        if not self.p_min <= start <= self.p_max:
            raise ValueError(
                f"p_min and p_max should have the initial probability of {len(self.actions)} actions, "
                f"{start:.4g}, between them. Found {self.p_min} and {self.p_max}."
            )
        # Made once: `decide` may run inside a compiled graph, where no registry should be looked up.
        object.__setattr__(self, "_strategies", self._make_strategies())

    def _make_strategies(self) -> tuple[Strategy, ...]:
        known = available()
        made = []
        for name in self.actions:
            cls = known.get(name)
            if cls is None or not (name == EQUAL or issubclass(cls, SelectionStrategy)):
                fit = [n for n, c in known.items() if n == EQUAL or issubclass(c, SelectionStrategy)]
                raise ValueError(f"actions should be from {', '.join(sorted(fit))}. Found `{name}`.")
            made.append(
                cls(amplification=self.amplification, top_k=self.top_k)
                if issubclass(cls, SelectionStrategy)
                else cls()
            )
        return tuple(made)

    def takes_numbers(self) -> bool:
        return super().takes_numbers() and all(strategy.takes_numbers() for strategy in self._strategies)

    def check(self, levels: int) -> None:
        for strategy in self._strategies:
            strategy.check(levels)

    def initial_state(self, levels: int) -> dict[str, Tensor]:
        count = len(self.actions)
        return {
            "probabilities": torch.full((count,), 1.0 / count, dtype=torch.float64),
            "action": torch.tensor(-1, dtype=torch.int64),
            "reward": torch.tensor(0.0, dtype=torch.float64),
        }

    @property
    def action_names(self) -> tuple[str, ...]:
        return self.actions

    def decide(self, statistics: IntervalStatistics, state: State, draw: Draw) -> tuple[Tensor, State]:
        if isinstance(statistics.loss, Numbers):
            return self._decide_on_host(statistics, state, draw)
        earned = reward(statistics.previous_loss, statistics.loss).masked_fill(state["action"] < 0, 0.0)
        probabilities = reinforce(
            state["probabilities"], state["action"], earned, self.step, self.p_min, self.p_max
        )
        # Inverse of the cumulative distribution; the clamp is for a last sum that rounds below u.
        below = torch.cumsum(probabilities, 0) <= draw.uniform(statistics.interval)
        action = below.sum().clamp_max(len(self.actions) - 1)
        weights = self._weights_of(action, statistics)
        return weights, {"probabilities": probabilities, "action": action, "reward": earned}

    def _decide_on_host(self, statistics: Any, state: Any, draw: Draw) -> tuple[Any, Any]:
        """`decide` of numbers, which asks the action's own strategy alone."""
        last, earned = state["action"], 0.0
        if last >= 0:
            before, now = statistics.previous_loss.sum(), statistics.loss.sum()
            earned = float(before > now) - float(before < now)
        probabilities = reinforced(
            state["probabilities"].tolist(), last, earned, self.step, self.p_min, self.p_max
        )
        drawn = bisect_right(list(accumulate(probabilities)), draw.number(statistics.interval))
        action = min(drawn, len(self.actions) - 1)
        weights, _ = self._strategies[action].decide(statistics, {}, draw)
        return weights, {
            "probabilities": Numbers(probabilities),
            "action": action,
            "reward": earned,
        }

    def _weights_of(self, action: Tensor, statistics: IntervalStatistics) -> Tensor:
        """What the action's own strategy decides, ``[K]``. Its score is chosen first: eq 5 is then run once."""
        unit = ones(statistics)
        scores = [s.score(statistics) if isinstance(s, SelectionStrategy) else unit for s in self._strategies]
        score = torch.stack(scores).index_select(0, action.view(1)).squeeze(0)
        weights: Tensor = amplify_top(score, statistics.loss, self.top_k, self.amplification)
        if EQUAL not in self.actions:
            return weights
        return torch.where(action == self.actions.index(EQUAL), unit, weights)
