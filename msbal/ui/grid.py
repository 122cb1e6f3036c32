"""The view of `msbal ablate`: arms x seeds, with what each run is at.

`make_grid` gives a live table on a terminal, else one line for each change of a run's state.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal, Protocol

from rich.console import Console
from rich.text import Text

from msbal.ui.look import BAD, GOOD, QUIET, STRONG, Look, boxed, clipped, fitted
from msbal.ui.monitor import Mode, can_be_live
from msbal.ui.screen import Screen
from msbal.ui.text import duration, one_line

State = Literal["queued", "running", "done", "failed", "kept"]
STYLES: dict[str, str] = {"queued": QUIET, "running": "cyan", "done": GOOD, "failed": BAD, "kept": "blue"}
PROGRESS_SECONDS = 30.0
MESSAGES = 4
WIDEST = 19  # characters of a cell with everything in it


class GridMonitor(Protocol):
    """What watches an ablation."""

    def planned(self, arms: Sequence[str], seeds: Sequence[int]) -> None:
        """The grid: every arm runs with every seed. All runs are queued."""

    def updated(
        self,
        arm: str,
        seed: int,
        state: State,
        ap: float | None = None,
        eta: float | None = None,
        progress: float | None = None,
    ) -> None:
        """A run has changed.

        Args:
            state: ``queued``, ``running``, ``done``, ``failed``, or ``kept`` where an earlier call
                finished it.
            ap: its last evaluation, 0..1; None leaves it as it was.
            eta: seconds that it still needs.
            progress: 0..1 of its iterations.
        """

    def message(self, text: str) -> None:
        """Something that a person should read, one line."""

    def close(self) -> None:
        """The end; the last view stays on the screen."""


def make_grid(mode: Mode, console: Console, title: str = "") -> GridMonitor:
    """The grid view for a console; `mode` as in `make_monitor`."""
    if mode == "quiet":
        return QuietGrid(console)
    if mode != "plain" and can_be_live(console):
        return LiveGrid(console, title)
    return PlainGrid(console, title)


@dataclass
class Run:
    """One cell."""

    state: State = "queued"
    ap: float | None = None
    eta: float | None = None
    progress: float | None = None
    begun: float | None = None
    seconds: float | None = None


class Grid:
    """The state of all runs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.lock = Lock()
        self.arms: list[str] = []
        self.seeds: list[int] = []
        self.runs: dict[tuple[str, int], Run] = {}
        self.messages: list[str] = []
        self.begun = clock()

    def planned(self, arms: Sequence[str], seeds: Sequence[int]) -> None:
        with self.lock:
            self.begun = self.clock()
            self.arms, self.seeds = list(arms), list(seeds)
            self.runs = {(arm, seed): Run() for arm in arms for seed in seeds}

    def updated(
        self,
        arm: str,
        seed: int,
        state: State,
        ap: float | None,
        eta: float | None,
        progress: float | None,
    ) -> bool:
        """Whether the run's state is another one now."""
        with self.lock:
            if arm not in self.arms:
                self.arms.append(arm)
            if seed not in self.seeds:
                self.seeds.append(seed)
            run = self.runs.setdefault((arm, seed), Run())
            changed = run.state != state
            now = self.clock()
            if state == "running" and changed:
                run.begun = now
            if state in ("done", "failed") and run.begun is not None and changed:
                run.seconds = now - run.begun
            run.state = state
            run.ap = run.ap if ap is None else ap
            run.eta = eta if state == "running" else None
            run.progress = progress if state == "running" else None
            return changed

    def count(self, *states: str) -> int:
        return sum(run.state in states for run in self.runs.values())

    def aps(self, arm: str) -> list[float]:
        """The final AP of an arm's finished runs."""
        runs = (self.runs[arm, seed] for seed in self.seeds if (arm, seed) in self.runs)
        return [run.ap for run in runs if run.state in ("done", "kept") and run.ap is not None]

    def remaining(self) -> float | None:
        """Seconds to the end, if runs go on taking as long as those so far, as many at once."""
        running = [run for run in self.runs.values() if run.state == "running"]
        took = [run.seconds for run in self.runs.values() if run.state == "done" and run.seconds]
        for run in running:
            if run.eta is not None and run.begun is not None:
                took.append(self.clock() - run.begun + run.eta)
        queued = self.count("queued")
        if not running and not queued:
            return 0.0
        if not took:
            return None
        each = statistics.fmean(took)
        open_runs = [each / 2 if run.eta is None else run.eta for run in running]
        return (sum(open_runs) + queued * each) / max(1, len(running))


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


def grid_lines(grid: Grid, width: int, height: int, look: Look, title: str = "") -> list[Text]:
    """The grid at most `width` by `height` characters; arms in work are kept when rows run out."""
    inner = width - 4
    lines = [fitted([counts_text(grid), _eta_text(grid)], "   ", inner), _bar(grid, inner, look)]
    name_width = max(4, min(max((len(arm) for arm in grid.arms), default=4), inner // 3, 40))
    mean_width = 18 if inner >= 50 else 0
    room = inner - name_width - (mean_width + 2 if mean_width else 0)
    each = max((w for w in (WIDEST, 12, 8, 1) if (w + 2) * len(grid.seeds) <= room), default=0)
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
    elif each:
        line += "  " + f"{len(grid.seeds)} seeds"[: 3 * len(grid.seeds) - 2].ljust(3 * len(grid.seeds) - 2)
    else:
        line += "  done"
    if mean_width:
        line += f"  {'mean AP (n)':>{mean_width}}"
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


class LiveGrid:
    """The grid at the foot of a terminal."""

    def __init__(
        self, console: Console, title: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._title = console, title
        self._look = Look.of(console)
        self._grid = Grid(clock)
        self._screen: Screen | None = None

    def planned(self, arms: Sequence[str], seeds: Sequence[int]) -> None:
        self._grid.planned(arms, seeds)
        if self._screen is None:
            self._screen = Screen(self._console, self._look, self._frame, self._drawing_failed)
            self._screen.start()
        self._screen.changed()

    def updated(
        self,
        arm: str,
        seed: int,
        state: State,
        ap: float | None = None,
        eta: float | None = None,
        progress: float | None = None,
    ) -> None:
        self._grid.updated(arm, seed, state, ap, eta, progress)
        if self._screen is not None:
            self._screen.changed()

    def message(self, text: str) -> None:
        self._grid.messages.append(one_line(text))
        if self._screen is None:
            self._console.print(Text(one_line(text)), highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._screen is not None:
            self._screen.stop(self._frame(self._console.width, 10_000))
            self._screen = None

    def _frame(self, width: int, height: int) -> list[Text]:
        with self._grid.lock:
            return grid_lines(self._grid, width, height, self._look, self._title)

    def _drawing_failed(self, error: Exception) -> None:
        self._screen = None
        self._console.print(f"the live view failed ({type(error).__name__}: {error}); the runs go on")


class PlainGrid:
    """A line for each change of a run's state, and the counts now and then."""

    def __init__(
        self, console: Console, title: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._title = console, title
        self._grid = Grid(clock)
        self._next = 0.0

    def planned(self, arms: Sequence[str], seeds: Sequence[int]) -> None:
        self._grid.planned(arms, seeds)
        self._next = self._grid.clock() + PROGRESS_SECONDS
        self._print(
            "grid",
            one_line(self._title),
            f"{len(arms)} arms x {len(seeds)} seeds = {len(arms) * len(seeds)} runs",
        )

    def updated(
        self,
        arm: str,
        seed: int,
        state: State,
        ap: float | None = None,
        eta: float | None = None,
        progress: float | None = None,
    ) -> None:
        grid = self._grid
        changed = grid.updated(arm, seed, state, ap, eta, progress)
        now = grid.clock()
        if not changed and now < self._next:
            return
        self._next = now + PROGRESS_SECONDS
        run = grid.runs[arm, seed]
        width = max(len(name) for name in grid.arms)
        parts: list[str | Text] = [
            f"arm {one_line(arm):<{width}}",
            f"seed {seed}",
            Text(f"{state:<7}", style=STYLES[state]),
        ]
        if run.progress is not None:
            parts.append(f"{100 * run.progress:.0f}%")
        if run.ap is not None:
            parts.append(f"AP {run.ap:.4f}")
        if run.seconds is not None:
            parts.append(f"took {duration(run.seconds)}")
        self._print("run", *parts, self._counts())

    def _counts(self) -> str:
        grid = self._grid
        failed = grid.count("failed")
        finished = f"{grid.count('done', 'kept')}/{len(grid.runs)} finished"
        return f"({finished}{f', {failed} failed' if failed else ''}, eta {duration(grid.remaining())})"

    def message(self, text: str) -> None:
        self._print("note", one_line(text))

    def close(self) -> None:
        grid = self._grid
        width = max((len(arm) for arm in grid.arms), default=0)
        for arm in grid.arms:
            failed = sum(grid.runs[arm, s].state == "failed" for s in grid.seeds if (arm, s) in grid.runs)
            mean = mean_text(grid.aps(arm)).replace("±", "+-")
            self._print(
                "arm", f"{one_line(arm):<{width}}", f"mean AP {mean}", f"{failed} failed" if failed else ""
            )
        self._print("end", self._counts(), f"after {duration(grid.clock() - grid.begun)}")

    def _print(self, kind: str, *parts: str | Text) -> None:
        line = Text(f"{kind:<6}")
        for i, part in enumerate(part for part in parts if str(part)):
            line.append("  " if i else "")
            line.append_text(part if isinstance(part, Text) else Text(part))
        line.rstrip()
        self._console.print(line, soft_wrap=True, highlight=False)


class QuietGrid:
    """Failed runs, and the counts at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._grid = Grid()

    def planned(self, arms: Sequence[str], seeds: Sequence[int]) -> None:
        self._grid.planned(arms, seeds)

    def updated(
        self,
        arm: str,
        seed: int,
        state: State,
        ap: float | None = None,
        eta: float | None = None,
        progress: float | None = None,
    ) -> None:
        if self._grid.updated(arm, seed, state, ap, eta, progress) and state == "failed":
            self._console.print(
                Text(f"{one_line(arm)}, seed {seed}: failed"), soft_wrap=True, highlight=False
            )

    def message(self, text: str) -> None:
        pass

    def close(self) -> None:
        self._console.print(counts_text(self._grid), soft_wrap=True, highlight=False)
