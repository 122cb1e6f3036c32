from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from msbal.engine.record import IntervalRecord
from msbal.ui.display import QuietMonitor, RunDisplay
from msbal.ui.state import Ending, RunHeader

Make = Callable[..., IntervalRecord]

INTERVAL = re.compile(
    r"interval +t +(?P<t>\d+)  it +(?P<it>\d+)/(?P<total>\d+)(?:  (?P<group>\w+) *)?  loss (?P<loss>\S+) +"
    r"(?P<losses>(?:P\d \S+ *)+)  weights from (?P<from>\d+): (?P<weights>(?:P\d \S+ ?)+)  action (?P<action>\w+) *"
    r"(?: p (?P<p>\S+))?(?:  reward +(?P<reward>\S+))?$"
)


def pairs(text: str) -> dict[str, float]:
    words = text.split()
    return {name: float(value) for name, value in zip(words[::2], words[1::2], strict=True)}


def test_interval_lines_parse_back_to_the_record(
    header: RunHeader, one_group, make_record: Make, paper: Callable[..., Console]
) -> None:  # type: ignore[no-untyped-def]
    console = paper(40)
    monitor = RunDisplay(console, header)
    monitor.started(0, 1000, one_group)
    records = [make_record(t, one_group[0]) for t in range(1, 6)]
    for record in records:
        monitor.interval(record)
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith("interval")]
    assert len(lines) == 5, "one line an interval, unwrapped however narrow"
    for line, record in zip(lines, records, strict=True):
        found = INTERVAL.match(line)
        assert found, line
        assert (int(found["t"]), int(found["it"]), int(found["total"])) == (
            record.interval,
            record.iteration,
            1000,
        )
        assert pairs(found["losses"]) == pytest.approx(
            {level: loss / 100 for level, loss in zip(record.levels, record.loss, strict=True)}, rel=1e-3
        )
        assert float(found["loss"]) == pytest.approx(sum(record.loss) / 100, rel=1e-3)
        assert pairs(found["weights"]) == pytest.approx(
            dict(zip(record.levels, record.weights, strict=True)), abs=5e-4
        )
        assert found["action"] == record.action
        assert float(found["p"]) == pytest.approx(record.probabilities[record.action], abs=5e-4)
        assert int(found["reward"]) == record.reward


def test_groups_and_strategies_without_choice(
    header: RunHeader, two_groups, make_record: Make, paper: Callable[..., Console]
) -> None:  # type: ignore[no-untyped-def]
    console = paper()
    monitor = RunDisplay(console, header)
    monitor.started(0, 1000, two_groups)
    for group in two_groups:
        monitor.interval(make_record(1, group, "avw"))
    lines = [x for x in console.file.getvalue().splitlines() if x.startswith("interval")]
    found = [INTERVAL.match(line) for line in lines]
    assert [m["group"] for m in found if m] == ["rpn", "roi"]
    assert all(m and m["action"] == "avw" and m["p"] is None and m["reward"] is None for m in found)


def test_a_measured_gradient_has_a_place_in_the_line(
    header: RunHeader, one_group, make_record: Make, paper: Callable[..., Console]
) -> None:  # type: ignore[no-untyped-def]
    console = paper()
    monitor = RunDisplay(console, header)
    norms = {"shared": (8.0, 4.0, 0.25, 1e-6, 0.0)}
    monitor.interval(replace(make_record(1, one_group[0]), gradient_norm=norms, gradient_count=2))
    assert "  gradient P3 8.000 P4 4.000 P5 0.2500 P6 1.0e-06 P7 0  weights from" in console.file.getvalue()


def test_progress_lines_come_by_the_clock(header: RunHeader, clock, one_group, paper) -> None:  # type: ignore[no-untyped-def]
    console = paper()
    monitor = RunDisplay(console, header, clock=clock)
    monitor.started(100, 1100, one_group)
    for i in range(101, 201):
        clock.now += 0.5
        monitor.stepped(i, {"images_per_second": 12.34, "learning_rate": 0.002, "memory_bytes": 2**30})
    lines = [x for x in console.file.getvalue().splitlines() if x.startswith("train")]
    assert len(lines) == 5, "fifty seconds"
    assert lines[0].split("  ")[1:] != []
    assert "it  120/1100" in lines[0] and "12.3 img/s  lr 0.002  memory 1.0 GiB" in lines[0]
    assert lines[-1].endswith("elapsed 0:00:50  eta 0:07:30"), "900 iterations at 2 a second"


def test_lines_say_what_goes_on_beside_training(
    header: RunHeader, clock, one_group, make_record: Make, paper
) -> None:  # type: ignore[no-untyped-def]
    console = paper()
    monitor = RunDisplay(console, replace(header, epochs=4), clock=clock)
    monitor.started(0, 200, one_group)
    clock.now += 10
    monitor.interval_so_far(replace(make_record(1, one_group[0]), iteration=20))
    monitor.stepped(20, {})
    for done in range(65):
        clock.now += 0.25
        monitor.progress("evaluating", done, 64)
    clock.now += 10
    monitor.progress("computing metrics", 0, 1)
    monitor.interval(make_record(2, one_group[0]))
    monitor.close()
    lines = console.file.getvalue().splitlines()
    assert re.match(r"train +it  20/200  epoch 1/4 +10.0%  loss so far 1.682  elapsed", lines[2])
    assert lines[3] == "doing    it  20/200  epoch 1/4  evaluating 39/64  eta 0:00:06", (
        "ten seconds after the last"
    )
    assert lines[4] == "doing    it  20/200  epoch 1/4  computing metrics"
    assert "weights unused: P3 1.654" in lines[5], "decided as the run ended"


def test_no_escape_codes_without_a_terminal(
    header: RunHeader, one_group, make_record: Make, metrics, paper
) -> None:  # type: ignore[no-untyped-def]
    console = paper()
    monitor = RunDisplay(console, header)
    monitor.started(0, 1000, one_group)
    monitor.interval(make_record(1, one_group[0], bad=2))
    monitor.evaluated(500, metrics)
    monitor.message("[red]two\nlines\x1b[2J")
    monitor.close(Ending("stopped", {"resume": "msbal train spec.yaml --resume"}))
    text = console.file.getvalue()
    assert text.isascii() and "\x1b" not in text
    lines = text.splitlines()
    assert "levels   all  RetinaNetHead  level/stride P3/8 P4/16 P5/32 P6/64 P7/128  terms cls bbox" in lines
    assert (
        "note     cls loss of P3 was nan in iteration 100 (rank 0), and 1 more in interval 1: left out of "
        in text
    )
    assert "note     [red]two lines[2J" in lines
    assert any(
        line.startswith("eval ") and "AP 23.1  AP50 40.1" in line and "AP_S -  " in line for line in lines
    )
    assert lines[-2].startswith("end      stopped  it    0/1000")
    assert lines[-1] == "end      resume: msbal train spec.yaml --resume"


def test_no_color_is_honoured_on_a_terminal(
    header: RunHeader, one_group, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    colour = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38)[;m]")
    for expected in (True, False):
        if not expected:
            monkeypatch.setenv("NO_COLOR", "1")
        console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=80)
        RunDisplay(console, header).interval(make_record(2, one_group[0]))
        assert bool(colour.search(console.file.getvalue())) == expected


def test_log_file_is_appended_to(tmp_path: Path, header: RunHeader, one_group, make_record: Make) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "log.txt"
    for t in (1, 2):
        monitor = RunDisplay.to_file(path, header)
        monitor.started(100 * (t - 1), 1000, one_group)
        monitor.interval(make_record(t, one_group[0]))
        assert f"interval t   {t}" in path.read_text(), "written at once, not at the end"
        monitor.close()
    text = path.read_text()
    assert text.count("start ") == 2 and text.count("interval ") == 4
    assert "\x1b" not in text


def test_quiet_says_only_what_went_wrong_and_the_end(
    header: RunHeader, one_group, make_record: Make, metrics, paper
) -> None:  # type: ignore[no-untyped-def]
    console = paper()
    monitor = QuietMonitor(console)
    monitor.started(0, 1000, one_group)
    monitor.stepped(1, {})
    monitor.message("chatter")
    monitor.interval(make_record(1, one_group[0]))
    assert console.file.getvalue() == ""
    for t in (2, 3):
        monitor.interval(make_record(t, one_group[0], bad=1))
    monitor.evaluated(500, metrics)
    monitor.close(Ending("finished", {"run": "runs/shapes", "see": "msbal plot-losses runs/shapes"}))
    monitor.close()
    assert console.file.getvalue().splitlines() == [
        "note: cls loss of P3 was nan in iteration 200 (rank 0): left out of the statistics",
        "finished, AP 23.1, AP50 40.1, VOC mAP 44.4, run: runs/shapes",
    ]
