"""The line that says what goes on before a run begins."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable

from rich.console import Console, RenderableType

from msbal.ui.activity import ActivityLine

Shown = Callable[[RenderableType, int, int], str]


def test_it_says_what_goes_on_and_how_far_it_is(shown: Shown, clock) -> None:  # type: ignore[no-untyped-def]
    line = ActivityLine(Console(file=io.StringIO()), clock=clock)
    assert shown(line, 80, 5) == "", "nothing yet"
    line.progress("loading PyTorch", 0, 1)
    clock.now += 2
    assert shown(line, 80, 5) == "loading PyTorch  0:00:02"
    line.progress("checking images", 0, 4000)
    clock.now += 3
    line.progress("checking images", 1000, 4000)
    assert "━━" in shown(line, 80, 5) and shown(line, 80, 5).endswith(
        "checking images 1,000/4,000  ETA 0:00:09"
    )
    assert shown(line, 30, 5) == "checking images 1,000/4,000"


def test_it_is_erased_from_a_terminal_as_the_training_begins() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with ActivityLine(console) as line:
        line.progress("loading PyTorch", 0, 1)
        until = time.monotonic() + 5
        while "loading PyTorch" not in console.file.getvalue() and time.monotonic() < until:  # type: ignore[attr-defined]
            time.sleep(0.05)
        line.started(0, 10, ())
        console.print("the view")
    assert re.search(r"loading PyTorch.*\x1b\[1A\x1b\[2K[^a-z]*the view\n$", console.file.getvalue(), re.S)  # type: ignore[attr-defined]


def test_a_pipe_gets_a_line_now_and_then(clock) -> None:  # type: ignore[no-untyped-def]
    for shown, expected in ((True, ["checking images 10/30", "checking images 20/30"]), (False, [])):
        console = Console(file=io.StringIO(), width=80)
        with ActivityLine(console, shown, clock) as line:
            for done in range(31):
                line.progress("checking images", done, 30)
                clock.now += 1
        assert console.file.getvalue().splitlines() == expected  # type: ignore[attr-defined]
