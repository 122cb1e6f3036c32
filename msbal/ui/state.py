"""What is known of a run, for whoever shows it: fed by the training thread, read by the drawing thread."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from msbal.backend import LevelGroup, Monitor
from msbal.ui.text import one_line

if TYPE_CHECKING:
    from msbal.engine.record import IntervalRecord

HISTORY = 240  # intervals kept for the trends: more than the widest trend shows
PACE_SECONDS = 60.0
AP_KEYS = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")


@dataclass(frozen=True)
class RunHeader:
    """What a run is: its name, its framework and model, and how it is balanced.

    Attributes:
        interval: alpha, in iterations.
        epochs: the run's length in epochs, where its spec counts them.
        evaluated_after: the iterations after which it is evaluated.
    """

    name: str
    backend: str
    model: str
    strategy: str
    interval: int
    device: str
    epochs: int | None = None
    evaluated_after: Sequence[int] = ()


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        how: ``stopped`` by the user, so that the run can be resumed; ``interrupted`` at once, without a checkpoint.
        details: what to tell the user, label -> text: where the run lies, what to do next.
    """

    how: Literal["finished", "stopped", "interrupted", "failed"] = "finished"
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Activity:
    """What goes on while no iteration does: ``evaluating``, 12 of 64.

    Attributes:
        total: 1 for something that cannot be counted.
        begun: when, in seconds.
    """

    what: str
    done: int
    total: int
    begun: float

    @property
    def counts(self) -> str:
        """``evaluating 12/64``, or what goes on alone where it cannot be counted."""
        return f"{self.what} {self.done:,}/{self.total:,}" if self.total > 1 else self.what

    def remaining(self, now: float) -> float | None:
        """Return the seconds to its end at its pace so far; None as long as that is unknown."""
        return (now - self.begun) * (self.total - self.done) / self.done if self.done else None


class GroupState:
    """One group of levels: its last records, and sums over all of them.

    Attributes:
        so_far: the record of the unfinished first interval.
        measured: the last record with gradients.
    """

    def __init__(self, declared: LevelGroup) -> None:
        self.name, self.head = declared.name, declared.head
        self.levels, self.strides, self.terms = declared.levels, declared.strides, declared.terms
        self.records: deque[IntervalRecord] = deque(maxlen=HISTORY)
        self.so_far: IntervalRecord | None = None
        self.measured: IntervalRecord | None = None
        self.nonfinite = 0
        self.intervals = 0
        self.first_loss: float | None = None
        self._chosen: Counter[str] = Counter()
        self._weights = [0.0] * len(self.levels)

    def add(self, record: IntervalRecord) -> None:
        if record.levels != self.levels:
            self.levels, self.strides = tuple(record.levels), ()
            self.intervals, self._weights = 0, [0.0] * len(self.levels)
            self.measured = None
        if not set(record.loss_by_term) <= set(self.terms):
            self.terms = tuple(record.loss_by_term)
        self.records.append(record)
        if record.gradient_count:
            self.measured = record
        self.intervals += 1
        self._chosen[record.action] += 1
        self.nonfinite += len(record.nonfinite)
        held = record.previous_weights or (1.0,) * len(self.levels)
        self._weights = [a + b for a, b in zip(self._weights, held, strict=True)]
        if self.first_loss is None:
            self.first_loss = mean_loss(record)

    @property
    def last(self) -> IntervalRecord | None:
        return self.records[-1] if self.records else None

    @property
    def mean_weights(self) -> list[float]:
        """The mean, over all intervals, of the weights that each level was trained with."""
        return [weight / max(1, self.intervals) for weight in self._weights]

    def chosen(self, total: int) -> Counter[str]:
        """Count the actions whose weights were in force, so not one chosen at the very end of `total` iterations."""
        unused = [self.last.action] if self.last is not None and self.last.iteration >= total > 0 else []
        return self._chosen - Counter(unused)


def mean_loss(record: IntervalRecord, sums: Sequence[float] | None = None) -> float | None:
    """Return the mean per iteration of `sums`, by default of the whole unweighted loss; None if none counted."""
    return sum(record.loss if sums is None else sums) / record.divisor if record.count else None


def nonfinite_line(record: IntervalRecord, named: bool) -> str:
    """Return one line on the losses that were left out of an interval, with the group's name if `named`."""
    bad = record.nonfinite[0]
    more = len(record.nonfinite) - 1
    return (
        f"{record.group + ': ' if named else ''}{bad.term} loss of {bad.level} was {bad.value} "
        f"in iteration {bad.iteration} (rank {bad.rank})"
        f"{f', and {more} more in interval {record.interval}' if more else ''}: left out of the statistics"
    )


def shown_metrics(metrics: Mapping[str, Any], keys: Sequence[str] = AP_KEYS) -> dict[str, float | None]:
    """Return the metrics to show, in order, None where undefined; VOC's mAP is the last, if it is there."""
    found: dict[str, float | None] = {key: metrics[key] for key in keys if key in metrics}
    voc = metrics.get("voc")
    if isinstance(voc, Mapping) and voc.get("mAP") is not None:
        found["VOC mAP"] = voc["mAP"]
    return found


class RunState(Monitor):
    """A monitor that keeps what it is told and shows nothing: the base of those that show something.

    Every call from training takes a time that does not grow with the run.

    Args:
        header: what the run is.
        history: records from before a resume, so that trends go on where they stopped.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        header: RunHeader,
        history: Iterable[IntervalRecord] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.header = header
        self.clock = clock
        self.lock = Lock()
        self.begun: float | None = None
        self.ended: float | None = None
        self.iteration = self.total = 0
        self.scalars: dict[str, float] = {}
        self.groups: dict[str, GroupState] = {}
        self.evaluations: deque[tuple[int, Mapping[str, Any]]] = deque(maxlen=HISTORY)
        self.messages: deque[str] = deque(maxlen=50)
        self.ending: Ending | None = None
        self.activity: Activity | None = None
        self._paused = 0.0  # seconds of the activities that have ended
        self._pace: deque[tuple[float, int]] = deque()
        self._history = tuple(history)

    def started(self, iteration: int, total: int, groups: Sequence[LevelGroup]) -> None:
        with self.lock:
            self.begun = self.clock()
            self.iteration, self.total = iteration, total
            self.groups = {group.name: GroupState(group) for group in groups}
            for record in self._history:
                self._add(record)
            self._history = ()
            self.activity, self._paused = None, 0.0
            self._pace.append((self._training_clock(), iteration))

    def stepped(self, iteration: int, scalars: Mapping[str, float]) -> None:
        # No lock: both stores are atomic, and training never waits for a frame being drawn.
        self.iteration = iteration
        self.scalars.update(scalars)

    def interval(self, record: IntervalRecord) -> None:
        with self.lock:
            self._add(record)
            if record.nonfinite:
                self.messages.append(nonfinite_line(record, self.several))

    def _add(self, record: IntervalRecord) -> None:
        self._group(record).add(record)

    def _group(self, record: IntervalRecord) -> GroupState:
        if record.group not in self.groups:
            # Under `per_term` the records' groups are not the declared ones: they replace those.
            strides: tuple[int, ...] = ()
            for name, declared in list(self.groups.items()):
                if declared.levels == tuple(record.levels):
                    strides = declared.strides
                    if not declared.records:
                        del self.groups[name]
            group = LevelGroup(record.group, "", tuple(record.levels), strides, tuple(record.loss_by_term))
            self.groups[record.group] = GroupState(group)
        return self.groups[record.group]

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        with self.lock:
            self.evaluations.append((iteration, dict(metrics)))

    def interval_so_far(self, record: IntervalRecord) -> None:
        with self.lock:
            self._group(record).so_far = record

    def progress(self, what: str, done: int, total: int) -> None:
        now, before = self.clock(), self.activity
        if before is not None and (done >= total or before.what != what):
            self._paused += now - before.begun
        begun = before.begun if before is not None and before.what == what else now
        self.activity = None if done >= total else Activity(what, done, total, begun)

    def message(self, text: str) -> None:
        with self.lock:
            self.messages.append(one_line(text))

    def close(self, ending: Ending | None = None) -> None:
        with self.lock:
            self.ending = ending or Ending()
            self.ended = self.clock()
            self.activity = None

    @property
    def several(self) -> bool:
        """Whether there is more than one group, so that each has to be named."""
        return len(self.groups) > 1

    @property
    def elapsed(self) -> float:
        """Seconds since the start, up to the end."""
        if self.begun is None:
            return 0.0
        return (self.clock() if self.ended is None else self.ended) - self.begun

    @property
    def epoch(self) -> str:
        """``3/12``, the epoch of the last iteration where the spec counts them, or nothing."""
        epochs = self.header.epochs
        if not epochs or not self.total:
            return ""
        return f"{max(1, -(-self.iteration * epochs // self.total))}/{epochs}"

    def remaining(self) -> float | None:
        """Return the seconds to the end, None as long as they are unknown.

        Training goes on at the pace of its last minute, and evaluations take as long as those so far.
        """
        training = 0.0
        if self.iteration < self.total or not self.total:
            seen = self._pace
            seen.append((self._training_clock(), self.iteration))
            while len(seen) > 2 and seen[-1][0] - seen[1][0] > PACE_SECONDS:
                seen.popleft()
            seconds, done = seen[-1][0] - seen[0][0], seen[-1][1] - seen[0][1]
            if done <= 0 or seconds <= 0:
                return None
            training = (self.total - self.iteration) * seconds / done
        return training + self._evaluating()

    def _evaluating(self) -> float:
        """Return the seconds of the evaluations to come, and of the rest of the one under way."""
        activity, now, known = self.activity, self.clock(), len(self.evaluations)
        spent = 0.0 if activity is None else now - activity.begun
        rest = activity.remaining(now) if activity is not None else None
        each = self._paused / known if known else spent + (rest or 0.0)
        over = max(self.iteration - 1, self.evaluations[-1][0] if known else 0)
        due = self.header.evaluated_after
        whole = (len(due) - bisect_right(due, over)) * each
        return max(0.0, whole - spent)

    def _training_clock(self) -> float:
        """Return the time spent outside of activities."""
        activity, now = self.activity, self.clock()
        return now - self._paused - (0.0 if activity is None else now - activity.begun)
