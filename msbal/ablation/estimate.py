"""Estimate how long a grid will take: one step and one prediction are measured, the rest is multiplication."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from msbal.ablation.grid import Cell, Grid
from msbal.engine.gradients import GradientError, LevelGradients
from msbal.errors import SpecError
from msbal.spec import RunSpec, dump_spec
from msbal.training import Plan, prepare

UNKNOWN_BATCH = 2  # if the framework's own config sets the batch size: the usual one


@dataclass(frozen=True)
class Cost:
    """The cost of one run.

    Attributes:
        iterations: how many the run has.
        step: seconds per iteration, with its part of what measuring gradients takes.
        image: seconds to predict one image of the validation split.
        images: how many that split has.
        evaluations: how many the run has.
    """

    iterations: int
    step: float
    image: float
    images: int
    evaluations: int

    @property
    def seconds(self) -> float:
        """Seconds of the whole run."""
        return self.iterations * self.step + self.evaluations * self.images * self.image


def estimate(grid: Grid, told: Callable[[str], None] = lambda line: None) -> dict[str, Cost]:
    """Return the cost of one run of each arm; arms that differ in nothing that takes time share a measurement.

    Args:
        told: called with one line before each measurement.

    Raises:
        MsbalError: if an arm cannot be prepared: a dry run also finds what training would trip over.
    """
    measured: dict[str, Cost] = {}
    costs = {}
    for arm in grid.arms:
        cell = next(cell for cell in grid.cells if cell.arm == arm)
        key = _key(cell.spec)
        if key not in measured:
            told(f"measuring one step of {arm} ...")
            measured[key] = measure(prepare(cell.spec))
        costs[arm] = measured[key]
    return costs


def measure(plan: Plan) -> Cost:
    """Time one forward and backward pass and one prediction; the first of each is a warm-up."""
    spec, detector = plan.spec, plan.detector
    size = spec.schedule.batch_size or UNKNOWN_BATCH
    batch = detector.batch(plan.train, [i % len(plan.train) for i in range(size)])
    # In evaluation mode they weigh, and neither count nor measure.
    balancers = plan.balancers.to(next(detector.model.parameters()).device).eval()
    each = balancers.balancers.values()
    gradients: dict[
        str, LevelGradients
    ] = {}  # kept, as a first measurement also makes sure that it may be repeated

    def step(measures: bool = False) -> None:
        split = detector.split_losses(batch)
        for group, losses in split.groups.items() if measures else ():
            if group not in gradients:
                gradients[group] = LevelGradients(split.parts.get(group) or detector.model.parameters())
            gradients[group].measure(losses.values.sum(dim=0))
        total = balancers(split.groups)
        for loss in split.rest.values():
            total = total + loss
        total.backward()
        detector.model.zero_grad(set_to_none=True)

    seconds = _timed(step)
    if (every := next(iter(each)).measure) is not None:
        try:
            more = _timed(partial(step, measures=True)) - seconds
        except GradientError as error:
            raise SpecError("balance.measure", str(error)) from error
        seconds += max(0.0, more) * len(each) / len(balancers.groups) / every
    if plan.val is None:
        return Cost(plan.iterations, seconds, 0.0, 0, 0)
    from msbal.data import subset

    few = subset(plan.val, range(min(size, len(plan.val))))
    image = _timed(lambda: detector.predict(few)) / len(few)
    every = spec.evaluate.every
    evaluations = 1 + ((plan.iterations - 1) // every if every else 0)
    return Cost(plan.iterations, seconds, image, len(plan.val), evaluations)


def total_seconds(cells: list[Cell], costs: dict[str, Cost], jobs: int) -> float:
    """Return the seconds that these cells take, `jobs` at once, each as fast as if it ran alone."""
    seconds = [costs[cell.arm].seconds for cell in cells]
    return max(sum(seconds) / max(1, jobs), max(seconds, default=0.0))


def _timed(work: Callable[[], object]) -> float:
    work()
    _wait()
    begun = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - begun


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _key(spec: RunSpec) -> str:
    """Everything in a spec that a run's cost depends on: all but seed, folder, optimizer, and a strategy that does not
    measure gradients."""
    content, balance = dump_spec(spec), spec.balance
    measures = balance.measure is not None or balance.make_strategy().needs_gradients
    content["measures"] = [balance.measure or balance.interval, balance.per_term] if measures else None
    for section in ("seed", "output", "balance", "log"):
        content.pop(section)
    content["schedule"].pop("optimizer")
    return json.dumps(content, sort_keys=True, default=str)
