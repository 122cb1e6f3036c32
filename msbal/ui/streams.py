"""While a live view is on the screen, what the program prints goes above it, line by line.

rich's own redirection parses what is flushed as markup, so that a framework's ``[/...]`` raises in the
middle of training, wraps lines, lets progress bars pile up, and misses logging handlers that took hold of a
stream earlier. Hence this one.
"""

from __future__ import annotations

import logging
import sys
from typing import IO, TYPE_CHECKING, Any

from rich.ansi import AnsiDecoder
from rich.file_proxy import FileProxy
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console


class LineStream(FileProxy):
    """A text stream that prints whole lines through a console.

    A carriage return starts the line anew, as progress bars expect. An unfinished line is kept until it
    ends or the stream is released.
    """

    def __init__(self, console: Console, stream: IO[str]) -> None:
        super().__init__(console, stream)
        self._console = console
        self._rest = ""
        self._decoder = AnsiDecoder()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self.rich_proxied_file, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        if lines:
            self._print(lines)
        # Only what follows the last return would be seen; but one at the very end has erased nothing yet.
        body, end = self._rest.rstrip("\r"), self._rest.endswith("\r")
        self._rest = body.rpartition("\r")[2] + ("\r" if end else "")
        return len(text)

    def flush(self) -> None:
        """Do nothing: half a line cannot stand above the view."""

    def release(self) -> None:
        """Print what is left of an unfinished line."""
        if self._rest.strip():
            self._print([self._rest])
        self._rest = ""

    def _print(self, lines: list[str]) -> None:
        decoded = [self._decoder.decode_line(line.rstrip("\r").rpartition("\r")[2]) for line in lines]
        self._console.print(Text("\n").join(decoded), soft_wrap=True)

    def writable(self) -> bool:
        return True


class Redirection:
    """stdout, stderr and the logging handlers that write to them, all through `console`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._replaced: list[tuple[str, LineStream]] = []

    def begin(self) -> None:
        for name in ("stdout", "stderr"):
            real = getattr(sys, name)
            if real is None or isinstance(real, LineStream):
                continue
            if real is not self._console.file and not real.isatty():
                continue  # a file's or a pipe's output is no concern of the terminal
            proxy = LineStream(self._console, real)
            setattr(sys, name, proxy)
            for handler in _stream_handlers():
                if handler.stream is real:
                    handler.setStream(proxy)
            self._replaced.append((name, proxy))

    def release(self) -> None:
        """Print unfinished lines, before the view's last frame."""
        for _, proxy in self._replaced:
            proxy.release()

    def end(self) -> None:
        """Put everything back that is still ours."""
        for name, proxy in self._replaced:
            for handler in _stream_handlers():  # those made meanwhile, too
                if handler.stream is proxy:
                    # Not setStream, which flushes under the handler's lock: another thread may hold it in a
                    # forked child.
                    handler.stream = proxy.rich_proxied_file
            if getattr(sys, name) is proxy:
                setattr(sys, name, proxy.rich_proxied_file)
        self._replaced = []


def _stream_handlers() -> list[logging.StreamHandler[Any]]:
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    return [
        handler
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
    ]
