"""The live monitor: what the training thread does, what the drawing thread does, and the end."""

from __future__ import annotations

import io
import itertools
import threading
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from msbal.engine.record import IntervalRecord
from msbal.ui.display import RunDisplay
from msbal.ui.screen import Screen
from msbal.ui.state import Ending, RunHeader
from msbal.ui.view import RunView

Make = Callable[..., IntervalRecord]


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), width=100, height=40, force_terminal=True, color_system="truecolor")


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("did not happen within ten seconds")


def test_training_thread_never_draws(
    monkeypatch: pytest.MonkeyPatch, terminal: Console, header: RunHeader, one_group, make_record: Make
) -> None:  # type: ignore[no-untyped-def]
    drawers = set()
    draw = RunView.__rich_console__

    def spy(*args):  # type: ignore[no-untyped-def]
        drawers.add(threading.current_thread())
        return draw(*args)

    monkeypatch.setattr(RunView, "__rich_console__", spy)
    monitor = RunDisplay(terminal, header, live=True)
    monitor.started(0, 1000, one_group)
    for i in range(1, 501):
        monitor.stepped(i, {"learning_rate": 0.1})
    monitor.interval(make_record(5, one_group[0]))
    wait_for(lambda: bool(drawers))
    assert threading.main_thread() not in drawers
    monitor.close(Ending())


def test_stepping_stores_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, terminal: Console, header: RunHeader
) -> None:
    monkeypatch.setattr(Screen, "refresh", lambda self: None)
    monitor = RunDisplay(terminal, header, live=True)
    monitor.started(0, 10**6, ())
    written = terminal.file.getvalue()
    for i in range(1, 20_001):
        monitor.stepped(i, {"learning_rate": 1 / i, "images_per_second": 3.0})
    assert (monitor.iteration, monitor.scalars) == (
        20_000,
        {"learning_rate": 1 / 20_000, "images_per_second": 3.0},
    )
    assert terminal.file.getvalue() == written
    monitor.close()


def test_redraws_are_few(terminal: Console, header: RunHeader, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = []
    monkeypatch.setattr(RunView, "__rich_console__", lambda *a: draws.append(time.monotonic()) or [])
    monitor = RunDisplay(terminal, header, live=True)
    monitor.started(0, 1000, ())

    def step() -> bool:
        monitor.stepped(1, {})
        return len(draws) >= 4

    wait_for(step)
    gaps = [b - a for a, b in itertools.pairwise(draws)]
    monitor.close()
    assert all(gap >= 0.24 for gap in gaps)


def test_last_view_and_details_stay(
    terminal: Console, header: RunHeader, one_group, make_record: Make
) -> None:  # type: ignore[no-untyped-def]
    monitor = RunDisplay(terminal, header, live=True)
    monitor.started(0, 1000, one_group)
    monitor.interval(make_record(1, one_group[0]))
    monitor.stepped(1000, {})
    path = "runs/" + "very-long-name/" * 20
    monitor.close(Ending("finished", {"run": path, "resume": "msbal train spec.yaml --resume"}))
    monitor.close(Ending("failed"))
    end = terminal.file.getvalue().rpartition("msbal train\x1b")[2]
    assert "finished" in end and "failed" not in end
    assert path in end, "a path to copy is not cut"
    assert end.count("\x1b[?25h") == 1, "the cursor is shown again"
    assert terminal.file.getvalue().count("\x1b[?2026h") == terminal.file.getvalue().count("\x1b[?2026l") > 0


def test_more_levels_than_rows_end_whole(header: RunHeader, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    small = Console(file=io.StringIO(), width=80, height=8, force_terminal=True, color_system=None)
    monitor = RunDisplay(small, header, live=True)
    monitor.started(0, 1000, one_group)
    monitor.interval(make_record(1, one_group[0]))
    monitor.close()
    tail = small.file.getvalue()[-4000:]
    assert all(f"■ {level}" in tail for level in one_group[0].levels)


def test_failing_view_becomes_plain_lines(
    monkeypatch: pytest.MonkeyPatch, terminal: Console, header: RunHeader, one_group, make_record: Make
) -> None:  # type: ignore[no-untyped-def]
    def broken(*args: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(RunView, "__rich_console__", broken)
    monitor = RunDisplay(terminal, header, live=True)
    monitor.started(0, 1000, one_group)
    wait_for(lambda: "oops" in terminal.file.getvalue())
    monitor.interval(make_record(3, one_group[0]))
    monitor.close(Ending("finished"))
    text = terminal.file.getvalue()
    assert "the live view failed (ZeroDivisionError: oops); plain lines from here on" in text
    assert "interval t   3" in text and "finished" in text
    assert text.count("oops") == 1


def test_closing_without_a_start_prints_the_details_only(terminal: Console, header: RunHeader) -> None:
    RunDisplay(terminal, header, live=True).close(Ending("failed", {"log": "runs/shapes/log.txt"}))
    assert "runs/shapes/log.txt" in terminal.file.getvalue()
    assert "msbal train" not in terminal.file.getvalue()
