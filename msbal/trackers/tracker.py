"""What all trackers share: when which numbers are written, and that nothing asks or prints in between."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from msbal.backend import LevelGroup, Monitor
from msbal.errors import SpecError
from msbal.records import RunDirectory
from msbal.records.atomic import write_text
from msbal.trackers.scalars import metric_scalars, record_scalars

if TYPE_CHECKING:
    from msbal.engine.record import IntervalRecord
    from msbal.ui.state import Ending

PROJECT = "msbal"
"""The project where the tool's own settings name none."""
STEP_SECONDS = 10.0  # between two rows of speed, learning rate and memory


@dataclass(frozen=True)
class TrackedRun:
    """The run that a tracker watches.

    Attributes:
        folder: the run's files.
        spec: complete, as plain values.
        resume: whether it continues an earlier run.
        say: shows a person one line, such as where the run can be seen.
    """

    folder: RunDirectory
    spec: Mapping[str, Any]
    resume: bool = False
    say: Callable[[str], None] = lambda line: None

    @property
    def name(self) -> str:
        """The folder's name, or ``GRID-ARM-seed-0`` in an ablation, where other folders have the same."""
        *_, grid, runs, arm, name = ("", "", "", *self.folder.path.parts)
        return f"{grid}-{arm}-{name}" if runs == "runs" and name.startswith("seed-") else name

    def files(self, tracker: str) -> Path:
        """Return the folder for a tracker's own files, which exists."""
        path = self.folder.trackers / tracker
        path.mkdir(parents=True, exist_ok=True)
        return path

    def kept_id(self, tracker: str) -> str | None:
        """Return the id by which the tool knows this run, if it is resumed and was tracked before."""
        file = self.folder.trackers / tracker / "id.txt"
        return file.read_text(encoding="utf-8").strip() if self.resume and file.exists() else None

    def keep_id(self, tracker: str, id_: str) -> None:
        """Keep the id by which the tool knows this run, for when it is resumed."""
        write_text(self.files(tracker) / "id.txt", f"{id_}\n")


class Tracker(Monitor):
    """A monitor that writes a run's numbers to a tool, all those of an iteration as one row.

    A subclass says how to `begin`, `write`, `show` and `end`, and may `check` the tool's settings. While the tool is
    opened and closed it cannot ask on the terminal, and what it prints is dropped.

    Attributes:
        name: the entry point's.
        package: the module to import, as `api`.
        loggers: the package's talkative loggers, of which only errors are shown.

    Raises:
        SpecError: where the package is missing or the tool is not set up.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    loggers: ClassVar[Sequence[str]] = ()

    def __init__(self, run: TrackedRun) -> None:
        self.run = run
        try:
            with _contained():
                self.api: Any = importlib.import_module(self.package)
        except Exception as error:
            raise SpecError(
                "log.trackers",
                f"the package {self.package} cannot be imported: {type(error).__name__}: {error}",
                fix=f"run `pip install --upgrade 'msbal[{self.name}]'`, or leave {self.name} out",
            ) from error
        for logger in self.loggers:
            logging.getLogger(logger).setLevel(logging.ERROR)
        with _contained():
            self.check()
        self._row: dict[str, float] = {}
        self._iteration = 0
        self._steps: dict[str, float] = {}
        self._next = 0.0
        self._several = self._begun = False
        self._early: list[tuple[int, str, Path]] = []

    def check(self) -> None:
        """Refuse to start where the tool is not set up, before anything is written. Raises: SpecError."""

    def begin(self, iteration: int) -> str:
        """Open the tool's run, or continue it after `iteration`; return where a person can see it."""
        raise NotImplementedError

    def write(self, iteration: int, row: Mapping[str, float]) -> None:
        """Write the finite numbers of an iteration, by name."""
        raise NotImplementedError

    def show(self, iteration: int, name: str, path: Path) -> None:
        """Write an image; its name is the same when a later one takes its place."""

    def end(self, how: str) -> None:
        """Close the tool's run, which is ``finished``, ``stopped`` or ``failed``."""
        raise NotImplementedError

    def started(self, iteration: int, total: int, groups: Sequence[LevelGroup]) -> None:
        self._several = len(groups) > 1
        with _contained():
            place = self.begin(iteration)
        self._begun = True
        self.run.say(f"{self.name}: {place}")
        for image in self._early:
            self.show(*image)

    def stepped(self, iteration: int, scalars: Mapping[str, float]) -> None:
        self._steps.update(scalars)
        if iteration > self._iteration:
            self._flush()
        now = time.monotonic()
        if now >= self._next:
            self._next = now + STEP_SECONDS
            self._add(iteration, self._of_training())

    def interval(self, record: IntervalRecord) -> None:
        total = self._row.get("train/loss", 0.0) if record.iteration == self._iteration else 0.0
        found = {
            **record_scalars(record, self._several or record.group != "all"),
            **self._of_training(),
            "train/loss": total + sum(record.loss) / record.divisor,
        }
        if record.learning_rate is not None:
            found["train/learning_rate"] = record.learning_rate
        self._add(record.iteration, found)

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        self._add(iteration, metric_scalars(metrics))
        self._flush()

    def drawn(self, iteration: int, name: str, path: Path) -> None:
        if self._begun:
            self.show(iteration, f"images/{name}", path)
        else:
            self._early.append((iteration, f"images/{name}", path))

    def close(self, ending: Ending | None = None) -> None:
        """Write what is left and close the tool's run. Again, or if it never began: no effect.

        An interrupted run is left as it is, since a person waits: the tool counts it as crashed until it is resumed.
        """
        begun, self._begun = self._begun, False
        if begun and not (ending is not None and ending.how == "interrupted"):
            with _contained():
                try:
                    self._flush()
                finally:
                    self.end(ending.how if ending else "failed")

    def _of_training(self) -> dict[str, float]:
        return {f"train/{name}": value for name, value in self._steps.items()}

    def _add(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Put numbers into the row of an iteration; the row before is complete."""
        if iteration != self._iteration:
            self._flush()
        self._iteration = iteration
        self._row.update(scalars)

    def _flush(self) -> None:
        row = {name: float(value) for name, value in self._row.items() if math.isfinite(value)}
        self._row = {}
        if row:
            self.write(self._iteration, row)


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Let a tool neither ask nor print on the terminal, nor take the place of what stops a run and saves it."""
    stdin, hook = sys.stdin, sys.excepthook
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with open(os.devnull) as nothing, contextlib.redirect_stdout(_Dropped(sys.stdout)):  # noqa: PTH123
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin, sys.excepthook = stdin, hook
            for number, handler in handlers.items():
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)


class _Dropped(io.StringIO):
    """A stream that drops what is printed, but not what rich draws meanwhile in another thread."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.rich_proxied_file = getattr(stream, "rich_proxied_file", stream)
