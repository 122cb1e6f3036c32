"""What the engine reports at the end of an interval. Standard library only: readers need no torch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class NonFinite:
    """One loss that was NaN or infinite.

    Attributes:
        iteration: counted from 1 over the whole run.
        rank: the process that saw it.
        value: ``nan``, ``inf`` or ``-inf``.
    """

    iteration: int
    term: str
    level: str
    rank: int
    value: str


@dataclass(frozen=True)
class IntervalRecord:
    """One interval of one group of levels. Lists run over the levels, finest first.

    Everything in it is a function of the losses and the seed alone (no times, no host names), so that
    a resumed run writes the same records as an unbroken one.

    Attributes:
        interval: t, counted from 1.
        iteration: the interval's last iteration, counted from 1 (t times alpha).
        levels: names, finest first.
        loss: eq 2, the sum over the interval of each level's unweighted loss, over all terms.
        loss_by_term: the same, per term.
        variance: eq 3, unbiased, of each level's loss in the interval.
        variance_reduction: eq 4.
        weights: eq 5, those that hold from the next iteration on.
        reward: eq 6, -1, 0 or 1; None where the strategy has no reward.
        action: the action taken at this interval's end; the strategy's own name where it has no choice.
        probabilities: eq 7, per action, after this interval's update; empty without a choice.
        group: which head the levels belong to (``rpn``, ``roi``, a term under per_term, else ``all``).
        count: the iterations that entered the statistics (all losses finite).
        previous_weights: the weights that held during this interval.
        nonfinite: the losses left out, named.
        positives: positive samples per level over the interval, where the seam knows them.
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
