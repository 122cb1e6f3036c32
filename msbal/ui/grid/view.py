"""The live view of an ablation: a row per arm, a column per seed, and the mean."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from msbal.metric_text import points
from msbal.ui.look import BAD, GOOD, HEADER, QUIET, STRONG, bar, bar_line, fitted, line, message_block, panel
from msbal.ui.text import duration, one_line

if TYPE_CHECKING:
    from msbal.ui.grid.state import GridMonitor, Run

STYLES: dict[str, str] = {
    "queued": QUIET,
    "running": "cyan",
    "done": GOOD,
    "failed": BAD,
    "kept": "blue",
    "skipped": QUIET,
}
MARKS = {"queued": "·", "running": "▶", "done": "■", "failed": "x", "kept": "■", "skipped": "-"}
WIDEST = 26  # characters of a cell with everything in it
NUMBER = 5  # of one with a number only
MEAN = 18


def mean_text(aps: Sequence[float], sign: str = "±") -> str:
    """Return ``23.1 ±1.2 (3)``: mean and standard deviation in points, and n."""
    if not aps:
        return "-"
    spread = f" {sign}{points(statistics.stdev(aps), 1)}" if len(aps) > 1 else ""
    return f"{points(statistics.fmean(aps), 1)}{spread} ({len(aps)})"


def counts_text(grid: GridMonitor) -> Text:
    """Return ``4/9 finished  2 running  1 failed``."""
    text = line((f"{grid.count('done', 'kept')}/{grid.planned_runs}", STRONG), " finished")
    for state in ("kept", "running", "failed", "queued", "skipped"):
        if grid.count(state):
            text.append(f"  {grid.count(state)} {state}", style=STYLES[state])
    return text


class GridView:
    """The view, in at most the width and height of the options with which it is rendered.

    If rows run out, arms that run or have failed are kept.
    """

    def __init__(self, grid: GridMonitor, title: str) -> None:
        self.grid, self.title = grid, title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        grid, width = self.grid, options.max_width - 4
        room = max(1, options.max_height - 5)  # the frame, the counts, the bar and the table's head
        arms = _chosen_arms(grid, room)
        left = grid.remaining()
        taken = duration(grid.elapsed())
        when, style = line(("elapsed ", QUIET), taken, ("  ETA ", QUIET), duration(left)), "cyan"
        if not grid.count("running", "queued"):
            when, style = line(("after ", QUIET), taken), BAD if grid.count("failed") else GOOD
        over = grid.count("done", "kept", "failed") + sum(run.progress or 0.0 for run in grid.runs.values())
        share = over / max(1, grid.planned_runs)
        rows: list[RenderableType] = [
            counts_text(grid),
            bar_line(share, style, line(f"{100 * share:.0f} %"), when, width),
            _table(grid, arms, width, "+-" if options.ascii_only else "±"),
        ]
        if len(arms) < len(grid.arms):
            rows.append(line((f"and {len(grid.arms) - len(arms)} more arms", QUIET)))
        title = line(("msbal ablate", STRONG), (f" {one_line(self.title)}" if self.title else "", QUIET))
        yield panel(Group(*rows), title, f"{len(grid.arms)} arms x {len(grid.seeds)} seeds")
        messages = message_block(grid.messages, room - len(arms))
        if messages and len(arms) == len(grid.arms):
            yield messages


def _table(grid: GridMonitor, arms: list[str], width: int, sign: str) -> Table:
    name_width = max(4, min(max((len(arm) for arm in grid.arms), default=4), width // 3, 40))
    mean_width = MEAN if width >= 50 else 0
    room = width - name_width - (mean_width + 2 if mean_width else 0)
    each = max((w for w in (WIDEST, 19, 12, 8, NUMBER, 1) if (w + 2) * len(grid.seeds) <= room), default=0)

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style=HEADER)
    table.add_column("arm", width=name_width, no_wrap=True)
    for seed in grid.seeds if each else ():
        title = f"seed {seed}" if each >= 8 else f"s{seed}" if each == NUMBER else ""
        table.add_column(title, width=each, no_wrap=True)
    if not each:
        table.add_column("done", no_wrap=True)
    if mean_width:
        table.add_column(f"mean {grid.metric} (n)", width=mean_width, justify="right", no_wrap=True)
    for arm in arms:
        aps = grid.aps(arm)
        runs = [grid.runs[arm, seed] for seed in grid.seeds]
        cells = [_cell(run, each, grid.elapsed_of(run)) for run in runs] if each else []
        if not each:
            cells = [Text(f"{len(aps)}/{len(grid.seeds)}")]
        if mean_width:
            cells.append(Text(mean_text(aps, sign), style=STRONG if aps else QUIET))
        table.add_row(line((one_line(arm), STRONG if "running" in grid.states(arm) else "")), *cells)
    return table


def _cell(run: Run, width: int, elapsed: float | None) -> Text:
    """Return one run in `width` characters: its mark, then as much of its state, progress, AP and time as fits."""
    style, mark = STYLES[run.state], Text(MARKS[run.state], style=STYLES[run.state])
    if width == NUMBER:
        if run.state in ("done", "kept") and run.ap is not None:
            return Text(f"{points(run.ap, 1):>{NUMBER}}", style=style)
        if run.state == "running" and run.progress is not None:
            return Text(f"{100 * run.progress:3.0f}%", style=style)
        return line("  ", mark)
    parts = [mark]
    has_ap = run.ap is not None and run.state != "failed"
    if run.doing:
        parts.append(Text(run.doing if width >= 19 else run.doing.partition(" ")[0], style=style))
    elif run.state == "running" and run.progress is not None:
        if width >= 19:
            parts.append(bar(run.progress, 5, style))
        parts.append(Text(f"{100 * run.progress:.0f} %", style=style))
    elif run.state == "running" or not has_ap or width > len(run.state) + 7:
        parts.append(Text(run.state, style=style))
    more = [Text(points(run.ap, 1))] if has_ap else []
    if elapsed is not None:
        more.insert(0 if run.doing else 1, Text(duration(elapsed), QUIET))
    parts += more
    return fitted(parts, " ", width)


def _chosen_arms(grid: GridMonitor, room: int) -> list[str]:
    """Return as many arms as fit, in order; those that run or failed come before others if some must go."""
    if len(grid.arms) <= room:
        return grid.arms

    def urgency(arm: str) -> int:
        states = grid.states(arm)
        return next((i for i, state in enumerate(("running", "failed", "queued")) if state in states), 3)

    first = sorted(grid.arms, key=urgency)[: max(0, room - 1)]
    return [arm for arm in grid.arms if arm in first]
