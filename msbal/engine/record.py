"""The engine's report at the end of an interval. It uses only the standard library, so that readers need no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

SHARED = "shared"
"""The part of all parameters that two levels or more have a gradient for, whatever other part they belong to."""


@dataclass(frozen=True)
class NonFinite:
    """One loss that was NaN or infinite."""

    iteration: int  # counted from 1 over the whole run
    term: str
    level: str
    rank: int  # the process that saw it
    value: str  # ``nan``, ``inf`` or ``-inf``


@dataclass(frozen=True)
class IntervalRecord:
    """One interval of one group of levels. Lists run over the levels, finest first.

    It depends on the losses, the seed and the schedule alone: a resumed run writes the same as an unbroken one.

    Attributes:
        interval, iteration: t, and its last iteration, t times alpha; both counted from 1.
        loss, loss_by_term: eq 2, the sums over the interval of the unweighted losses.
        variance, variance_reduction: eq 3, unbiased, and eq 4, of each level's loss.
        weights: eq 5, in force from the next iteration on; `previous_weights` were in force until now.
        reward: -1, 0 or 1, of eq 6 or `reward: trend`; None where the strategy has no reward.
        action: the action taken at this interval's end; the strategy's own name where it has no choice.
        probabilities: eq 7, per action, after this interval's update; empty without a choice.
        group: which head the levels belong to (``rpn``, ``roi``, a term under per_term, else ``all``).
        count: the iterations in the statistics, those whose losses were all finite. The sums are scaled up from these
            to the whole interval.
        nonfinite: the losses left out, named.
        positives: positive samples per level over the interval, where they are known.
        learning_rate: of the optimizer's first group of parameters, in the step of the interval's last iteration. The
            engine does not know it, so the recorder adds it. None where it is unknown.
        length: alpha, the iterations of the interval; 0 where it is unknown.
        gradient_norm: of each level's unweighted loss, by part of the model: ``backbone``, ``neck``, ``head``; and on
            ``shared``, all parameters that two levels or more have a gradient for. The root of the mean square over the
            interval's measurements; empty where nothing was measured.
        gradient_cosine: ``[K][K]``, of the levels' gradients on ``shared``; empty likewise.
        gradient_count: the measurements, those that were finite.
    """

    interval: int
    iteration: int
    levels: tuple[str, ...]
    loss: tuple[float, ...]
    loss_by_term: dict[str, tuple[float, ...]]
    variance: tuple[float, ...]
    variance_reduction: tuple[float, ...]
    weights: tuple[float, ...]
    reward: int | None = None
    action: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    group: str = "all"
    count: int = 0
    previous_weights: tuple[float, ...] = ()
    nonfinite: tuple[NonFinite, ...] = ()
    positives: tuple[float, ...] | None = None
    learning_rate: float | None = None
    length: int = 0
    gradient_norm: dict[str, tuple[float, ...]] = field(default_factory=dict)
    gradient_cosine: tuple[tuple[float, ...], ...] = ()
    gradient_count: int = 0

    @property
    def cosines(self) -> dict[str, float]:
        """The cosine of each pair of levels, ``P3-P4``; empty where nothing was measured."""
        return {
            f"{finer}-{coarser}": self.gradient_cosine[i][i + 1 + j]
            for i, finer in enumerate(self.levels[: len(self.gradient_cosine)])
            for j, coarser in enumerate(self.levels[i + 1 :])
        }

    @property
    def divisor(self) -> float:
        """What the sums in `loss` are divided by for means per iteration; NaN where no iteration counted."""
        return (self.length or self.count) if self.count else math.nan
