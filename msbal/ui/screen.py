"""A region at the foot of the terminal, redrawn by a thread of its own at most four times a second.

What the program prints meanwhile scrolls by above it. The terminal is put right again by `stop`, at the
interpreter's exit if need be; forked children (data loader workers) neither draw nor share the region.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderHook, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment
from rich.text import Text

from msbal.ui.streams import Redirection

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable

    from msbal.ui.look import Look

PERIOD = 0.25  # seconds between two looks at whether something changed
LEAST_REST = 40  # times what a drawing took, before the next one: it shares training's interpreter lock
IDLE_PERIOD = 1.0  # redraw at least so often, for the clocks

Frame = Callable[[int, int], "list[Text]"]


class Lines:
    """Lines that are cut, never wrapped, at the width of the terminal."""

    def __init__(self, lines: list[Text], look: Look) -> None:
        self.lines, self.look = lines, look

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines:
            if self.look.ascii:
                line = line.copy()
                line.plain = line.plain.replace("…", "~").encode("ascii", "replace").decode("ascii")
            line.no_wrap, line.overflow = True, "crop"
            yield line


class _Atomic(RenderHook):
    """Brackets each redraw, so that terminals with synchronised output show only whole frames.

    Others ignore the private mode 2026.
    """

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Mode("h"), *renderables, _Mode("l")]


class _Mode:
    def __init__(self, switch: str) -> None:
        self.switch = switch

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        # A non-empty control list marks the text as control codes, of no width.
        yield Segment(f"\x1b[?2026{self.switch}", None, [(ControlType.CARRIAGE_RETURN,)])


class Screen:
    """The region.

    Args:
        console: a terminal.
        look: its marks.
        frame: gives the lines for a width and a height.
        failed: called once, from the drawing thread, if `frame` raises; the region is gone by then.
    """

    def __init__(
        self, console: Console, look: Look, frame: Frame, failed: Callable[[Exception], None]
    ) -> None:
        self._console, self._look, self._frame, self._failed = console, look, frame, failed
        self._lines: list[Text] = []  # Live asks for them at once
        self._live = Live(
            console=console,
            auto_refresh=False,
            vertical_overflow="crop",
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=self._renderable,
        )
        self._redirection = Redirection(console)
        self._changed = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="msbal-screen", daemon=True)
        self._size = console.size
        self._owner = os.getpid()

    def start(self) -> None:
        self._live.start()
        self._console.push_render_hook(_Atomic())
        self._redirection.begin()
        _screens.add(self)
        atexit.register(self.stop)
        self._thread.start()

    def changed(self) -> None:
        """Something to show has changed. O(1); drawing happens elsewhere and later."""
        self._changed.set()

    def stop(self, last: list[Text] | None = None) -> None:
        """End the drawing, leaving `last` (or the frame as it is) on the screen. Again: no effect."""
        if self._over.is_set() or os.getpid() != self._owner:
            return
        self._over.set()
        self._changed.set()
        atexit.unregister(self.stop)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        self._redirection.release()
        if last is not None:
            self._lines = last
        self._redirection.end()
        self._console.pop_render_hook()
        self._live.stop()
        _screens.discard(self)

    def abandon(self) -> None:
        """Let go of the streams without drawing."""
        self._redirection.end()
        atexit.unregister(self.stop)

    def _renderable(self) -> Lines:
        return Lines(self._lines, self._look)

    def _run(self) -> None:
        drawn, rest = 0.0, PERIOD
        while not self._over.is_set():
            if self._changed.is_set() or time.monotonic() - drawn >= IDLE_PERIOD:
                self._changed.clear()
                begun = time.monotonic()
                try:
                    self._draw()
                except Exception as error:
                    self._lines = []
                    self.stop()
                    self._failed(error)
                    return
                drawn = time.monotonic()
                rest = max(PERIOD, LEAST_REST * (drawn - begun))
            self._over.wait(rest)

    def _draw(self) -> None:
        size = self._console.size
        # One row less than the terminal, for the cursor's line after the region's end.
        # There an echoed ^C does not wrap and shift the region by a row.
        self._lines = [*self._frame(size.width, size.height - 1), Text()]
        if size != self._size:
            # A narrower terminal has wrapped the old region, whose height is then unknown.
            self._size = size
            self._console.control(Control.clear(), Control.home())
        self._live.refresh()


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
