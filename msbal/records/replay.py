"""Run a strategy over recorded losses: what another alpha, lambda or gamma would have done, without training.

The losses are taken as recorded; in a real run other weights would have led to other losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch

from msbal.engine import Balancer, IntervalReport, StepStrategy, Strategy
from msbal.engine.interval import Memory, end_interval
from msbal.engine.settings import Settings
from msbal.engine.statistics import EPSILON
from msbal.records.losses_log import RecordedLosses


def replay(
    losses: RecordedLosses,
    strategy: Strategy,
    interval: int,
    seed: int = 0,
    epsilon: float = EPSILON,
    rescale: bool = False,
) -> Iterator[IntervalReport]:
    """Yield the reports that a run with these losses would have made, one an interval.

    An unfinished last interval decides nothing.

    Raises:
        ValueError: where the levels do not fit the strategy, or it decides by gradients.
        StrategyError: where the strategy fails.
        DataError: where a line of the file cannot be read.
    """
    if strategy.needs_gradients:
        raise ValueError(
            f"`{strategy.name}` decides by the levels' gradients, and recorded losses have none."
        )
    settings = Settings(losses.levels, losses.terms, strategy, interval, seed, losses.group, epsilon, rescale)
    rows = losses.rows()
    if isinstance(strategy, StepStrategy):
        balancer = Balancer(**vars(settings))
        for row in rows:
            balancer(torch.tensor(row, dtype=torch.float64))
            yield from balancer.reports()
        return
    memory = Memory.initial(settings)
    while len(chunk := list(islice(rows, interval))) == interval:
        memory, report = end_interval(settings, memory, np.array([chunk]))
        yield report
