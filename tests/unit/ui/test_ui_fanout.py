from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from msbal.engine.record import IntervalRecord
from msbal.ui.monitor import Ending, Fanout, RunHeader, make_monitor


class Spy:
    """Notes the calls; fails where told."""

    def __init__(self, fails: str = "", error: BaseException | None = None) -> None:
        self.calls: list[str] = []
        self.messages: list[str] = []
        self.ending: Ending | None = None
        self._fails, self._error = fails, error or RuntimeError("broken\npipe")

    def _note(self, name: str) -> None:
        self.calls.append(name)
        if name == self._fails:
            raise self._error

    def started(self, iteration, total, groups) -> None:  # type: ignore[no-untyped-def]
        self._note("started")

    def stepped(self, iteration, scalars) -> None:  # type: ignore[no-untyped-def]
        self._note("stepped")

    def interval(self, record) -> None:  # type: ignore[no-untyped-def]
        self._note("interval")

    def evaluated(self, iteration, metrics) -> None:  # type: ignore[no-untyped-def]
        self._note("evaluated")

    def message(self, text: str) -> None:
        self.messages.append(text)
        self._note("message")

    def close(self, ending: Ending | None = None) -> None:
        self.ending = ending
        self._note("close")


CALLS: list[tuple[str, tuple[object, ...]]] = [
    ("started", (0, 10, ())), ("stepped", (1, {})), ("interval", (None,)), ("evaluated", (1, {})),
    ("message", ("hello",)),
]  # fmt: skip


def play(fanout: Fanout) -> None:
    for name, arguments in CALLS:
        getattr(fanout, name)(*arguments)
    fanout.close(Ending())


@pytest.mark.parametrize("fails", [name for name, _ in CALLS] + ["close"])
def test_one_failing_monitor_stops_neither_training_nor_the_others(fails: str) -> None:
    first, bad, last = Spy(), Spy(fails), Spy()
    play(Fanout([first, bad, last]))
    for good in (first, last):
        assert [c for c in good.calls if c != "message"] == [
            "started",
            "stepped",
            "interval",
            "evaluated",
            "close",
        ]
        assert [m for m in good.messages if m != "hello"] == [
            "Spy failed and is left out: RuntimeError: broken pipe"
        ], "told once, on one line"
    assert bad.calls.count(fails) == 1 + (fails == "close"), "never called again, save to close it"


def test_when_all_fail_stderr_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    play(Fanout([Spy("stepped"), Spy("interval")]))
    assert capsys.readouterr().err == "Spy failed and is left out: RuntimeError: broken pipe\n"


def test_interrupts_pass_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        play(Fanout([Spy("stepped", KeyboardInterrupt())]))


@pytest.mark.parametrize(
    ("error", "how"), [(None, None), (KeyboardInterrupt(), "stopped"), (ValueError(), "failed")]
)
def test_leaving_the_block_closes_everything(error: BaseException | None, how: str | None) -> None:
    spy = Spy()
    try:
        with Fanout([spy]):
            if error:
                raise error
    except BaseException as caught:
        assert caught is error
    assert spy.calls == ["close"]
    assert (spy.ending.how if spy.ending else None) == how


def test_an_own_close_wins() -> None:
    spy = Spy()
    with Fanout([spy]) as fanout:
        fanout.close(Ending("stopped"))
    assert spy.calls == ["close"] and spy.ending == Ending("stopped")


@pytest.mark.parametrize(
    ("how", "order"), [("finished", ["tracker", "terminal"]), ("interrupted", ["terminal", "tracker"])]
)
def test_the_terminal_is_closed_last_but_speaks_of_an_interrupt_at_once(how: Any, order: list[str]) -> None:
    closed: list[str] = []

    class Named(Spy):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def close(self, ending: Ending | None = None) -> None:
            closed.append(self.name)

    Fanout([Named("terminal"), Named("tracker")]).close(Ending(how))
    assert closed == order


def test_an_interrupt_while_a_tracker_closes_closes_the_rest() -> None:
    terminal, tracker = Spy(), Spy("close", KeyboardInterrupt())
    fanout = Fanout([terminal, tracker])
    with pytest.raises(KeyboardInterrupt):
        fanout.close(Ending("finished"))
    fanout.close(Ending("interrupted"))
    assert (terminal.calls, tracker.calls) == (["close"], ["close"])
    assert terminal.ending == Ending("interrupted")


def test_monitors_need_no_close() -> None:
    class Bare:
        def message(self, text: str) -> None: ...

    Fanout([Bare()]).close()  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("mode", "environment", "seen"),
    [
        ("auto", {}, "live"), ("live", {}, "live"), ("plain", {}, "plain"), ("quiet", {}, "quiet"),
        ("auto", None, "plain"), ("live", None, "plain"), ("auto", {"TERM": "dumb"}, "plain"),
    ],
)  # fmt: skip
def test_make_monitor_chooses(
    mode: str, environment: dict[str, str] | None, seen: str, header: RunHeader
) -> None:
    terminal = environment is not None
    console = Console(file=io.StringIO(), force_terminal=terminal, _environ=environment or {})
    with make_monitor(mode, console, header) as fanout:  # type: ignore[arg-type]
        fanout.started(0, 10, ())
        text = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("\x1b[?25l" in text, "start " in text) == (seen == "live", seen == "plain")


def test_make_monitor_adds_a_log(
    tmp_path: Path, header: RunHeader, one_group, make_record: Callable[..., IntervalRecord]
) -> None:  # type: ignore[no-untyped-def]
    with make_monitor("quiet", Console(file=io.StringIO()), header, log_file=tmp_path / "log.txt") as monitor:
        monitor.started(0, 1000, one_group)
        monitor.interval(make_record(1, one_group[0]))
    assert "interval t   1" in (tmp_path / "log.txt").read_text()


def test_unknown_mode(header: RunHeader) -> None:
    with pytest.raises(ValueError, match=r"auto, live, plain or quiet\. Found 'fancy'"):
        make_monitor("fancy", Console(file=io.StringIO()), header)  # type: ignore[arg-type]
