"""The live view of `msbal train`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from msbal.ui.look import QUIET, Look
from msbal.ui.plain import PlainMonitor
from msbal.ui.screen import Screen
from msbal.ui.state import Ending, RunHeader, RunState
from msbal.ui.view import final_frame, frame

if TYPE_CHECKING:
    from msbal.backend import LevelGroup
    from msbal.engine.record import IntervalRecord


class LiveMonitor:
    """A monitor that keeps a view of the run at the foot of a terminal.

    Training only stores values; a thread draws them, at most four times a second. Should drawing ever
    fail, the run goes on with plain lines.

    Args:
        console: a terminal.
        header: what the run is.
        history: records from before a resume, for the trends.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        console: Console,
        header: RunHeader,
        history: Iterable[IntervalRecord] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._look = Look.of(console)
        self._state = RunState(header, history, clock)
        self._screen: Screen | None = None
        self._plain: PlainMonitor | None = None
        self._groups: Sequence[LevelGroup] = ()

    def started(self, iteration: int, total: int, groups: Sequence[LevelGroup]) -> None:
        self._groups = groups
        self._state.started(iteration, total, groups)
        if self._screen is None:
            self._screen = Screen(self._console, self._look, self._frame, self._drawing_failed)
            self._screen.start()
        self._changed()

    def stepped(self, iteration: int, scalars: Mapping[str, float]) -> None:
        self._state.stepped(iteration, scalars)
        self._changed()
        if self._plain is not None:
            self._plain.stepped(iteration, scalars)

    def interval(self, record: IntervalRecord) -> None:
        self._state.interval(record)
        self._changed()
        if self._plain is not None:
            self._plain.interval(record)

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        self._state.evaluated(iteration, metrics)
        self._changed()
        if self._plain is not None:
            self._plain.evaluated(iteration, metrics)

    def message(self, text: str) -> None:
        self._state.message(text)
        self._changed()
        if self._screen is None or self._plain is not None:
            self._console.print(Text(self._state.messages[-1]), highlight=False, soft_wrap=True)

    def close(self, ending: Ending | None = None) -> None:
        """Leave the last view and a summary on the screen. Again: no effect."""
        if self._state.ending is not None:
            return
        self._state.close(ending)
        if self._plain is not None:
            self._plain.close(ending)
        elif self._screen is not None:
            self._screen.stop(final_frame(self._state, self._console.width, self._look))
        if self._plain is None and ending is not None:
            # Not part of the view: paths and commands to copy are wrapped by the terminal, never cut.
            width = max((len(label) for label in ending.details), default=0)
            for label, text in ending.details.items():
                line = Text.assemble((f"{label:<{width}}  ", QUIET), text)
                self._console.print(line, highlight=False, soft_wrap=True)

    def _changed(self) -> None:
        if self._screen is not None:
            self._screen.changed()

    def _frame(self, width: int, height: int) -> list[Text]:
        self._state.pace.add(self._state.clock(), self._state.iteration)
        return frame(self._state, width, height, self._look)

    def _drawing_failed(self, error: Exception) -> None:
        state = self._state
        self._plain = PlainMonitor(
            self._console, state.header, history=self._all_records(), clock=state.clock
        )
        self._plain.message(
            f"the live view failed ({type(error).__name__}: {error}); plain lines from here on"
        )
        self._plain.started(state.iteration, state.total, self._groups)

    def _all_records(self) -> list[IntervalRecord]:
        return [record for group in self._state.groups.values() for record in group.records]
