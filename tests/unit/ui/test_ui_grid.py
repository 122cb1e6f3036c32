from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from msbal.ui.grid import GridDisplay, GridMonitor, QuietGrid, make_grid
from msbal.ui.grid.view import GridView, mean_text

ARMS, SEEDS = ["equal", "rlo[avw,equal]", "avw"], [0, 1, 2]


@pytest.fixture(params=[SEEDS])
def grid(clock: Any, request: Any) -> GridMonitor:
    grid = GridMonitor(clock)
    grid.planned(ARMS, request.param)
    grid.updated("equal", 0, "kept", ap=0.2)
    grid.updated("equal", 1, "running", progress=0.0)
    clock.now += 100
    grid.updated("equal", 1, "done", ap=0.3)
    grid.updated("rlo[avw,equal]", 0, "running", ap=0.123, eta=60.0, progress=0.25)
    grid.updated("avw", 0, "running")
    clock.now += 20
    grid.updated("avw", 0, "failed")
    return grid


def test_cells_say_what_runs_are_at(shown: Any, grid: GridMonitor) -> None:
    text = shown(GridView(grid, "spec.yaml"), 120, 30)
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("│")}
    assert "■ kept 20.0" in rows["equal"] and "■ done 30.0" in rows["equal"] and "· queued" in rows["equal"]
    assert "25.0 ±7.1 (2)" in rows["equal"]
    assert "25 % 12.3" in rows["rlo[avw,equal]"] and "▶ ━" in rows["rlo[avw,equal]"]
    assert "x failed" in rows["avw"] and rows["avw"].rstrip(" │").endswith("-"), "a failed run has no mean"
    assert "2/9 finished  1 kept  1 running  1 failed  5 queued" in text
    assert "3 arms x 3 seeds" in text


def test_eta_from_the_runs_so_far(grid: GridMonitor) -> None:
    # One took 100 s, one will have taken 20 + 60 s: 90 s each; 60 s open and 5 queued, one at a time.
    assert grid.remaining() == pytest.approx(60 + 5 * 90)
    for arm in ARMS:
        for seed in SEEDS:
            grid.updated(arm, seed, "done", ap=0.1)
    assert grid.remaining() == 0.0
    assert GridMonitor().remaining() == 0.0


def test_runs_that_are_not_needed_are_out_of_the_count(shown: Any, grid: GridMonitor) -> None:
    for seed in (1, 2):
        grid.updated("avw", seed, "skipped")
    text = shown(GridView(grid, "spec.yaml"), 120, 30)
    assert "- skipped" in text and "2/7 finished" in text and "3 queued  2 skipped" in text
    assert grid.remaining() == pytest.approx(60 + 3 * 90)


def test_last_ap_is_kept_until_a_newer_one(grid: GridMonitor) -> None:
    grid.updated("rlo[avw,equal]", 0, "running", eta=50.0, progress=0.3)
    assert grid.runs["rlo[avw,equal]", 0].ap == 0.123
    assert grid.aps("rlo[avw,equal]") == [], "not final yet"


@pytest.mark.parametrize("arms", [1, 3, 40])
@pytest.mark.parametrize("seeds", [1, 5, 60])
def test_fits_every_size(shown: Any, arms: int, seeds: int) -> None:
    grid = GridMonitor()
    grid.planned([f"interval={i}, lambda=1.{i}" for i in range(arms)], list(range(seeds)))
    grid.updated("interval=0, lambda=1.0", 0, "running", ap=0.1, eta=5.0, progress=1.0)
    grid.messages += ["m" * 300] * 9
    for width in (30, 45, 60, 80, 120, 200):
        for height in (8, 12, 24, 50):
            lines = shown(GridView(grid, ""), width, height).split("\n")
            assert len(lines) <= height, (width, height)
            assert max(map(cell_len, lines)) <= width, (width, height)


def test_arms_at_work_are_kept_when_rows_run_out(shown: Any) -> None:
    grid = GridMonitor()
    grid.planned([f"arm{i:02}" for i in range(30)], [0])
    grid.updated("arm17", 0, "running", progress=0.5)
    grid.updated("arm23", 0, "failed")
    text = shown(GridView(grid, "spec.yaml"), 80, 12)
    assert "arm17" in text and "arm23" in text and "more arms" in text
    shown = [line.split()[1] for line in text.splitlines() if "arm1" in line or "arm2" in line]
    assert shown == sorted(shown)
    assert f"and {30 - text.count('│ arm') + 1} more arms" in text


def test_plain_lines_at_each_change(clock: Any, paper: Any) -> None:
    console = paper(40)
    monitor = GridDisplay(console, "spec.yaml", clock=clock)
    monitor.planned(ARMS, SEEDS)
    for progress in (0.1, 0.2, 0.3):
        monitor.updated("avw", 0, "running", progress=progress, eta=9.0)
    clock.now += 31
    monitor.updated("avw", 0, "running", progress=0.4, eta=6.0, ap=0.05)
    monitor.updated("avw", 0, "done", ap=0.12345)
    monitor.updated("equal", 0, "failed")
    monitor.message("two\nlines")
    monitor.close()
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "grid    spec.yaml  3 arms x 3 seeds = 9 runs".replace("grid    ", "grid  ")
    runs = [line for line in lines if line.startswith("run ")]
    assert len(runs) == 4, "changes of state, and one when half a minute had passed"
    assert "arm avw             seed 0  running  10%" in runs[0]
    assert "40%  AP 5.0" in runs[1]
    assert "done     AP 12.3  took 0:00:31  (1/9 finished" in runs[2]
    assert "failed" in runs[3] and "1 failed" in runs[3]
    assert "note  two lines" in lines
    assert any(line.startswith("arm   avw") and "mean AP 12.3 (1)" in line for line in lines)
    assert console.file.getvalue().isascii()


def test_quiet_grid_names_failures(paper: Any) -> None:
    console = paper()
    monitor = QuietGrid(console)
    monitor.planned(ARMS, SEEDS)
    monitor.updated("avw", 1, "running")
    monitor.updated("avw", 1, "failed")
    monitor.updated("avw", 1, "failed")
    monitor.close()
    assert console.file.getvalue().splitlines() == ["avw, seed 1: failed", "0/9 finished  1 failed  8 queued"]


def test_live_grid_leaves_all_arms() -> None:
    console = Console(file=io.StringIO(), width=80, height=10, force_terminal=True, color_system=None)
    monitor = make_grid("auto", console)
    monitor.planned([f"arm{i:02}" for i in range(30)], SEEDS)
    monitor.updated("arm29", 2, "done", ap=0.25)
    monitor.close()
    monitor.close()
    end = console.file.getvalue().rpartition("msbal ablate")[2]
    assert all(f"arm{i:02}" in end for i in range(30)) and "25.0 (1)" in end
    assert console.file.getvalue().endswith("\x1b[?25h")


@pytest.mark.parametrize(("mode", "terminal"), [("live", False), ("plain", True), ("quiet", True)])
def test_nothing_is_redrawn_unless_asked_for_on_a_terminal(mode: Any, terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, color_system=None)
    monitor = make_grid(mode, console)
    monitor.planned(["equal"], [0])
    monitor.close()
    assert "\x1b[?25l" not in console.file.getvalue() and "0/1 finished" in console.file.getvalue()


def test_means() -> None:
    assert mean_text([]) == "-"
    assert mean_text([0.25]) == "25.0 (1)"
    assert mean_text([0.2, 0.3]) == "25.0 ±7.1 (2)"


@pytest.mark.parametrize("grid", [range(10)], indirect=True)
def test_many_seeds_still_show_their_numbers_where_there_is_room(shown: Any, grid: GridMonitor) -> None:
    text = shown(GridView(grid, "spec.yaml"), 120, 30)
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("│")}
    assert "s0     s1     s2" in rows["arm"]
    assert "20.0   30.0    ·" in rows["equal"]
    assert " 25%     ·  " in rows["rlo[avw,equal]"]
    assert "  x  " in rows["avw"]
    assert "10 seeds" in shown(GridView(grid, "spec.yaml"), 80, 30)


def test_the_metric_is_called_by_its_name(shown: Any, clock: Any, paper: Any) -> None:
    console = paper(40)
    monitor = make_grid("plain", console, metric="AP50")
    monitor.planned(["equal"], [0])
    monitor.updated("equal", 0, "done", ap=0.5)
    monitor.close()
    assert "AP50 50.0" in console.file.getvalue() and "mean AP50 50.0 (1)" in console.file.getvalue()
    one = GridMonitor(clock, "mAP")
    one.planned(["equal"], [0])
    assert "mean mAP (n)" in shown(GridView(one, ""), 80, 20)


@pytest.mark.parametrize(("width", "said"), [(150, "▶ evaluating 12/64 0:05:33"), (80, "▶ evaluating")])
def test_an_evaluation_and_the_time_of_a_run_are_shown(
    grid: GridMonitor, clock: Any, shown: Any, width: int, said: str
) -> None:
    grid.updated("equal", 2, "running", progress=1.0, doing="evaluating 12/64")
    clock.now += 333
    text = shown(GridView(grid, "paper"), width, 30)
    assert said in text and "elapsed 0:07:33" in text
