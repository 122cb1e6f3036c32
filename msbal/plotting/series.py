"""Interval records as arrays: the only form in which the figures know a run. Pure: no file, no figure.

Shape legend: I rows (one an interval, and one for each gap), K levels (finest first), A actions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from msbal.engine.record import IntervalRecord, NonFinite

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class GroupSeries:
    """The intervals of one group of levels, in order.

    Where records are missing (a damaged line was skipped) rows of NaN stand for the first and the last
    missing interval, so that a curve breaks there and does not bridge what nobody saw; ``missing`` marks
    these rows.

    Attributes:
        name: the group, ``all`` where the run has only one.
        levels: K names, finest first.
        terms: names in the order of the records.
        actions: A names of what could be chosen; empty where the strategy has no choice.
        interval: [I], t of eq 2, from 1.
        iteration: [I], the last iteration of the interval.
        count: [I], the iterations that entered the sums.
        loss: [I, K], eq 2: sums over the interval of the unweighted losses.
        loss_by_term: term -> [I, K], the same per term.
        variance: [I, K], eq 3.
        variance_reduction: [I, K], eq 4.
        weights: [I, K], eq 5; they hold from ``iteration`` + 1 on.
        previous_weights: [I, K], those that held during the interval.
        reward: [I], eq 6; NaN where there is none. It judges the action of the row *before*.
        action: I names, what was taken at the interval's end.
        probabilities: [I, A], eq 7, those that ``action`` was drawn from.
        missing: [I].
        nonfinite: the losses left out of the sums.
    """

    name: str
    levels: tuple[str, ...]
    terms: tuple[str, ...]
    actions: tuple[str, ...]
    interval: Ints
    iteration: Ints
    count: Ints
    loss: Floats
    loss_by_term: Mapping[str, Floats]
    variance: Floats
    variance_reduction: Floats
    weights: Floats
    previous_weights: Floats
    reward: Floats
    action: tuple[str, ...]
    probabilities: Floats
    missing: Bools
    nonfinite: tuple[NonFinite, ...]

    @property
    def start(self) -> int:
        """The iteration before the first interval."""
        return int(self.iteration[0]) - self.length

    @property
    def length(self) -> int:
        """alpha: the iterations of an interval."""
        return max(1, round(int(self.iteration[0]) / max(1, int(self.interval[0]))))

    def mean_loss(self, term: str | None = None) -> Floats:
        """[I, K], the interval's sum over its count: the mean loss of an iteration, as in the paper's Fig. 1.

        Args:
            term: one of ``terms``; None for the sum over them.
        """
        total = self.loss if term is None else self.loss_by_term.get(term)
        if total is None:
            return np.full_like(self.loss, np.nan)
        count = np.where(self.count > 0, self.count, np.nan)
        return np.asarray(total / count[:, None], dtype=np.float64)

    def share(self, *, weighted: bool = False) -> Floats:
        """[I, K], each level's part of the summed loss, rows add up to 1; NaN where the sum is not positive.

        Args:
            weighted: of eq 1's sum of w_i L_i, what backward saw, instead of the sum of L_i.
        """
        loss = self.loss * self.previous_weights if weighted else self.loss
        total = loss.sum(axis=1, keepdims=True)
        parts = np.divide(loss, total, out=np.full_like(loss, np.nan), where=total > 0)
        # A level may lose (a negative loss): then parts of a whole have no meaning.
        return np.where((loss < 0).any(axis=1, keepdims=True), np.nan, parts)

    def outcome(self) -> Floats:
        """[I], the reward that the row's own action earned, known one interval later; NaN until then."""
        earned = np.full_like(self.reward, np.nan)
        follows = np.diff(self.interval) == 1
        earned[:-1][follows] = self.reward[1:][follows]
        return earned


@dataclass(frozen=True)
class RunSeries:
    """One run.

    Attributes:
        name: what a legend calls it.
        source: the file it came from.
        groups: in the order of the records.
        notes: what was skipped and why, each one line for the user.
    """

    name: str
    source: str
    groups: tuple[GroupSeries, ...]
    notes: tuple[str, ...] = ()

    def group(self, name: str) -> GroupSeries | None:
        return next((group for group in self.groups if group.name == name), None)


def to_groups(records: Iterable[IntervalRecord]) -> tuple[tuple[GroupSeries, ...], tuple[str, ...]]:
    """The groups of a run's records, and notes on the records that had to be left out.

    Records may come in any order; of two with the same group and interval the later one counts (a run
    that went on from a checkpoint writes some of its intervals anew).
    """
    by_group: dict[str, list[IntervalRecord]] = {}
    for record in records:
        by_group.setdefault(record.group, []).append(record)
    notes: list[str] = []
    groups = []
    for name, members in by_group.items():
        group, group_notes = _to_group(name, members)
        notes += group_notes
        if group is not None:
            groups.append(group)
    return tuple(groups), tuple(notes)


def _to_group(name: str, records: Sequence[IntervalRecord]) -> tuple[GroupSeries | None, list[str]]:
    whole = [record for record in records if _is_whole(record)]
    where = "" if name == "all" else f"{name}: "
    if not whole:
        return None, [f"{where}none of its {len(records)} records is whole"]
    levels = Counter(record.levels for record in whole).most_common(1)[0][0]
    fitting = [record for record in whole if record.levels == levels]
    latest = {record.interval: record for record in fitting}
    notes = []
    if len(whole) < len(records):
        notes.append(f"{where}{len(records) - len(whole)} records skipped, lists of unequal length")
    if len(fitting) < len(whole):
        notes.append(f"{where}{len(whole) - len(fitting)} records skipped, not of {', '.join(levels)}")
    if len(latest) < len(fitting):
        notes.append(f"{where}{len(fitting) - len(latest)} intervals are there twice, the later counts")
    ordered = [latest[interval] for interval in sorted(latest)]
    terms = tuple(dict.fromkeys(term for record in ordered for term in record.loss_by_term))
    actions = tuple(dict.fromkeys(action for record in ordered for action in record.probabilities))
    held: list[tuple[float, ...]] = [(1.0,) * len(levels), *(record.weights for record in ordered[:-1])]

    interval = np.array([record.interval for record in ordered], dtype=np.int64)
    iteration = np.array([record.iteration for record in ordered], dtype=np.int64)
    breaks = np.flatnonzero(np.diff(interval) > 1) + 1
    wide = np.flatnonzero(np.diff(interval) > 2) + 1
    after = np.concatenate([breaks, wide])
    length = _length(ordered[0])
    missing_intervals = int(np.sum(np.diff(interval) - 1))
    if missing_intervals:
        notes.append(f"{where}{missing_intervals} intervals are missing, the curves break there")

    def column(rows: Sequence[Sequence[float]]) -> Floats:
        values = np.array(rows, dtype=np.float64)
        values[~np.isfinite(values)] = np.nan
        return np.insert(values, after, np.nan, axis=0)

    names = np.insert(np.array([record.action for record in ordered], dtype=object), after, "")
    return GroupSeries(
        name=name,
        levels=levels,
        terms=terms,
        actions=actions,
        # np.insert keeps the order of values for the same place: the first missing row, then the last.
        interval=np.insert(interval, after, np.concatenate([interval[breaks - 1] + 1, interval[wide] - 1])),
        iteration=np.insert(
            iteration, after, np.concatenate([iteration[breaks - 1] + length, iteration[wide] - length])
        ),
        count=np.insert(np.array([_count(record) for record in ordered], dtype=np.int64), after, 0),
        loss=column([record.loss for record in ordered]),
        loss_by_term={
            term: column([record.loss_by_term.get(term, (np.nan,) * len(levels)) for record in ordered])
            for term in terms
        },
        variance=column([record.variance for record in ordered]),
        variance_reduction=column([record.variance_reduction for record in ordered]),
        weights=column([record.weights for record in ordered]),
        previous_weights=column(
            [r.previous_weights or before for r, before in zip(ordered, held, strict=True)]
        ),
        reward=column([[np.nan if record.reward is None else record.reward] for record in ordered])[:, 0],
        action=tuple(str(name) for name in names),
        probabilities=column([[record.probabilities.get(a, np.nan) for a in actions] for record in ordered]),
        missing=np.insert(np.zeros(len(ordered), dtype=np.bool_), after, True),
        nonfinite=tuple(loss for record in ordered for loss in record.nonfinite),
    ), notes


def _is_whole(record: IntervalRecord) -> bool:
    """Whether the record's lists all have one value a level, and its counters can be true."""
    k = len(record.levels)
    rows = [record.loss, record.variance, record.variance_reduction, record.weights]
    rows += list(record.loss_by_term.values())
    rows += [record.previous_weights] if record.previous_weights else []
    counters = 1 <= record.interval <= record.iteration < 2**53 and 0 <= record.count < 2**53
    return k > 0 and counters and all(len(row) == k for row in rows)


def _length(record: IntervalRecord) -> int:
    return max(1, round(record.iteration / record.interval))


def _count(record: IntervalRecord) -> int:
    """The record's count; alpha where a foreign writer left it out (0, yet nothing was non-finite)."""
    return record.count if record.count > 0 or record.nonfinite else _length(record)


def moving_average(values: Floats, window: int) -> Floats:
    """[I, ...] -> the same shape: the mean over ``window`` rows around each, fewer at the ends.

    NaN rows stay NaN and count for nothing in their neighbours.

    Raises:
        ValueError: if ``window`` is below 1.
    """
    if window < 1:
        raise ValueError(f"`window` should be at least 1. Found {window}.")
    known = np.isfinite(values)
    before, behind = (window - 1) // 2, window // 2
    rows = np.arange(len(values))
    low, high = np.maximum(rows - before, 0), np.minimum(rows + behind + 1, len(values))

    def windowed(array: Floats) -> Floats:
        sums = np.concatenate([np.zeros((1, *array.shape[1:])), np.cumsum(array, axis=0)])
        return np.asarray(sums[high] - sums[low], dtype=np.float64)

    total, number = windowed(np.where(known, values, 0.0)), windowed(known.astype(np.float64))
    mean = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
    return np.where(known, mean, np.nan)


def merge_names(orders: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Every name once, each before the names that follow it in its own order (P2 before P3..P7)."""
    merged: list[str] = []
    for names in orders:
        place = len(merged)
        for name in reversed(names):
            if name in merged:
                place = merged.index(name)
            else:
                merged.insert(place, name)
    return tuple(merged)
