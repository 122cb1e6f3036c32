"""What each run of an ablation is at."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from msbal.ui.text import one_line

State = Literal["queued", "running", "done", "failed", "kept", "skipped"]


@dataclass
class Run:
    """One cell of the grid; the times are those of the monitor's clock, in seconds.

    Attributes:
        doing: what goes on beside its training: ``evaluating 12/64``.
    """

    state: State = "queued"
    ap: float | None = None
    eta: float | None = None
    progress: float | None = None
    doing: str = ""
    begun: float | None = None
    seconds: float | None = None


class GridMonitor:
    """Watches an ablation: keeps what it is told and shows nothing. The base of those that show something.

    Args:
        clock: seconds, monotonic.
        metric: what to call the numbers.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, metric: str = "AP") -> None:
        self.clock, self.metric = clock, metric
        self.lock = Lock()
        self.arms: list[str] = []
        self.seeds: list[int] = []
        self.runs: dict[tuple[str, int], Run] = {}
        self.messages: list[str] = []
        self.begun = clock()

    def planned(self, arms: Sequence[str], seeds: Sequence[int]) -> None:
        """Every arm runs with every seed. All runs are queued."""
        with self.lock:
            self.begun = self.clock()
            self.arms, self.seeds = list(arms), list(seeds)
            self.runs = {(arm, seed): Run() for arm in arms for seed in seeds}

    def updated(
        self,
        arm: str,
        seed: int,
        state: State,
        *,
        ap: float | None = None,
        eta: float | None = None,
        progress: float | None = None,
        doing: str = "",
    ) -> bool:
        """Note that a run has changed; return whether its state is another one now.

        Args:
            state: ``kept`` if an earlier call finished it; ``skipped`` if what it was for has been decided.
            ap: its last evaluation, 0..1; None leaves it as it was.
            eta: seconds that it still needs.
            progress: 0..1 of its iterations.
            doing: see `Run`.
        """
        with self.lock:
            run = self.runs[arm, seed]
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
            run.doing = doing if state == "running" else ""
            return changed

    def message(self, text: str) -> None:
        """Show a person one line."""
        with self.lock:
            self.messages.append(one_line(text))

    def close(self) -> None:
        """The end; the last view stays on the screen."""

    def count(self, *states: str) -> int:
        return sum(run.state in states for run in self.runs.values())

    @property
    def planned_runs(self) -> int:
        """All but the skipped ones."""
        return len(self.runs) - self.count("skipped")

    def states(self, arm: str) -> list[State]:
        """Return the states of an arm's runs, in the order of the seeds."""
        return [self.runs[arm, seed].state for seed in self.seeds]

    def aps(self, arm: str) -> list[float]:
        """Return the final AP of an arm's finished runs."""
        runs = (self.runs[arm, seed] for seed in self.seeds)
        return [run.ap for run in runs if run.state in ("done", "kept") and run.ap is not None]

    def elapsed_of(self, run: Run) -> float | None:
        """Return how long a run has run, or took; None where it has not begun, or was finished before."""
        running = run.state == "running" and run.begun is not None
        return self.clock() - (run.begun or 0.0) if running else run.seconds

    def elapsed(self) -> float:
        return self.clock() - self.begun

    def remaining(self) -> float | None:
        """Return the seconds to the end, if runs go on taking as long as those so far, as many at once."""
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
