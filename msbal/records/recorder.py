"""Write the balancers' records and losses to the run's files while it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from msbal.engine.record import IntervalRecord
from msbal.records import intervals, losses_log
from msbal.records.atomic import fsync
from msbal.records.losses_log import Column
from msbal.records.run_directory import RunDirectory

if TYPE_CHECKING:
    from msbal.engine import BalancerSet, IntervalReport


class Recorder:
    """Writes every interval's records and losses as they arrive.

    An append is not atomic: a kill may cut the last line, which readers skip and `rewind` removes. The records of one
    interval are written at once, in the balancers' order.

    Args:
        run: None for a process that writes nothing (every rank but the first).
        on_record: called with each record, after it is written.
        per_iteration: also write losses.csv.
    """

    def __init__(
        self,
        run: RunDirectory | None,
        on_record: Callable[[IntervalRecord], None] | None = None,
        per_iteration: bool = True,
    ) -> None:
        self.run, self.on_record, self.per_iteration = run, on_record, per_iteration
        self._balancers: BalancerSet | None = None
        self._waiting: dict[int, dict[str, IntervalReport]] = {}
        self._unsynced = False
        self._iteration: int | None = None
        self._learning_rate: float | None = None

    def attach(self, balancers: BalancerSet) -> None:
        """Record these balancers. Call once, before training."""
        self._balancers = balancers

    @property
    def interval(self) -> int:
        """Alpha, of all balancers."""
        return next(iter(self._attached.balancers.values())).interval

    def step(self, iteration: int | None, renumber: bool = False, learning_rate: float | None = None) -> None:
        """Write the intervals that have ended by the end of `iteration`.

        Args:
            learning_rate: of the step of `iteration`, for the records; None where it is unknown.
            renumber: put this iteration into the records, for a run that counts otherwise than its balancers: its
                iterations have several passes, or it began without balancing.
        """
        self._iteration = iteration if renumber else None
        self._learning_rate = learning_rate
        self._take()

    def flush(self) -> None:
        """Write everything and fsync it. Call before a checkpoint, and at the end.

        After a loss of power no checkpoint then knows of an interval that the records lack.
        """
        self._take()
        if self.run is not None and self._unsynced:
            for path in (self.run.losses_file, self.run.intervals_file):
                if path.exists():
                    fsync(path)
            self._unsynced = False

    def rewind(self, iteration: int) -> None:
        """Remove the records that a run resumed from `iteration` will write again."""
        self._waiting.clear()
        if self.run is not None:
            whole = iteration // self.interval * self.interval
            intervals.rewind(self.run.intervals_file, lambda record: record.iteration <= whole)
            losses_log.rewind(self.run.losses_file, whole)

    def rewind_to_interval(self, interval: int) -> None:
        """Remove the records of later intervals, which balancers that continue from here will write again."""
        self._waiting.clear()
        if self.run is not None:
            intervals.rewind(self.run.intervals_file, lambda record: record.interval <= interval)
            losses_log.rewind(self.run.losses_file, interval * self.interval)

    def whole_up_to(self) -> int:
        """Return the last iteration that ends an interval and up to which the files have all records."""
        assert self.run is not None
        whole = intervals.whole_up_to(self.run.intervals_file, self._attached.balancers)
        losses = losses_log.whole_up_to(self.run.losses_file) if self.per_iteration else None
        return whole if losses is None else min(whole, losses // self.interval * self.interval)

    @property
    def _attached(self) -> BalancerSet:
        if self._balancers is None:
            raise RuntimeError("Recorder.attach should come before the first step")
        return self._balancers

    def _take(self) -> None:
        names = list(self._attached.balancers)
        for report in self._attached.reports():
            self._waiting.setdefault(report.record.interval, {})[report.record.group] = report
        for interval in sorted(self._waiting):
            arrived = self._waiting[interval]
            if len(arrived) < len(names):
                return
            del self._waiting[interval]
            self._write([arrived[name] for name in names])

    def _write(self, reports: list[IntervalReport]) -> None:
        records = [report.record for report in reports]
        if self._iteration is not None:
            records = [replace(record, iteration=self._iteration) for record in records]
        if self._learning_rate is not None:
            rate = float(self._learning_rate)  # a tensor where the optimizer's is one
            records = [replace(record, learning_rate=rate) for record in records]
        if self.run is not None:
            self._unsynced = True
            if self.per_iteration:
                # First, so that every interval in intervals.jsonl has its losses.
                self._append_losses(reports)
            with self.run.intervals_file.open("a", encoding="utf-8", newline="") as file:
                file.write(intervals.lines_of(records))
        if self.on_record is not None:
            for record in records:
                self.on_record(record)

    def _append_losses(self, reports: list[IntervalReport]) -> None:
        assert self.run is not None
        columns = [
            Column(level, term, report.record.group)
            for report in reports
            for term in report.record.loss_by_term
            for level in report.record.levels
        ]
        last = reports[0].record.iteration
        groups = [report.losses.reshape(len(report.losses), -1).tolist() for report in reports]
        rows = [[value for group in iteration for value in group] for iteration in zip(*groups, strict=True)]
        first = last - len(rows) + 1
        file_path = self.run.losses_file
        new = not file_path.exists() or file_path.stat().st_size == 0
        with file_path.open("a", encoding="utf-8", newline="") as file:
            text = losses_log.header_line(columns) if new else ""
            file.write(text + "".join(losses_log.row_line(first + a, row) for a, row in enumerate(rows)))
