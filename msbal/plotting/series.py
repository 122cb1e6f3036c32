"""Interval records as arrays, from which all figures are drawn. No file is read here and nothing is drawn.

Shape legend: I rows (one an interval, and one for each gap), K levels (finest first), A actions, E evaluations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msbal.engine.record import SHARED

if TYPE_CHECKING:
    from msbal.engine.record import IntervalRecord, NonFinite
    from msbal.records.diagnosis import LevelDiagnosis

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class GroupSeries:
    """The intervals of one group of levels, in order.

    Where records are missing, rows of NaN stand for the first and the last missing interval, so that a curve breaks
    there; `missing` marks these rows.

    Attributes:
        name: the group, ``all`` where the run has only one.
        levels: K names, finest first.
        terms: names in the order of the records.
        actions: A names of what could be chosen; empty where the strategy has no choice.
        interval: [I], t of eq 2, from 1.
        iteration: [I], the last iteration of the interval.
        divisor: [I], what sums are divided by for means per iteration; NaN where no iteration counted.
        loss: [I, K], eq 2: sums over the interval of the unweighted losses.
        loss_by_term: term -> [I, K], the same per term.
        variance: [I, K], eq 3.
        variance_reduction: [I, K], eq 4.
        weights: [I, K], eq 5; in force from ``iteration`` + 1 on.
        previous_weights: [I, K], those in force during the interval.
        reward: [I], eq 6; NaN where there is none. It judges the action in force during the interval.
        action: I names, chosen at the interval's end and in force during the next.
        probabilities: [I, A], eq 7, those that ``action`` was drawn from.
        positives: [I, K], positive samples; NaN where they are unknown.
        learning_rate: [I], of the interval's last iteration; NaN where it was not recorded.
        gradient_norm: part -> [I, K], of each level's gradient; NaN where an interval measured none.
        gradient_cosine: [I, K, K], of the levels' gradients on the parameters that they share; NaN likewise.
        missing: [I].
        nonfinite: the losses left out of the sums.
    """

    name: str
    levels: tuple[str, ...]
    terms: tuple[str, ...]
    actions: tuple[str, ...]
    interval: Ints
    iteration: Ints
    divisor: Floats
    loss: Floats
    loss_by_term: Mapping[str, Floats]
    variance: Floats
    variance_reduction: Floats
    weights: Floats
    previous_weights: Floats
    reward: Floats
    action: tuple[str, ...]
    probabilities: Floats
    positives: Floats
    learning_rate: Floats
    gradient_norm: Mapping[str, Floats]
    gradient_cosine: Floats
    missing: Bools
    nonfinite: tuple[NonFinite, ...]

    @property
    def start(self) -> int:
        """The iteration before the first interval."""
        return int(self.iteration[0]) - self.length

    @property
    def starts(self) -> Ints:
        """The iterations before each interval, ``[I]``."""
        return np.array([self.start, *self.iteration[:-1]], dtype=np.int64)

    @property
    def length(self) -> int:
        """alpha: the iterations of an interval."""
        return max(1, round(int(self.iteration[0]) / max(1, int(self.interval[0]))))

    def mean_loss(self, term: str | None = None) -> Floats:
        """Return the mean loss of an iteration, as in the paper's Fig. 1: ``[I, K]``.

        Args:
            term: one of ``terms``; None for the sum over them.
        """
        total = self.loss if term is None else self.loss_by_term.get(term)
        if total is None:
            return np.full_like(self.loss, np.nan)
        return np.asarray(total / self.divisor[:, None], dtype=np.float64)

    def share(self, *, weighted: bool = False) -> Floats:
        """Return each level's part of the summed loss, ``[I, K]``, rows add up to 1; NaN where the sum is not positive.

        Args:
            weighted: of eq 1's sum of w_i L_i, what backward saw, instead of the sum of L_i.
        """
        loss = self.loss * self.previous_weights if weighted else self.loss
        total = loss.sum(axis=1, keepdims=True)
        parts = np.divide(loss, total, out=np.full_like(loss, np.nan), where=total > 0)
        # A level may lose (a negative loss): then parts of a whole have no meaning.
        return np.where((loss < 0).any(axis=1, keepdims=True), np.nan, parts)

    def gradient_share(self) -> Floats:
        """Return each level's part of the summed norms of w_i times its gradient, ``[I, K]``, on what levels share."""
        norm = self.gradient_norm.get(SHARED, np.full_like(self.loss, np.nan)) * self.previous_weights
        total = norm.sum(axis=1, keepdims=True)
        return np.asarray(np.divide(norm, total, out=np.full_like(norm, np.nan), where=total > 0))

    def smallest_cosine(self) -> Floats:
        """Return each level's smallest cosine with another, ``[I, K]``; NaN for a level without a gradient."""
        own = np.diagonal(self.gradient_cosine, axis1=1, axis2=2)  # 0 without a gradient
        pairs = np.einsum("ij,ik->ijk", own, own) > 0
        found = np.where(pairs & ~np.eye(len(self.levels), dtype=bool), self.gradient_cosine, np.inf).min(
            axis=2
        )
        return np.where(np.isfinite(found), found, np.nan)

    def in_force(self) -> tuple[tuple[str, ...], Floats]:
        """Return what was in force during each interval: the action, and ``[I, A]`` the probabilities it is from.

        Both were decided at the end of the row before: the first interval has none, and what was decided last was
        never in force.
        """
        nothing = np.full((1, len(self.actions)), np.nan)
        return ("", *self.action[:-1]), np.concatenate([nothing, self.probabilities[:-1]])

    def without_boxes(self) -> frozenset[str]:
        """Return the levels that never had a positive sample."""
        known = np.isfinite(self.positives).any(axis=0)
        empty = known & (np.nansum(self.positives, axis=0) == 0)
        return frozenset(level for level, none in zip(self.levels, empty, strict=True) if none)


@dataclass(frozen=True)
class RunSeries:
    """One run.

    Attributes:
        name: what a legend calls it.
        source: the file it came from.
        groups: in the order of the records.
        notes: what was skipped and why, each one line for the user.
        evaluated: [E], the iterations of the evaluations.
        metrics: by name, [E], in points, 0..100; NaN where an evaluation lacks it.
        diagnosis: what `msbal diagnose` has measured of its levels; None where it has not.
    """

    name: str
    source: str
    groups: tuple[GroupSeries, ...]
    notes: tuple[str, ...] = ()
    evaluated: Floats = field(default_factory=lambda: np.empty(0))
    metrics: Mapping[str, Floats] = field(default_factory=dict)
    diagnosis: LevelDiagnosis | None = None

    def group(self, name: str) -> GroupSeries | None:
        return next((group for group in self.groups if group.name == name), None)

    @property
    def span(self) -> tuple[int, int]:
        """The iterations before the first interval and at the last interval or evaluation."""
        ends = [*(int(group.iteration[-1]) for group in self.groups), *map(int, self.evaluated)]
        return min(group.start for group in self.groups), max(ends)

    def total_loss(self) -> tuple[Floats, Floats]:
        """Return iterations and the mean loss of an iteration, summed over levels and groups, without weights."""
        totals = [
            dict(zip(group.iteration.tolist(), group.mean_loss().sum(axis=1).tolist(), strict=True))
            for group in self.groups
        ]
        shared = sorted(set.intersection(*map(set, totals)))
        return np.array(shared, dtype=np.float64), np.array([sum(t[i] for t in totals) for i in shared])


def to_group(name: str, records: Sequence[IntervalRecord]) -> GroupSeries:
    """Return the arrays of `records`: one an interval, in order, all whole and of the same levels."""
    rows = _with_gaps(records)
    known = {record.interval for record in records}
    terms = tuple(dict.fromkeys(term for record in records for term in record.loss_by_term))
    actions = tuple(dict.fromkeys(action for record in records for action in record.probabilities))
    parts = dict.fromkeys(part for record in records for part in record.gradient_norm)
    unknown = (np.nan,) * len(records[0].levels)

    def column(values: Sequence[Any]) -> Floats:
        array = np.array(values, dtype=np.float64)
        return np.where(np.isfinite(array), array, np.nan)

    return GroupSeries(
        name=name,
        levels=records[0].levels,
        terms=terms,
        actions=actions,
        interval=np.array([row.interval for row in rows], dtype=np.int64),
        iteration=np.array([row.iteration for row in rows], dtype=np.int64),
        divisor=np.array([_divisor(row) if row.interval in known else np.nan for row in rows]),
        loss=column([row.loss for row in rows]),
        loss_by_term={term: column([row.loss_by_term.get(term, unknown) for row in rows]) for term in terms},
        variance=column([row.variance for row in rows]),
        variance_reduction=column([row.variance_reduction for row in rows]),
        weights=column([row.weights for row in rows]),
        previous_weights=column([row.previous_weights for row in rows]),
        reward=column([np.nan if row.reward is None else row.reward for row in rows]),
        action=tuple(row.action for row in rows),
        probabilities=column([[row.probabilities.get(action, np.nan) for action in actions] for row in rows]),
        positives=column([row.positives or unknown for row in rows]),
        learning_rate=column([np.nan if row.learning_rate is None else row.learning_rate for row in rows]),
        gradient_norm={
            part: column([row.gradient_norm.get(part, unknown) for row in rows]) for part in parts
        },
        gradient_cosine=column([row.gradient_cosine or (unknown,) * len(unknown) for row in rows]),
        missing=np.array([row.interval not in known for row in rows], dtype=np.bool_),
        nonfinite=tuple(loss for record in records for loss in record.nonfinite),
    )


def _with_gaps(records: Sequence[IntervalRecord]) -> list[IntervalRecord]:
    """Return `records` with their weights in force, and a record of NaN for the first and last interval of each gap."""
    length = _length(records[0])
    unknown = (np.nan,) * len(records[0].levels)

    def blank(interval: int, iteration: int) -> IntervalRecord:
        return replace(
            records[0], interval=interval, iteration=iteration, loss=unknown, loss_by_term={}, variance=unknown,
            variance_reduction=unknown, weights=unknown, previous_weights=unknown, reward=None, action="",
            probabilities={}, positives=None, learning_rate=None, gradient_norm={}, gradient_cosine=(),
        )  # fmt: skip

    rows: list[IntervalRecord] = []
    before, held = None, (1.0,) * len(unknown)
    for record in records:
        gap = record.interval - before.interval if before else 1
        if before and gap > 1:
            rows.append(blank(before.interval + 1, before.iteration + length))
        if gap > 2:
            rows.append(blank(record.interval - 1, record.iteration - length))
        rows.append(replace(record, previous_weights=record.previous_weights or held))
        before, held = record, record.weights
    return rows


def _length(record: IntervalRecord) -> int:
    return max(1, round(record.iteration / record.interval))


def _divisor(record: IntervalRecord) -> float:
    """Return the record's divisor; alpha where a foreign writer left its count out (0, yet nothing was non-finite)."""
    return record.divisor if record.count > 0 or record.nonfinite else _length(record)


def moving_average(values: Floats, window: int) -> Floats:
    """Return the mean over `window` rows around each, fewer at the ends, in the shape of `values` (``[I, ..]``).

    NaN rows stay NaN and count for nothing in their neighbours.

    Raises:
        ValueError: `window` is below 1.
    """
    from scipy.ndimage import uniform_filter1d

    if window < 1:
        raise ValueError(f"`window` should be at least 1. Found {window}.")
    known = np.isfinite(values)
    options: Any = {"size": window, "axis": 0, "mode": "constant", "origin": -1 if window % 2 == 0 else 0}
    total = uniform_filter1d(np.where(known, values, 0.0), **options)
    number = uniform_filter1d(known.astype(np.float64), **options)
    mean: Floats = np.divide(total, number, out=np.full_like(total, np.nan), where=known)
    return mean


def merge_names(orders: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Return every name once, each before the names that follow it in its own order (P2 before P3..P7)."""
    merged: list[str] = []
    for names in orders:
        place = len(merged)
        for name in reversed(names):
            if name in merged:
                place = merged.index(name)
            else:
                merged.insert(place, name)
    return tuple(merged)
