from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from msbal.ui.grid import LiveGrid, PlainGrid, QuietGrid, make_grid
from msbal.ui.grid.drawing import grid_lines, mean_text
from msbal.ui.grid.state import Grid
from msbal.ui.look import Look

ARMS, SEEDS = ["equal", "rlo[avw,equal]", "avw"], [0, 1, 2]


@pytest.fixture
def grid(clock: Any) -> Grid:
    grid = Grid(clock)
    grid.planned(ARMS, SEEDS)
    grid.updated("equal", 0, "kept", 0.2, None, None)
    grid.updated("equal", 1, "running", None, None, 0.0)
    clock.now += 100
    grid.updated("equal", 1, "done", 0.3, None, None)
    grid.updated("rlo[avw,equal]", 0, "running", 0.123, 60.0, 0.25)
    grid.updated("avw", 0, "running", None, None, None)
    clock.now += 20
    grid.updated("avw", 0, "failed", None, None, None)
    return grid


def text_of(grid: Grid, width: int, height: int) -> str:
    return "\n".join(line.plain for line in grid_lines(grid, width, height, Look(), "spec.yaml"))


def test_cells_say_what_runs_are_at(grid: Grid) -> None:
    text = text_of(grid, 120, 30)
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("│")}
    assert "■ kept 0.200" in rows["equal"] and "■ done 0.300" in rows["equal"] and "· queued" in rows["equal"]
    assert "0.250 ±0.071 (2)" in rows["equal"]
    assert "25 % 0.123" in rows["rlo[avw,equal]"] and "▶ ━" in rows["rlo[avw,equal]"]
    assert "x failed" in rows["avw"] and rows["avw"].rstrip(" │").endswith("-"), "a failed run has no mean"
    assert "2/9 finished  1 kept  1 running  1 failed  5 queued" in text
    assert "3 arms x 3 seeds" in text


def test_eta_from_the_runs_so_far(grid: Grid) -> None:
    # One took 100 s, one will have taken 20 + 60 s: 90 s each; 60 s open and 5 queued, one at a time.
    assert grid.remaining() == pytest.approx(60 + 5 * 90)
    for arm in ARMS:
        for seed in SEEDS:
            grid.updated(arm, seed, "done", 0.1, None, None)
    assert grid.remaining() == 0.0
    assert Grid().remaining() == 0.0


def test_last_ap_is_kept_until_a_newer_one(grid: Grid) -> None:
    grid.updated("rlo[avw,equal]", 0, "running", None, 50.0, 0.3)
    assert grid.runs["rlo[avw,equal]", 0].ap == 0.123
    assert grid.aps("rlo[avw,equal]") == [], "not final yet"


@pytest.mark.parametrize("arms", [1, 3, 40])
@pytest.mark.parametrize("seeds", [1, 5, 60])
def test_fits_every_size(arms: int, seeds: int) -> None:
    grid = Grid()
    grid.planned([f"interval={i}, lambda=1.{i}" for i in range(arms)], list(range(seeds)))
    grid.updated("interval=0, lambda=1.0", 0, "running", 0.1, 5.0, 1.0)
    grid.messages += ["m" * 300] * 9
    for width in (30, 45, 60, 80, 120, 200):
        for height in (8, 12, 24, 50):
            lines = grid_lines(grid, width, height, Look())
            assert len(lines) <= height, (width, height)
            assert max(line.cell_len for line in lines) <= width, (width, height)


def test_arms_at_work_are_kept_when_rows_run_out() -> None:
    grid = Grid()
    grid.planned([f"arm{i:02}" for i in range(30)], [0])
    grid.updated("arm17", 0, "running", None, None, 0.5)
    grid.updated("arm23", 0, "failed", None, None, None)
    text = text_of(grid, 80, 12)
    assert "arm17" in text and "arm23" in text and "more arms" in text
    shown = [line.split()[1] for line in text.splitlines() if "arm1" in line or "arm2" in line]
    assert shown == sorted(shown)
    assert f"and {30 - text.count('│ arm') + 1} more arms" in text


def test_plain_lines_at_each_change(clock: Any, paper: Any) -> None:
    console = paper(40)
    monitor = PlainGrid(console, "spec.yaml", clock)
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
    assert "40%  AP 0.0500" in runs[1]
    assert "done     AP 0.1235  took 0:00:31  (1/9 finished" in runs[2]
    assert "failed" in runs[3] and "1 failed" in runs[3]
    assert "note  two lines" in lines
    assert any(line.startswith("arm   avw") and "mean AP 0.123 (1)" in line for line in lines)
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
    assert isinstance(monitor, LiveGrid)
    monitor.planned([f"arm{i:02}" for i in range(30)], SEEDS)
    monitor.updated("arm29", 2, "done", ap=0.25)
    monitor.close()
    monitor.close()
    end = console.file.getvalue().rpartition("msbal ablate")[2]
    assert all(f"arm{i:02}" in end for i in range(30)) and "0.250 (1)" in end
    assert console.file.getvalue().endswith("\x1b[?25h")


def test_make_grid_chooses(paper: Any) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True)
    assert isinstance(make_grid("live", paper()), PlainGrid)
    assert isinstance(make_grid("plain", terminal), PlainGrid)
    assert isinstance(make_grid("quiet", terminal), QuietGrid)


def test_means() -> None:
    assert mean_text([]) == "-"
    assert mean_text([0.25]) == "0.250 (1)"
    assert mean_text([0.2, 0.3]) == "0.250 ±0.071 (2)"


def test_many_seeds_still_show_their_numbers_where_there_is_room(grid: Grid) -> None:
    grid.seeds = list(range(10))
    text = text_of(grid, 120, 30)
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("│")}
    assert "s0     s1     s2" in rows["arm"]
    assert "0.200  0.300    ·" in rows["equal"]
    assert " 25%     ·  " in rows["rlo[avw,equal]"]
    assert "  x  " in rows["avw"]
    assert "10 seeds" in text_of(grid, 80, 30)


def test_the_metric_is_called_by_its_name(clock: Any, paper: Any) -> None:
    console = paper(40)
    monitor = make_grid("plain", console, metric="AP50")
    monitor.planned(["equal"], [0])
    monitor.updated("equal", 0, "done", ap=0.5)
    monitor.close()
    assert "AP50 0.5000" in console.file.getvalue() and "mean AP50 0.500 (1)" in console.file.getvalue()
    one = Grid(clock, "mAP")
    one.planned(["equal"], [0])
    assert "mean mAP (n)" in "\n".join(line.plain for line in grid_lines(one, 80, 20, Look()))
