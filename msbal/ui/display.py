"""What a person sees of a run: a live view, or a line for each event, or next to nothing.

The first word of a line says which event it is: ``start``, ``levels``, ``train``, ``interval``, ``doing``,
``eval``, ``image``, ``note``, ``end``. Nothing but ASCII is added to the names that the user chose, and there are no
escape codes unless the console is a terminal with colours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from msbal.backend import LevelGroup, Monitor
from msbal.engine.record import SHARED
from msbal.errors import as_typed
from msbal.metric_text import points
from msbal.ui.decisions import reward_text
from msbal.ui.look import BAD, QUIET, RAISED, STRONG
from msbal.ui.output import Output
from msbal.ui.overview import END_STYLES, scalar_parts, summary
from msbal.ui.printing import print_line
from msbal.ui.state import Ending, RunHeader, RunState, mean_loss, nonfinite_line, shown_metrics
from msbal.ui.text import duration, number, one_line
from msbal.ui.view import RunView

if TYPE_CHECKING:
    from msbal.engine.record import IntervalRecord

PROGRESS_SECONDS = 10.0  # at least, between two ``train`` or ``doing`` lines


class RunDisplay(RunState):
    """A monitor that prints lines or, if `live`, draws a view.

    Args:
        console: where to print; a terminal if `live`.
        header: what the run is.
        live: draw; should that ever fail, the run goes on with lines.
        history: records from before a resume, for the trends; not printed again.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        console: Console,
        header: RunHeader,
        *,
        live: bool = False,
        history: Iterable[IntervalRecord] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(header, history, clock)
        self._console = console
        self._out = Output(console, self.lock, RunView(self) if live else None)
        self._next = 0.0
        self._file: IO[str] | None = None

    @classmethod
    def to_file(cls, path: Path, header: RunHeader) -> RunDisplay:
        """Return one that appends lines to a log file. `close` closes the file."""
        file = path.open("a", encoding="utf-8", buffering=1)
        display = cls(Console(file=file, color_system=None, force_terminal=False), header)
        display._file = file
        return display

    def started(self, iteration: int, total: int, groups: Sequence[LevelGroup]) -> None:
        super().started(iteration, total, groups)
        self._next = self.clock() + PROGRESS_SECONDS
        self._out.begin()
        header = self.header
        self._out.event(
            "start",
            Text(one_line(header.name), style=STRONG),
            f"{header.backend} {header.model}".strip(),
            f"{header.strategy} interval {header.interval}",
            header.device,
            f"iterations {iteration + 1} to {total}",
        )
        for group in groups:
            strides = zip(group.levels, group.strides, strict=True)
            levels = " ".join(f"{level}/{stride}" for level, stride in strides)
            self._out.event(
                "levels", group.name, group.head, f"level/stride {levels}", f"terms {' '.join(group.terms)}"
            )

    def stepped(self, iteration: int, scalars: Mapping[str, float]) -> None:
        super().stepped(iteration, scalars)
        if self._rests():
            return
        share = f"{100 * iteration / self.total:5.1f}%" if self.total else "-"
        losses = (
            mean_loss(g.so_far) for g in self.groups.values() if g.last is None and g.so_far is not None
        )
        so_far = " ".join(f"loss so far {number(loss)}" for loss in losses)
        times = f"elapsed {duration(self.elapsed)}", f"eta {duration(self.remaining())}"
        self._out.event("train", self._position(iteration), share, so_far, *scalar_parts(self), *times)

    def progress(self, what: str, done: int, total: int) -> None:
        super().progress(what, done, total)
        activity = self.activity
        if activity is None or self.begun is None or self._rests():
            return
        eta = f"eta {duration(activity.remaining(self.clock()))}" if activity.total > 1 else ""
        self._out.event("doing", self._position(self.iteration), activity.counts, eta)

    def _rests(self) -> bool:
        """Tell whether to print no progress now, since a view shows it or the last line is recent."""
        if self._out.drawing or (now := self.clock()) < self._next:
            return True
        self._next = now + PROGRESS_SECONDS
        return False

    def _position(self, iteration: int) -> str:
        total = str(self.total)
        epoch = f"  epoch {self.epoch}" if self.epoch else ""
        return f"it {iteration:>{len(total)}}/{total}{epoch}"

    def interval(self, record: IntervalRecord) -> None:
        super().interval(record)
        losses = [mean_loss(record), *(mean_loss(record, (loss,)) for loss in record.loss)]
        named = zip(("loss", *record.levels), losses, strict=True)
        unused = record.iteration >= self.total > 0
        weights = Text("weights unused:" if unused else f"weights from {record.iteration + 1}:")
        for level, weight in zip(record.levels, record.weights, strict=True):
            weights.append(f" {level} ").append(f"{weight:.3f}", style=RAISED if weight > 1 else "")
        action: str | Text = f"action {record.action}" if record.action else ""
        if record.probabilities:
            width = max(len(name) for name in record.probabilities)
            chance = record.probabilities.get(record.action, float("nan"))
            action = f"action {record.action:<{width}} p {chance:.3f}"
        reward: str | Text = ""
        if record.reward is not None:
            reward = Text.assemble("reward ", "" if record.reward else " ", reward_text(record.reward))
        self._out.event(
            "interval",
            f"t {record.interval:>3}",
            self._position(record.iteration),
            f"{record.group:<4}" if self.several or record.group != "all" else "",
            " ".join(f"{name} {number(loss):<6}" for name, loss in named),
            _gradients(record),
            weights,
            action,
            reward,
        )
        if record.nonfinite:
            self._out.event("note", Text(nonfinite_line(record, self.several), style=BAD))

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        super().evaluated(iteration, metrics)
        shown = shown_metrics(metrics).items()
        found = (f"{name} {points(value, 1)}" for name, value in shown)
        self._out.event("eval", self._position(iteration), *found)

    def drawn(self, iteration: int, name: str, path: Path) -> None:
        self._out.event("image", one_line(as_typed(path)))

    def message(self, text: str) -> None:
        super().message(text)
        self._out.event("note", one_line(text))

    def close(self, ending: Ending | None = None) -> None:
        """Print how the run ended, under the last view if there is one. Again: no effect."""
        if self.ending is not None:
            return
        super().close(ending)
        ended = ending or Ending()
        drawn = self._out.drawing
        if drawn:
            self._out.end()
        if ended.how == "interrupted":
            said = Text.assemble((ended.how, END_STYLES[ended.how]), f": {ended.details.get('kept', '')}")
            print_line(self._console, said) if drawn else self._out.event("end", said)
        elif drawn:
            facts: dict[str, str | Text] = {**summary(self), **ended.details}
            width = max(map(len, facts), default=0)
            for label, text in facts.items():
                print_line(self._console, (f"{label:<{width}}  ", QUIET), text)
        else:
            if self.begun is not None:
                how = Text(ended.how, style=END_STYLES[ended.how])
                self._out.event("end", how, self._position(self.iteration), duration(self.elapsed))
            for label, text in ended.details.items():
                self._out.event("end", f"{label}: {text}")
        if self._file is not None:
            self._file.close()


def _gradients(record: IntervalRecord) -> str:
    """Return the norms of the levels' gradients, where the interval measured any."""
    named = zip(record.levels, record.gradient_norm.get(SHARED, ()), strict=False)
    norms = " ".join(f"{level} {number(norm)}" for level, norm in named)
    return f"gradient {norms}" if norms else ""


class QuietMonitor(Monitor):
    """A monitor that prints the first non-finite loss of each group and, in one line, how the run ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: set[str] = set()
        self._metrics: Mapping[str, Any] = {}
        self._closed = False

    def interval(self, record: IntervalRecord) -> None:
        if record.nonfinite and record.group not in self._seen:
            self._seen.add(record.group)
            print_line(self._console, f"note: {nonfinite_line(record, record.group != 'all')}")

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        self._metrics = dict(metrics)

    def close(self, ending: Ending | None = None) -> None:
        """Print how the run ended, its last metrics, and where it is. Again, or for a failure: no effect.

        A failure has an error line of its own.
        """
        ended = ending or Ending()
        if self._closed or ended.how == "failed":
            return
        self._closed = True
        shown = shown_metrics(self._metrics, ("AP", "AP50"))
        found = [f"{name} {points(value, 1)}" for name, value in shown.items() if value is not None]
        where = [
            f"{label}: {ended.details[label]}"
            for label in ("run", "continue", "kept")
            if label in ended.details
        ]
        print_line(self._console, one_line(", ".join([ended.how, *found, *where])))
