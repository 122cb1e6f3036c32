"""Plain lines: for logs, pipes and whoever greps.

One line is one event, and its first word says which: ``start``, ``train``, ``interval``, ``eval``,
``note``, ``end``. Nothing but ASCII is added to the names that the user chose, and there are no escape
codes unless the console is a terminal with colours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from msbal.ui.look import BAD, GOOD, QUIET, RAISED, STRONG
from msbal.ui.state import Ending, RunHeader, RunState, nonfinite_line, shown_metrics
from msbal.ui.text import duration, figure, one_line, plain_number, size_of

if TYPE_CHECKING:
    from msbal.backend import LevelGroup
    from msbal.engine.record import IntervalRecord

PROGRESS_SECONDS = 10.0


class PlainMonitor:
    """A monitor that prints lines.

    Args:
        console: where to.
        header: what the run is.
        progress_seconds: at least this long between two ``train`` lines.
        history: records from before a resume; not printed again.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        console: Console,
        header: RunHeader,
        progress_seconds: float = PROGRESS_SECONDS,
        history: Iterable[IntervalRecord] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._state = RunState(header, history, clock)
        self._every = progress_seconds
        self._next = 0.0
        self._file: IO[str] | None = None

    @classmethod
    def to_file(cls, path: Path, header: RunHeader) -> PlainMonitor:
        """A monitor that appends to a log file. `close` closes the file."""
        file = path.open("a", encoding="utf-8", buffering=1)
        monitor = cls(Console(file=file, color_system=None, force_terminal=False), header)
        monitor._file = file
        return monitor

    def started(self, iteration: int, total: int, groups: Sequence[LevelGroup]) -> None:
        state = self._state
        state.started(iteration, total, groups)
        self._next = state.clock() + self._every
        header = state.header
        self._print(
            "start",
            Text(one_line(header.name), style=STRONG),
            f"{header.backend} {header.model}".strip(),
            f"{header.strategy} interval {header.interval}",
            header.device,
            f"iterations {iteration + 1} to {total}",
        )
        for group in groups:
            levels = " ".join(
                f"{level}/{stride}" for level, stride in zip(group.levels, group.strides, strict=True)
            )
            self._print(
                "levels", group.name, group.head, f"level/stride {levels}", f"terms {' '.join(group.terms)}"
            )

    def stepped(self, iteration: int, scalars: Mapping[str, float]) -> None:
        state = self._state
        state.stepped(iteration, scalars)
        now = state.clock()
        if now >= self._next:
            self._next = now + self._every
            state.pace.add(now, iteration)
            self._progress()

    def _progress(self) -> None:
        state = self._state
        scalars = state.scalars
        parts: list[str | Text] = [self._position(state.iteration)]
        parts.append(f"{100 * state.iteration / state.total:5.1f}%" if state.total else "-")
        if "images_per_second" in scalars:
            parts.append(f"{scalars['images_per_second']:.1f} img/s")
        if "learning_rate" in scalars:
            parts.append(f"lr {plain_number(scalars['learning_rate'])}")
        if "memory_bytes" in scalars:
            parts.append(f"memory {size_of(scalars['memory_bytes'])}")
        self._print(
            "train", *parts, f"elapsed {duration(state.elapsed)}", f"eta {duration(state.remaining())}"
        )

    def _position(self, iteration: int) -> str:
        total = str(self._state.total)
        return f"it {iteration:>{len(total)}}/{total}"

    def interval(self, record: IntervalRecord) -> None:
        self._state.interval(record)
        parts: list[str | Text] = [f"t {record.interval:>3}", self._position(record.iteration)]
        if len(self._state.groups) > 1 or record.group != "all":
            parts.append(Text(f"{record.group:<4}"))
        count = record.count
        losses = [loss / count if count else None for loss in record.loss]
        whole = sum(record.loss) / count if count else None
        parts.append(
            f"loss {figure(whole):<6} "
            + " ".join(f"{level} {figure(x):<6}" for level, x in zip(record.levels, losses, strict=True))
        )
        weights = Text("weight")
        for level, weight in zip(record.levels, record.weights, strict=True):
            weights.append(f" {level} ")
            weights.append(f"{weight:.3f}", style=RAISED if weight > 1 else "")
        parts.append(weights)
        if record.probabilities:
            width = max(len(name) for name in record.probabilities)
            chance = record.probabilities.get(record.action, float("nan"))
            parts.append(f"action {record.action:<{width}} p {chance:.3f}")
        elif record.action:
            parts.append(f"action {record.action}")
        if record.reward is not None:
            reward = f"{record.reward:+d}" if record.reward else " 0"
            style = {1: GOOD, -1: BAD}.get(record.reward, "")
            parts.append(Text.assemble("reward ", (reward, style)))
        self._print("interval", *parts)
        if record.nonfinite:
            self._print("note", Text(nonfinite_line(record, len(self._state.groups) > 1), style=BAD))

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        self._state.evaluated(iteration, metrics)
        figures = [
            f"{name} {'-' if value is None else f'{value:.4f}'}"
            for name, value in shown_metrics(metrics).items()
        ]
        self._print("eval", self._position(iteration), "  ".join(figures))

    def message(self, text: str) -> None:
        self._state.message(text)
        self._print("note", Text(one_line(text)))

    def close(self, ending: Ending | None = None) -> None:
        """Print how it ended. Again: no effect."""
        state = self._state
        if state.ending is not None:
            return
        state.close(ending)
        ended = state.ending or Ending()
        if state.begun is not None:
            style = {"finished": GOOD, "failed": BAD}.get(ended.how, "yellow")
            self._print(
                "end", Text(ended.how, style=style), self._position(state.iteration), duration(state.elapsed)
            )
        for label, text in ended.details.items():
            self._print("end", f"{label}: {text}")
        if self._file is not None:
            self._file.close()

    def _print(self, kind: str, *parts: str | Text) -> None:
        line = Text.assemble((f"{kind:<9}", QUIET if kind in ("train", "note") else ""))
        for i, part in enumerate(p for p in parts if str(p)):
            if i:
                line.append("  ")
            line.append_text(part if isinstance(part, Text) else Text(part))
        line.rstrip()
        if not self._console.encoding.lower().startswith("utf"):
            line.plain = line.plain.encode("ascii", "replace").decode("ascii")
        # soft_wrap: a line stays one line, however long, also on a terminal.
        self._console.print(line, soft_wrap=True, highlight=False)
