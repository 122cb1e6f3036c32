"""The end of an interval: equations 2 to 7, from the losses to the new weights and the record.

Shapes: R ranks, A iterations of an interval (alpha), T terms, K levels. NumPy, float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from msbal.engine.draw import generator
from msbal.engine.gradients import cosines, norms
from msbal.engine.record import SHARED, IntervalRecord, NonFinite
from msbal.engine.settings import Settings
from msbal.engine.statistics import Array, interval_statistics
from msbal.engine.strategies.base import checked, decide, naming, plain, rescaled


@dataclass(frozen=True)
class Memory:
    """What one interval passes on to the next: plain numbers, as in checkpoints."""

    interval: int  # t, intervals ended so far
    weights: list[float]  # [K] in force
    previous_loss: list[float]  # [K]
    previous_variance: list[float]  # [K]
    state: dict[str, Any]  # the strategy's own

    @classmethod
    def initial(cls, settings: Settings) -> Memory:
        """Return the memory before the first interval, in which Var_0 is 1."""
        k, strategy = len(settings.levels), settings.strategy
        with naming(strategy, "initial_state() or initial_weights()"):
            state, weights = plain(strategy.initial_state(k)), checked(strategy.initial_weights(k), k)
        return cls(
            0, (rescaled(weights) if settings.rescale else weights).tolist(), [0.0] * k, [1.0] * k, state
        )

    @classmethod
    def loaded(cls, saved: Mapping[str, Any], levels: int) -> Memory:
        """Read it from a checkpoint. Raises: KeyError, TypeError or ValueError, where that has something else."""
        keys = ("weights", "previous_loss", "previous_variance")
        vectors = {key: [float(number) for number in saved[key]] for key in keys}
        if any(len(vector) != levels or not np.isfinite(vector).all() for vector in vectors.values()):
            raise ValueError(f"{levels} finite numbers were expected, not {vectors}")
        return cls(interval=int(saved["interval"]), state={**saved["state"]}, **vectors)


class IntervalReport(NamedTuple):
    """A record, and the losses ``[A, T, K]`` behind it: unweighted, averaged over ranks."""

    record: IntervalRecord
    losses: Array


@dataclass(frozen=True)
class Measured:
    """The gradients measured in an interval: the sum of Gramians ``[K, K]`` by part, and of how many."""

    count: int = 0
    sums: Mapping[str, Array] = field(default_factory=dict)

    def plus(self, gramians: Mapping[str, Array]) -> Measured:
        """Return this with one measurement more, unless that is not finite."""
        if not all(np.isfinite(gramian).all() for gramian in gramians.values()):
            return self
        parts, zero = dict.fromkeys([*self.sums, *gramians]), np.zeros(())
        sums = {part: self.sums.get(part, zero) + gramians.get(part, zero) for part in parts}
        return Measured(self.count + 1, sums)

    def means(self) -> dict[str, Array]:
        """Return the mean Gramian by part; empty where nothing was measured."""
        return {part: total / self.count for part, total in self.sums.items()}

    def plain(self) -> dict[str, Any]:
        """Return it in plain numbers, as in checkpoints."""
        return {"count": self.count, "sums": {part: total.tolist() for part, total in self.sums.items()}}

    @classmethod
    def loaded(cls, saved: Mapping[str, Any], levels: int) -> Measured:
        """Read it from a checkpoint. Raises: KeyError, TypeError or ValueError, where that has something else."""
        sums = {str(part): np.array(total, float) for part, total in saved["sums"].items()}
        if any(total.shape != (levels, levels) or not np.isfinite(total).all() for total in sums.values()):
            raise ValueError(f"Gramians of {levels} levels were expected")
        return cls(int(saved["count"]), sums)


NOTHING_MEASURED = Measured()


def end_interval(
    settings: Settings,
    memory: Memory,
    losses: Array,
    positives: Array | None = None,
    measured: Measured = NOTHING_MEASURED,
    decides: bool = True,
) -> tuple[Memory, IntervalReport]:
    """Decide the weights of the next interval. An interval with unusable statistics is reported, but decides nothing.

    Args:
        losses: ``[R, A, T, K]``, unweighted.
        positives: ``[K]``, over the interval and all ranks; None where unknown.
        measured: the levels' gradients.
        decides: False only reports, as for an interval that has not ended.

    Raises:
        StrategyError: see `decide`.
    """
    t, old, new = memory.interval + 1, memory, replace(memory, interval=memory.interval + 1)
    gramians = measured.means()
    # Eq 2, 3 and 4.
    statistics = interval_statistics(
        t, losses, positives, old.weights, old.previous_loss, old.previous_variance, settings.epsilon,
        gramians.get(SHARED),
    )  # fmt: skip
    if decides and statistics.usable:
        rng = generator(settings.seed, settings.group, t)
        # Eq 5; of rlo eq 6 and 7 too.
        weights, state = decide(settings.strategy, statistics, old.state, rng, settings.rescale)
        new = Memory(t, weights.tolist(), statistics.loss.tolist(), statistics.variance.tolist(), state)
    by_term = statistics.loss_by_term.tolist()
    record = IntervalRecord(
        interval=t,
        iteration=t * settings.interval,
        levels=settings.levels,
        loss=tuple(statistics.loss.tolist()),
        loss_by_term={term: tuple(row) for term, row in zip(settings.terms, by_term, strict=True)},
        variance=tuple(statistics.variance.tolist()),
        variance_reduction=tuple(statistics.variance_reduction.tolist()),
        weights=tuple(new.weights),
        reward=new.state.get("reward"),
        action=new.state.get("action", settings.strategy.name),
        probabilities=dict(new.state.get("probabilities", {})),
        group=settings.group,
        count=statistics.count,
        previous_weights=tuple(old.weights),
        nonfinite=find_nonfinite(settings, losses, old.interval * settings.interval),
        positives=None if positives is None else tuple(positives.tolist()),
        length=losses.shape[1],
        gradient_norm={part: tuple(norms(gramian).tolist()) for part, gramian in gramians.items()},
        gradient_cosine=tuple(tuple(row) for row in cosines(gramians[SHARED]).tolist()) if gramians else (),
        gradient_count=measured.count,
    )
    with np.errstate(invalid="ignore"):
        return new, IntervalReport(record, losses.mean(axis=0))


def find_nonfinite(settings: Settings, losses: Array, before: int, rank: int = 0) -> tuple[NonFinite, ...]:
    """Name the NaN and infinite losses in ``[R, A, T, K]``, from `rank` on and after `before` iterations."""
    terms, levels = settings.terms, settings.levels
    return tuple(
        NonFinite(before + a + 1, terms[t], levels[k], rank + r, str(losses[r, a, t, k]))
        for r, a, t, k in np.argwhere(~np.isfinite(losses)).tolist()
    )
