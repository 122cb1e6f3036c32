"""A view at the foot of the terminal, redrawn by rich's thread at most four times a second.

What the program prints meanwhile scrolls by above it. The terminal is put right again by `stop`, at the
interpreter's exit if need be; forked children (data loader workers) neither draw nor share the view.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment, SegmentLines

from msbal.ui.streams import Redirection
from msbal.ui.text import encodable

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable

MIN_REST = 40  # times what a drawing took, before the next one: it shares training's interpreter lock
WHOLE = 10_000  # rows, for the last view: everything, however high


def can_be_live(console: Console) -> bool:
    """Whether `console` is a terminal on which a view can be redrawn."""
    return console.is_terminal and not console.is_dumb_terminal and not console.is_jupyter


class Screen(Live):
    """rich's live display, of a view that the thread that trains never draws.

    Args:
        console: a terminal.
        view: drawn into the options' `max_width` and `max_height`.
        lock: held while `view` is drawn.
        failed: called once, from the drawing thread, if drawing raises; the view is gone by then.
        transient: erase the view at the end.
    """

    def __init__(
        self,
        console: Console,
        view: RenderableType,
        lock: AbstractContextManager[object],
        failed: Callable[[Exception], None],
        transient: bool = False,
    ) -> None:
        super().__init__(
            SegmentLines([]), console=console, vertical_overflow="crop", transient=transient,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._view, self._view_lock, self._failed = view, lock, failed
        self._redirection = Redirection(console)
        self._next = 0.0
        self._size = console.size
        self._owner = os.getpid()

    def start(self, refresh: bool = False) -> None:
        if self.is_started:
            return
        super().start(refresh)
        self._redirection.begin()
        _screens.add(self)
        atexit.register(self.stop)

    def refresh(self) -> None:
        """Draw, if there was enough rest since the last time. rich's thread calls it again and again."""
        begun = time.monotonic()
        if not self.is_started:
            super().refresh()  # the last time, by `stop`
        elif begun >= self._next:
            try:
                self._draw()
            except Exception as error:
                self.update(SegmentLines([]))
                self.stop()
                self._failed(error)
            now = time.monotonic()
            self._next = now + MIN_REST * (now - begun)

    def stop(self, whole: bool = False) -> None:
        """End the drawing, leaving the whole view, or else the frame as it is, on the screen. Again: no effect."""
        if not self.is_started or os.getpid() != self._owner:
            return
        last = self._rendered(self.console.width, WHOLE) if whole else None
        with self._lock:
            atexit.unregister(self.stop)
            self._redirection.release()
            if last is not None:
                self.update(last)
            self._redirection.end()
            super().stop()
            _screens.discard(self)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Bracket each redraw by the private mode 2026: terminals that know it show only whole frames."""
        return [_mode("h"), *super().process_renderables(renderables), _mode("l")]

    def abandon(self) -> None:
        """Let go of the streams without drawing."""
        self._redirection.end()
        atexit.unregister(self.stop)

    def _draw(self) -> None:
        size = self.console.size
        # One row less than the terminal, for the cursor's line after the view's end.
        # There an echoed ^C does not wrap and shift the view by a row.
        drawn = self._rendered(size.width, size.height - 1)
        drawn.lines.append([])
        if size != self._size:
            # A narrower terminal has wrapped the old view, whose height is then unknown.
            self._size = size
            self.console.control(Control.clear(), Control.home())
        self.update(drawn)
        super().refresh()

    def _rendered(self, width: int, height: int) -> SegmentLines:
        """Return the view as text: rich renders what it shows again in any thread that prints."""
        options = self.console.options.update(width=width, height=height).reset_height()
        with self._view_lock:
            lines = self.console.render_lines(self._view, options, pad=False)
        if options.ascii_only:
            encoding = self.console.encoding
            lines = [[part._replace(text=encodable(part.text, encoding)) for part in line] for line in lines]
        return SegmentLines(lines, new_lines=True)


def _mode(switch: str) -> Control:
    control = Control()
    # A non-empty control list marks the text as control codes, of no width.
    control.segment = Segment(f"\x1b[?2026{switch}", None, [(ControlType.CARRIAGE_RETURN,)])
    return control


_screens: weakref.WeakSet[Screen] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """In a forked child: print straight to the real streams.

    A lock of the console may have been held by the drawing thread, which does not exist in the child:
    a worker that prints a warning through rich's stream would wait for ever.
    """
    for screen in list(_screens):
        screen.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
