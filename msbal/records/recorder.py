"""From the balancers to the run's files, while it trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msbal.record import IntervalRecord
from msbal.records import intervals, losses_log
from msbal.records.losses_log import Column
from msbal.records.run_directory import RunDirectory

if TYPE_CHECKING:
    from msbal.engine import BalancerSet
    from msbal.engine.report import IntervalReport


class Recorder:
    """Writes every interval's records and losses as they arrive.

    An append is no atomic write: a kill may cut the last line, which readers pass over and `rewind`
    removes. Records that belong to one interval are written in one go, in the balancers' order.

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

    def attach(self, balancers: BalancerSet) -> None:
        """Record these balancers. Call once, before training."""
        self._balancers = balancers

    @property
    def interval(self) -> int:
        """Alpha, of all balancers."""
        return next(iter(self._attached.balancers.values())).interval

    def step(self, iteration: int) -> None:
        """Take what has arrived by the end of `iteration`; waits for nothing."""
        self._take(wait=False)

    def flush(self) -> None:
        """Take everything, waiting for the device. Call before a checkpoint and at the end."""
        self._take(wait=True)

    def rewind(self, iteration: int) -> None:
        """Remove what a run resumed from `iteration` will write again."""
        self._waiting.clear()
        if self.run is not None:
            whole = iteration // self.interval * self.interval
            intervals.rewind(self.run.intervals_file, whole)
            losses_log.rewind(self.run.losses_file, whole)

    @property
    def _attached(self) -> BalancerSet:
        if self._balancers is None:
            raise RuntimeError("Recorder.attach should come before the first step")
        return self._balancers

    def _take(self, wait: bool) -> None:
        names = list(self._attached.balancers)
        for report in self._attached.reports(wait):
            self._waiting.setdefault(report.record.interval, {})[report.record.group] = report
        for interval in sorted(self._waiting):
            arrived = self._waiting[interval]
            if len(arrived) < len(names):
                return
            del self._waiting[interval]
            self._write([arrived[name] for name in names])

    def _write(self, reports: list[IntervalReport]) -> None:
        records = [report.record for report in reports]
        if self.run is not None:
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
        rows = [
            [value for report in reports for term in report.losses[a] for value in term]
            for a in range(len(reports[0].losses))
        ]
        first = last - len(rows) + 1
        file_path = self.run.losses_file
        new = not file_path.exists() or file_path.stat().st_size == 0
        with file_path.open("a", encoding="utf-8", newline="") as file:
            text = losses_log.header_line(columns) if new else ""
            file.write(text + "".join(losses_log.row_line(first + a, row) for a, row in enumerate(rows)))
