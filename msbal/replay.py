"""A strategy over recorded losses: what alpha, lambda or gamma would have done, without training.

The recorded losses are taken as they are: in a real run other weights would have led to other losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from msbal.engine import Balancer, IntervalReport, StepStrategy, Strategy
from msbal.engine.draw import Draw
from msbal.engine.host import numbers_of
from msbal.engine.interval import end_interval, initial_memory, on_host
from msbal.engine.report import Layout, pack, unpack
from msbal.engine.statistics import EPSILON
from msbal.records.losses_log import RecordedLosses


def replay(
    losses: RecordedLosses, strategy: Strategy, interval: int, seed: int = 0, epsilon: float = EPSILON
) -> Iterator[IntervalReport]:
    """The reports that a run with these losses would have written, one an interval.

    An unfinished last interval decides nothing.

    Raises:
        ValueError: where the levels do not fit the strategy.
        DataError: where a line of the file cannot be read.
    """
    balancer = Balancer(
        losses.levels, strategy, terms=losses.terms, interval=interval, seed=seed, group=losses.group,
        epsilon=epsilon,
    )  # fmt: skip
    rows = losses.rows()
    if isinstance(strategy, StepStrategy):
        for row in rows:
            balancer(torch.tensor(row, dtype=torch.float64))
            yield from balancer.reports()
        return
    # Whole intervals at once, through the same functions that a balancer calls at an interval's end.
    layout = Layout(losses.levels, losses.terms, strategy.action_names, strategy.name, losses.group, interval)
    memory = initial_memory(strategy, len(losses.levels))
    draw = Draw(seed, losses.group)
    positives: Any = torch.zeros(len(losses.levels), dtype=torch.float64)
    if strategy.takes_numbers():
        memory, positives = on_host(memory), numbers_of(positives)
    while len(chunk := list(islice(rows, interval))) == interval:
        values = torch.tensor([chunk], dtype=torch.float64)
        new, statistics = end_interval(strategy, memory, values, positives, draw, epsilon)
        yield unpack(pack(memory, new, statistics, values), layout, knows_positives=False)
        memory = new
