"""What the monitors know of a run. Fed by the training thread, read by the drawing thread.

Training stores, drawing computes: every call from training is O(1) in the length of the run.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from msbal.ui.text import one_line

if TYPE_CHECKING:
    from msbal.backend import LevelGroup
    from msbal.engine.record import IntervalRecord

HISTORY = 240  # intervals kept for the trends: more than the widest trend shows
PACE_SECONDS = 60.0

How = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class RunHeader:
    """What a run is, for the head of its display.

    Attributes:
        name: of the run, e.g. its folder's.
        backend: ``torchvision``, ...
        model: e.g. ``retinanet_r50``.
        strategy: ``rlo``, ``avw``, ...
        interval: alpha, iterations.
        device: ``cpu``, ``cuda:0``, ...
        output: the run directory, for the closing lines.
    """

    name: str
    backend: str
    model: str
    strategy: str
    interval: int
    device: str
    output: str = ""


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        how: ``finished``; ``stopped`` by the user, so that it can be resumed; or ``failed``.
        details: what to tell the user, label -> text: where the run lies, what to do next.
    """

    how: How = "finished"
    details: Mapping[str, str] = field(default_factory=dict)


class GroupState:
    """One group of levels: its last records, and sums over all of them."""

    def __init__(
        self,
        name: str,
        levels: Sequence[str],
        strides: Sequence[int] = (),
        terms: Sequence[str] = (),
        head: str = "",
    ) -> None:
        self.name, self.head = name, head
        self.levels, self.strides, self.terms = tuple(levels), tuple(strides), tuple(terms)
        self.records: deque[IntervalRecord] = deque(maxlen=HISTORY)
        self.version = 0
        self.chosen: Counter[str] = Counter()
        self.nonfinite = 0
        self.intervals = 0
        self.first_loss: float | None = None
        self._weights = [0.0] * len(self.levels)

    def add(self, record: IntervalRecord) -> None:
        if record.levels != self.levels:
            self.levels, self.strides = tuple(record.levels), ()
            self._weights = [0.0] * len(self.levels)
        if not set(record.loss_by_term) <= set(self.terms):
            self.terms = tuple(record.loss_by_term)
        self.records.append(record)
        self.version += 1
        self.intervals += 1
        self.chosen[record.action] += 1
        self.nonfinite += len(record.nonfinite)
        self._weights = [a + b for a, b in zip(self._weights, record.weights, strict=True)]
        if self.first_loss is None and record.count:
            self.first_loss = mean_loss(record)

    @property
    def last(self) -> IntervalRecord | None:
        return self.records[-1] if self.records else None

    @property
    def mean_weights(self) -> list[float]:
        """Per level, over all intervals; empty before the first."""
        return [weight / self.intervals for weight in self._weights] if self.intervals else []


def mean_loss(record: IntervalRecord) -> float:
    """The group's whole loss per iteration, unweighted; NaN where no iteration counted."""
    return sum(record.loss) / record.count if record.count else float("nan")


def nonfinite_line(record: IntervalRecord, named: bool) -> str:
    """One line for all the losses that were left out of an interval; `named`: say which group."""
    bad = record.nonfinite[0]
    more = len(record.nonfinite) - 1
    return (
        f"{record.group + ': ' if named else ''}{bad.term} loss of {bad.level} was {bad.value} "
        f"in iteration {bad.iteration} (rank {bad.rank})"
        f"{f', and {more} more in interval {record.interval}' if more else ''}: left out of the statistics"
    )


class Pace:
    """Iterations per second over the last minute or so."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, now: float, iteration: int) -> None:
        self._seen.append((now, iteration))
        while len(self._seen) > 2 and now - self._seen[1][0] > PACE_SECONDS:
            self._seen.popleft()

    def rate(self) -> float | None:
        if len(self._seen) < 2:
            return None
        (t0, i0), (t1, i1) = self._seen[0], self._seen[-1]
        return (i1 - i0) / (t1 - t0) if t1 > t0 and i1 > i0 else None


class RunState:
    """Everything that a display of a run needs.

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
        self.first = self.iteration = self.total = 0
        self.scalars: dict[str, float] = {}
        self.groups: dict[str, GroupState] = {}
        self.evaluations: deque[tuple[int, Mapping[str, Any]]] = deque(maxlen=HISTORY)
        self.messages: deque[str] = deque(maxlen=50)
        self.ending: Ending | None = None
        self.pace = Pace()
        self._history = tuple(history)

    def started(self, iteration: int, total: int, groups: Sequence[LevelGroup]) -> None:
        with self.lock:
            self.begun = self.clock()
            self.first, self.iteration, self.total = iteration, iteration, total
            for g in groups:
                self.groups[g.name] = GroupState(g.name, g.levels, g.strides, g.terms, g.head)
            for record in self._history:
                self._add(record)
            self._history = ()
            self.pace.add(self.begun, iteration)

    def stepped(self, iteration: int, scalars: Mapping[str, float]) -> None:
        # No lock: both stores are atomic, and training never waits for a frame being drawn.
        self.iteration = iteration
        self.scalars.update(scalars)

    def interval(self, record: IntervalRecord) -> None:
        with self.lock:
            self._add(record)

    def _add(self, record: IntervalRecord) -> None:
        group = self.groups.get(record.group)
        if group is None:
            # Under `per_term` the records' groups are not the declared ones: they replace those.
            strides: tuple[int, ...] = ()
            for name, declared in list(self.groups.items()):
                if declared.levels == tuple(record.levels):
                    strides = declared.strides
                    if not declared.records:
                        del self.groups[name]
            group = GroupState(record.group, record.levels, strides, tuple(record.loss_by_term))
            self.groups[record.group] = group
        group.add(record)
        if record.nonfinite:
            self.messages.append(nonfinite_line(record, len(self.groups) > 1))

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        with self.lock:
            self.evaluations.append((iteration, dict(metrics)))

    def message(self, text: str) -> None:
        with self.lock:
            self.messages.append(one_line(text))

    def close(self, ending: Ending | None) -> None:
        with self.lock:
            if self.ending is None:
                self.ending = ending or Ending()
                self.ended = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the start, up to the end."""
        if self.begun is None:
            return 0.0
        return (self.clock() if self.ended is None else self.ended) - self.begun

    def remaining(self) -> float | None:
        """Seconds to the end at the present pace. None while that is unknown."""
        rate = self.pace.rate()
        if self.iteration >= self.total > 0:
            return 0.0
        return (self.total - self.iteration) / rate if rate else None


AP_KEYS = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")


def shown_metrics(metrics: Mapping[str, Any], keys: Sequence[str] = AP_KEYS) -> dict[str, float | None]:
    """The figures to show, in order; None where undefined. VOC's mAP is added where it is there."""
    found: dict[str, float | None] = {key: metrics[key] for key in keys if key in metrics}
    voc = metrics.get("voc")
    if isinstance(voc, Mapping) and voc.get("mAP") is not None:
        found["VOC mAP"] = voc["mAP"]
    return found
