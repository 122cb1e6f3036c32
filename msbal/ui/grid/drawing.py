"""A grid in so many characters by so many lines."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.text import Text

from msbal.ui.grid.state import Grid, Run
from msbal.ui.look import BAD, GOOD, QUIET, STRONG, Look, boxed, clipped, fitted
from msbal.ui.text import duration, one_line

STYLES: dict[str, str] = {"queued": QUIET, "running": "cyan", "done": GOOD, "failed": BAD, "kept": "blue"}
MESSAGES = 4
WIDEST = 19  # characters of a cell with everything in it
NARROW = 5  # of one with a number only


def mean_text(aps: Sequence[float]) -> str:
    """``0.231 ±0.012 (3)``: mean, standard deviation, n."""
    if not aps:
        return "-"
    spread = f" ±{statistics.stdev(aps):.3f}" if len(aps) > 1 else ""
    return f"{statistics.fmean(aps):.3f}{spread} ({len(aps)})"


def counts_text(grid: Grid) -> Text:
    """``4/9 finished  2 running  1 failed``."""
    finished = grid.count("done", "kept")
    text = Text.assemble((f"{finished}/{len(grid.runs)}", STRONG), " finished")
    for state in ("kept", "running", "failed", "queued"):
        if grid.count(state):
            text.append(f"  {grid.count(state)} {state}", style=STYLES[state])
    return text


MARKS = {"queued": "dot", "running": "chosen", "done": "swatch", "kept": "swatch"}


def _cell(run: Run, width: int, look: Look) -> Text:
    """One run in `width` characters: its mark, then as much of its state, progress and AP as fits."""
    if width == NARROW:
        return _number(run, look)
    mark = "x" if run.state == "failed" else getattr(look, MARKS[run.state])
    style = STYLES[run.state]
    ap = Text(f"{run.ap:.3f}") if run.ap is not None and run.state != "failed" else None
    parts = [Text(mark, style=style)]
    if run.state == "running":
        if run.progress is None:
            parts.append(Text("running", style=style))
        else:
            if width >= WIDEST:
                parts.append(look.bar(run.progress, 5, style))
            parts.append(Text(f"{100 * run.progress:.0f} %", style=style))
    elif ap is None or width > len(run.state) + 7:
        parts.append(Text(run.state, style=style))
    return fitted([*parts, *([ap] if ap else [])], " ", width)


def _number(run: Run, look: Look) -> Text:
    """One run in `NARROW` characters: its AP, or how far it is, or its mark."""
    style = STYLES[run.state]
    if run.state in ("done", "kept") and run.ap is not None:
        return Text(f"{run.ap:.3f}", style=style)
    if run.state == "running" and run.progress is not None:
        return Text(f"{100 * run.progress:3.0f}%", style=style)
    return Text("  x" if run.state == "failed" else f"  {getattr(look, MARKS[run.state])}", style=style)


def grid_lines(grid: Grid, width: int, height: int, look: Look, title: str = "") -> list[Text]:
    """The grid at most `width` by `height` characters; arms in work are kept when rows run out."""
    inner = width - 4
    lines = [fitted([counts_text(grid), _eta_text(grid)], "   ", inner), _bar(grid, inner, look)]
    name_width = max(4, min(max((len(arm) for arm in grid.arms), default=4), inner // 3, 40))
    mean_width = 18 if inner >= 50 else 0
    room = inner - name_width - (mean_width + 2 if mean_width else 0)
    each = max((w for w in (WIDEST, 12, 8, NARROW, 1) if (w + 2) * len(grid.seeds) <= room), default=0)
    lines.append(_header(grid, name_width, each, mean_width))
    messages = grid.messages[-MESSAGES:]
    space = max(1, height - len(lines) - 2)
    messages = messages[: max(0, space - len(grid.arms))]
    shown = _chosen_arms(grid, space - len(messages))
    for arm in shown:
        line = Text(no_wrap=True)
        name = Text(one_line(arm), style=STRONG if _active(grid, arm) else "")
        name.truncate(name_width, overflow="ellipsis", pad=True)
        line.append_text(name)
        if each:
            for seed in grid.seeds:
                cell = _cell(grid.runs.get((arm, seed), Run()), each, look)
                cell.align("left", each)
                line.append("  ")
                line.append_text(cell)
        else:
            line.append(f"  {len(grid.aps(arm))}/{len(grid.seeds)}")
        if mean_width:
            mean = mean_text(grid.aps(arm))
            mean = mean.replace("±", "+-") if look.ascii else mean
            line.append(f"  {mean:>{mean_width}}", style=STRONG if grid.aps(arm) else QUIET)
        lines.append(line)
    if len(shown) < len(grid.arms):
        lines.append(Text(f"and {len(grid.arms) - len(shown)} more arms", style=QUIET))
    lines += [clipped(Text(f"{look.separator} {text}"), inner) for text in messages]
    head = Text.assemble(("msbal ablate", STRONG), (f" {one_line(title)}" if title else "", QUIET))
    note = f"{len(grid.arms)} arms x {len(grid.seeds)} seeds"
    return boxed(lines, width, look, head, note)


def _eta_text(grid: Grid) -> Text:
    left = grid.remaining()
    if left == 0.0:
        return Text.assemble(("after ", QUIET), duration(grid.clock() - grid.begun))
    return Text.assemble(("ETA ", QUIET), duration(left))


def _bar(grid: Grid, width: int, look: Look) -> Text:
    over = grid.count("done", "kept", "failed")
    part = sum(run.progress or 0.0 for run in grid.runs.values() if run.state == "running")
    return look.bar((over + part) / max(1, len(grid.runs)), width, "cyan")


def _header(grid: Grid, name_width: int, each: int, mean_width: int) -> Text:
    line = f"{'arm':<{name_width}}"
    if each >= 8:
        line += "".join(f"  {f'seed {seed}'[:each]:<{each}}" for seed in grid.seeds)
    elif each == NARROW:
        line += "".join(f"  {f's{seed}'[:each]:^{each}}" for seed in grid.seeds)
    elif each:
        line += "  " + f"{len(grid.seeds)} seeds"[: 3 * len(grid.seeds) - 2].ljust(3 * len(grid.seeds) - 2)
    else:
        line += "  done"
    if mean_width:
        line += f"  {f'mean {grid.metric} (n)':>{mean_width}}"
    return Text(line, style="bold grey50")


def _active(grid: Grid, arm: str) -> bool:
    return any(grid.runs[arm, seed].state == "running" for seed in grid.seeds if (arm, seed) in grid.runs)


def _chosen_arms(grid: Grid, room: int) -> list[str]:
    """As many arms as fit, in order; those that run or failed come before others where some must go."""
    if len(grid.arms) <= room:
        return grid.arms

    def urgency(arm: str) -> int:
        states = {grid.runs[arm, seed].state for seed in grid.seeds if (arm, seed) in grid.runs}
        return 0 if "running" in states else 1 if "failed" in states else 2 if "queued" in states else 3

    first = sorted(grid.arms, key=urgency)[: max(0, room - 1)]
    return [arm for arm in grid.arms if arm in first]
