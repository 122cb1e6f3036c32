"""Where a monitor's events go: lines, or a live view in their place."""

from __future__ import annotations

from threading import Lock

from rich.console import Console, RenderableType
from rich.text import Text

from msbal.ui.look import QUIET
from msbal.ui.printing import print_line
from msbal.ui.screen import Screen


class Output:
    """Prints a line for each event, or keeps a view on the screen instead.

    Should drawing ever fail, lines are printed from then on.

    Args:
        console: where to print; a terminal, if there is a view.
        lock: held while the view is drawn.
        view: what to draw in place of lines.
        kind_width: of the column that says what kind of event a line is.
    """

    def __init__(
        self, console: Console, lock: Lock, view: RenderableType | None = None, kind_width: int = 9
    ) -> None:
        self._console, self._kind_width = console, kind_width
        self._screen = None if view is None else Screen(console, view, lock, self._drawing_failed)

    @property
    def drawing(self) -> bool:
        """Whether a view is on the screen."""
        return self._screen is not None and self._screen.is_started

    def begin(self) -> None:
        """Begin to draw, if there is a view."""
        if self._screen is not None:
            self._screen.start()

    def end(self) -> None:
        """Leave the whole view on the screen."""
        if self._screen is not None:
            self._screen.stop(whole=True)

    def event(self, kind: str, *parts: str | Text) -> None:
        """Print an event as a line, its kind and then those of `parts` that are not empty, unless a view shows it."""
        if self.drawing:
            return
        line = Text.assemble((f"{kind:<{self._kind_width}}", QUIET if kind in ("train", "note") else ""))
        line.append_text(Text("  ").join(Text.assemble(part) for part in parts if part)).rstrip()
        print_line(self._console, line)

    def _drawing_failed(self, error: Exception) -> None:
        self.event(
            "note", f"the live view failed ({type(error).__name__}: {error}); plain lines from here on"
        )
