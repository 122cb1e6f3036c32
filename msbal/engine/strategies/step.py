"""Strategies that weigh at every iteration: the one kind that is tensor code, so that no iteration has to wait.

Tensors are float64, on the losses' device.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from msbal.engine.processes import all_gather, world_size
from msbal.engine.statistics import Array, IntervalStatistics
from msbal.engine.strategies.base import Decision, State, Strategy, naming

Tensors: TypeAlias = Mapping[str, Tensor]


class Iteration(NamedTuple):
    """What a `StepStrategy` may look at.

    Attributes:
        losses: ``[K]``, detached, over all terms; averaged over ranks.
        positives: ``[K]``, summed over ranks, or None where they are unknown.
        empty: ``[K]`` mask: no positives, or a loss of 0 or below, which has no useful ratio or logarithm.
        draws: this iteration's row of `StepStrategy.draws`, or None.
    """

    losses: Tensor
    positives: Tensor | None
    empty: Tensor
    draws: Tensor | None


class Weighing(NamedTuple):
    """A `StepStrategy`'s answer to one iteration.

    Attributes:
        weights: ``[K]``, finite and at least 0.
        state: the new state, without the parameters.
        gradients: ``[K]`` each, what the parameters receive when the total is differentiated.
    """

    weights: Tensor
    state: Tensors = {}  # noqa: RUF012 - nobody writes into these
    gradients: Tensors = {}  # noqa: RUF012


@dataclass(frozen=True)
class StepStrategy(Strategy):
    """Weighs anew at every iteration, from that iteration's losses.

    Its state is numbers and lists in checkpoints, like any strategy's, and tensors where it is used.
    """

    needs_positives: ClassVar[bool] = False

    def initial_parameters(self, levels: int) -> Mapping[str, list[float]]:
        """Return the parameters to learn, ``[K]`` each. They become the balancer's; give them to the optimizer."""
        return {}

    def draws(self, rng: np.random.Generator, interval: int, levels: int) -> Array | None:
        """Draw ``[A, ...]`` random numbers for the A iterations of an interval, before it."""
        return None

    @abstractmethod
    def weigh(self, iteration: Iteration, state: Tensors) -> Weighing:
        """Weigh this iteration, without waiting for the device: no ``item()``, no ``if`` on a tensor.

        `state` includes the detached parameters. For an iteration that is not finite the result is discarded.
        """

    def decide(self, statistics: IntervalStatistics, state: State, rng: np.random.Generator) -> Decision:
        """Return the weights of the last iteration."""
        return statistics.weights, state


def weigh(
    strategy: StepStrategy, iteration: Iteration, before: Weighing, learned: Tensors, rescale: bool
) -> Weighing:
    """Call `StepStrategy.weigh`, but ignore an iteration that is not finite; with `rescale` the weights' sum is K.

    Raises:
        StrategyError: where it fails, or returns something else.
    """
    levels = len(iteration.losses)
    with naming(strategy, "weigh()"):
        found = strategy.weigh(iteration, {**before.state, **learned})
        if not isinstance(found, Weighing) or found.weights.shape != (levels,):
            raise TypeError(f"a Weighing with weights [{levels}] was expected, not {str(found)[:100]}")
        finite = (iteration.losses * 0.0).sum() == 0.0  # times 0, only what is finite is 0
        weights = torch.where(finite, found.weights, before.weights)
        return Weighing(
            weights * (levels / weights.sum()) if rescale else weights,
            {key: torch.where(finite, found.state[key], old) for key, old in before.state.items()},
            {key: torch.where(finite, found.gradients[key], 0.0) for key in learned},
        )


def iteration_of(losses: Tensor, positives: Tensor | None, draws: Tensor | None) -> Iteration:
    """Make an iteration from this rank's losses and positives ``[K]``; a collective."""
    if world_size() > 1:
        rows = all_gather(losses if positives is None else torch.cat([losses, positives.to(losses.dtype)]))
        positives = None if positives is None else rows[:, len(losses) :].sum(dim=0)
        losses = rows[:, : len(losses)].mean(dim=0)
    least = losses if positives is None else torch.minimum(losses, positives)
    return Iteration(losses, positives, least <= 0.0, draws)
