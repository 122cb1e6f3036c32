from __future__ import annotations

import io
import logging
import sys

import pytest
from rich.console import Console

from msbal.ui.streams import LineStream, Redirection


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=20, force_terminal=False)


def test_lines_are_printed_whole_and_literally(console: Console) -> None:
    stream = LineStream(console, io.StringIO())
    stream.write("[bold]half ")
    stream.flush()
    assert console.file.getvalue() == ""
    stream.write("line[/x]\nmore than twenty characters, unwrapped\nrest")
    assert console.file.getvalue() == "[bold]half line[/x]\nmore than twenty characters, unwrapped\n"
    stream.release()
    assert console.file.getvalue().endswith("\nrest\n")


def test_carriage_returns_start_the_line_anew(console: Console) -> None:
    stream = LineStream(console, io.StringIO())
    for text in ("\r 1/3", "\r 2/3", "\r 3/3\n", "windows\r\n", "a\r", "b\n"):
        stream.write(text)
    assert console.file.getvalue() == " 3/3\nwindows\nb\n"


def test_a_long_progress_bar_does_not_pile_up(console: Console) -> None:
    stream = LineStream(console, io.StringIO())
    for i in range(1000):
        stream.write(f"\r{i}")
    assert len(stream._rest) < 10


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_goes_into_a_file_stays_there(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    redirection = Redirection(console)
    redirection.begin()
    print("one", file=sys.stderr)
    redirection.end()
    assert sys.stderr.getvalue() == "one\n" and console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_everything_is_put_back(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    logger = logging.getLogger("msbal.test.streams")
    handler = logging.StreamHandler(err)
    other = logging.StreamHandler(io.StringIO())
    kept = other.stream
    logger.addHandler(handler)
    logger.addHandler(other)
    try:
        redirection = Redirection(console)
        redirection.begin()
        print("one")
        logger.warning("two")
        assert other.stream is kept
        late = logging.StreamHandler()
        logger.addHandler(late)
        redirection.release()
        redirection.end()
        assert (sys.stdout, sys.stderr, handler.stream, late.stream) == (out, err, err, err)
        assert console.file.getvalue() == "one\ntwo\n"
        assert out.getvalue() == err.getvalue() == ""
    finally:
        logger.removeHandler(handler)
        logger.removeHandler(other)


def test_a_stream_replaced_meanwhile_is_left_alone(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    redirection = Redirection(console)
    redirection.begin()
    mine = io.StringIO()
    monkeypatch.setattr(sys, "stdout", mine)
    redirection.end()
    assert sys.stdout is mine
