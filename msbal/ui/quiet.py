"""Next to nothing: what went wrong, and the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from msbal.ui.state import Ending, nonfinite_line, shown_metrics
from msbal.ui.text import one_line

if TYPE_CHECKING:
    from msbal.backend import LevelGroup
    from msbal.engine.record import IntervalRecord


class QuietMonitor:
    """A monitor that prints the first non-finite loss of each group, and how the run ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: set[str] = set()
        self._metrics: Mapping[str, Any] = {}
        self._closed = False

    def started(self, iteration: int, total: int, groups: Sequence[LevelGroup]) -> None:
        pass

    def stepped(self, iteration: int, scalars: Mapping[str, float]) -> None:
        pass

    def interval(self, record: IntervalRecord) -> None:
        if record.nonfinite and record.group not in self._seen:
            self._seen.add(record.group)
            self._print(f"note: {nonfinite_line(record, record.group != 'all')}")

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        self._metrics = dict(metrics)

    def message(self, text: str) -> None:
        pass

    def close(self, ending: Ending | None = None) -> None:
        """Print the end: the state, the last evaluation, and the ending's details."""
        if self._closed:
            return
        self._closed = True
        ended = ending or Ending()
        figures = [
            f"{k} {v:.4f}" for k, v in shown_metrics(self._metrics, ("AP", "AP50")).items() if v is not None
        ]
        self._print(", ".join([ended.how, *figures]))
        for label, text in ended.details.items():
            self._print(f"{label}: {text}")

    def _print(self, text: str) -> None:
        self._console.print(Text(one_line(text)), soft_wrap=True, highlight=False)
