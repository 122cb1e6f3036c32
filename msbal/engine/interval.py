"""One interval's end: losses and state in, new state out, as one pure function on the device."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from msbal.engine.draw import Draw
from msbal.engine.host import all_finite, choose, numbers_of
from msbal.engine.statistics import IntervalStatistics, host_moments, interval_moments, variance_reduction
from msbal.engine.strategies.base import State, Strategy


class Memory(NamedTuple):
    """What an interval leaves to the next.

    Attributes:
        interval: int64 scalar, intervals ended so far.
        weights: ``[K]`` float64.
        previous_loss: ``[K]`` float64; zeros before the first interval.
        previous_variance: ``[K]`` float64; ones before the first interval (the paper's Var_0).
        strategy: the strategy's own state.
    """

    interval: Tensor
    weights: Tensor
    previous_loss: Tensor
    previous_variance: Tensor
    strategy: State


def initial_memory(strategy: Strategy, levels: int) -> Memory:
    """The memory before the first interval, on the CPU."""
    return Memory(
        interval=torch.tensor(0, dtype=torch.int64),
        weights=strategy.initial_weights(levels).to(torch.float64),
        previous_loss=torch.zeros(levels, dtype=torch.float64),
        previous_variance=torch.ones(levels, dtype=torch.float64),
        strategy=strategy.initial_state(levels),
    )


def on_host(memory: Memory) -> Memory:
    """The same as `Numbers` and Python numbers."""
    return Memory(
        interval=numbers_of(memory.interval),
        weights=numbers_of(memory.weights),
        previous_loss=numbers_of(memory.previous_loss),
        previous_variance=numbers_of(memory.previous_variance),
        strategy={key: numbers_of(value) for key, value in memory.strategy.items()},
    )


def end_interval(
    strategy: Strategy, memory: Memory, losses: Tensor, positives: Tensor, draw: Draw, epsilon: float
) -> tuple[Memory, IntervalStatistics]:
    """Decide the next interval's weights.

    With fewer than two finite iterations there is no variance: the interval is counted, reported, and
    decides nothing.

    Args:
        memory: of tensors; or `on_host`, for a strategy that takes numbers and losses in the host's memory. What
            is returned is of the same kind.
        losses: ``[R, A, T, K]`` float64, the interval's unweighted losses on all ranks.
        positives: ``[K]`` float64, over the interval and all ranks.
    """
    moments: Any = interval_moments if isinstance(memory.weights, Tensor) else host_moments
    count, loss, loss_by_term, variance = moments(losses)
    interval = memory.interval + 1
    statistics = IntervalStatistics(
        interval=interval,
        count=count,
        loss=loss,
        loss_by_term=loss_by_term,
        variance=variance,
        variance_reduction=variance_reduction(memory.previous_variance, variance, epsilon),
        previous_loss=memory.previous_loss,
        positives=positives,
        weights=memory.weights,
    )
    weights, state = strategy.decide(statistics, memory.strategy, draw)
    # Of fewer than two iterations the variance, of none the loss is NaN. And a finite loss can overflow in
    # a sum or a square; then, too, nothing is decided.
    usable = all_finite(loss, variance, weights)
    new = Memory(
        interval=interval,
        weights=choose(usable, weights, memory.weights),
        previous_loss=choose(usable, loss, memory.previous_loss),
        previous_variance=choose(usable, variance, memory.previous_variance),
        strategy={key: choose(usable, state[key], old) for key, old in memory.strategy.items()},
    )
    return new, statistics
