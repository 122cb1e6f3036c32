"""What is known of a run, for whoever shows it: fed by the training thread, read by the drawing thread."""

from __future__ import annotations

import time
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
    """

    name: str
    backend: str
    model: str
    strategy: str
    interval: int
    device: str


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        how: ``stopped`` is by the user, so that the run can be resumed.
        details: what to tell the user, label -> text: where the run lies, what to do next.
    """

    how: Literal["finished", "stopped", "failed"] = "finished"
    details: Mapping[str, str] = field(default_factory=dict)


class GroupState:
    """One group of levels: its last records, and sums over all of them."""

    def __init__(self, declared: LevelGroup) -> None:
        self.name, self.head = declared.name, declared.head
        self.levels, self.strides, self.terms = declared.levels, declared.strides, declared.terms
        self.records: deque[IntervalRecord] = deque(maxlen=HISTORY)
        self.chosen: Counter[str] = Counter()
        self.nonfinite = 0
        self.intervals = 0
        self.first_loss: float | None = None
        self._weights = [0.0] * len(self.levels)

    def add(self, record: IntervalRecord) -> None:
        if record.levels != self.levels:
            self.levels, self.strides = tuple(record.levels), ()
            self.intervals, self._weights = 0, [0.0] * len(self.levels)
        if not set(record.loss_by_term) <= set(self.terms):
            self.terms = tuple(record.loss_by_term)
        self.records.append(record)
        self.intervals += 1
        self.chosen[record.action] += 1
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


def mean_loss(record: IntervalRecord, sums: Sequence[float] | None = None) -> float | None:
    """Return the mean per iteration of `sums`, by default of the whole unweighted loss; None if none counted."""
    return sum(record.loss if sums is None else sums) / record.count if record.count else None


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
            self._pace.append((self.begun, iteration))

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
        self.groups[record.group].add(record)

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        with self.lock:
            self.evaluations.append((iteration, dict(metrics)))

    def message(self, text: str) -> None:
        with self.lock:
            self.messages.append(one_line(text))

    def close(self, ending: Ending | None = None) -> None:
        with self.lock:
            self.ending = ending or Ending()
            self.ended = self.clock()

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

    def remaining(self) -> float | None:
        """Return the seconds to the end at the pace of the last minute; None as long as that is unknown."""
        if self.iteration >= self.total > 0:
            return 0.0
        seen = self._pace
        seen.append((self.clock(), self.iteration))
        while len(seen) > 2 and seen[-1][0] - seen[1][0] > PACE_SECONDS:
            seen.popleft()
        seconds, done = seen[-1][0] - seen[0][0], seen[-1][1] - seen[0][1]
        return (self.total - self.iteration) * seconds / done if done > 0 and seconds > 0 else None
