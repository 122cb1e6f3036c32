"""What follows an iteration: records, progress, an evaluation, a checkpoint, the end."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from msbal.backend.protocol import Job, Monitor
from msbal.engine.processes import rank

SECONDS = 0.25
LOSSES_SECONDS = 1.0


class Cadence:
    """Decides when a run evaluates, saves and stops, the same in every backend.

    Args:
        total: iterations of the run.
        done: iterations before this process started; 0 unless resumed.
        save_every: iterations between checkpoints; None saves at the end only. The best evaluation's is saved, too.
        evaluate: called with the iteration, but not with the last one: the core evaluates the end.
        save: writes the checkpoint of an iteration. By then all records are written, and the balancers of all ranks
            have exchanged what a checkpoint needs.
        accumulate: iterations per optimizer step, where the spec does not decide.
    """

    def __init__(
        self,
        job: Job,
        total: int,
        done: int,
        save_every: int | None,
        evaluate: Callable[[int], object],
        save: Callable[[int], object],
        accumulate: int | None = None,
    ) -> None:
        self.job, self.total, self.save_every = job, total, save_every
        self._evaluate, self._save = evaluate, save
        self._accumulate = accumulate or job.spec.schedule.accumulate
        self._saved = self._evaluated = done
        self._next_losses = 0.0
        if job.best is not None:
            job.best.rewind(done)

    def whole(self, iteration: int) -> bool:
        """Return whether no gradient waits for its step, so that a run resumes exactly from here."""
        return iteration % self._accumulate == 0 or iteration == self.total

    def after(self, iteration: int, learning_rate: float | None = None) -> bool:
        """Do what is due after an iteration; on all ranks alike.

        Args:
            learning_rate: of the optimizer's first group in this iteration's step, for the records.

        Returns:
            whether to end the run here: it was asked to stop, and its checkpoint is written.
        """
        job, at_end = self.job, iteration == self.total
        job.recorder.step(iteration, learning_rate=learning_rate)
        self._tell_losses()
        whole, best = self.whole(iteration), False
        if (
            job.evaluate is not None and whole and not at_end
            and _due(job.spec.evaluate.every, self._evaluated, iteration)
        ):  # fmt: skip
            # Before the checkpoint: a run killed in between evaluates again, and misses nothing.
            job.recorder.flush()
            self._evaluate(iteration)
            self._evaluated = iteration
            best = job.best is not None and job.best.iteration == iteration
        # All ranks ask in every iteration, as they have to agree.
        stop = job.stop_requested()
        if not (whole and (stop or at_end or best or _due(self.save_every, self._saved, iteration))):
            return False
        job.recorder.flush()
        # The ranks' own losses of the unfinished interval; a collective.
        job.balancers.synchronize()
        self._save(iteration)
        self._saved = iteration
        if job.best is not None:
            job.best.saved(iteration)
        return stop

    def _tell_losses(self) -> None:
        """Tell the monitor the losses so far, once a second until the first interval ends.

        This waits for the device, so with a GPU it is done only after 1, 2, 4, 8, ... iterations.
        """
        now = time.perf_counter()
        if rank() or now < self._next_losses:
            return
        for balancer in self.job.balancers.balancers.values():
            n = balancer.iteration
            if balancer.intervals or (n & (n - 1) and balancer.device.type == "cuda"):
                continue
            record = balancer.so_far()
            if record is not None:
                self.job.monitor.interval_so_far(record)
                self._next_losses = now + LOSSES_SECONDS


def _due(period: int | None, last: int, iteration: int) -> bool:
    """Return whether a multiple of `period` lies after `last` and not after this iteration."""
    return period is not None and iteration // period > last // period


class Pace:
    """Counts images and reports them.

    Args:
        monitor: told at most every quarter of a second, and of the last iteration.
        images: per iteration, over all processes.
        total: iterations of the run.
    """

    def __init__(self, monitor: Monitor, images: int, total: int, device: torch.device) -> None:
        self.monitor, self.images, self.total, self.device = monitor, images, total, device
        self._since, self._last = 0, time.perf_counter()

    def tick(self, iteration: int, learning_rate: float) -> None:
        """Count an iteration that has ended."""
        self._since += 1
        now = time.perf_counter()
        elapsed = now - self._last
        if elapsed < SECONDS and iteration < self.total:
            return
        scalars = {
            "images_per_second": self._since * self.images / max(elapsed, 1e-9),
            "learning_rate": learning_rate,
        }
        if self.device.type == "cuda":
            scalars["memory_bytes"] = float(torch.cuda.max_memory_allocated(self.device))
        self.monitor.stepped(iteration, scalars)
        self._since, self._last = 0, now

    def restart(self) -> None:
        """Start counting anew, so that an evaluation or a checkpoint slows nothing down."""
        self._since, self._last = 0, time.perf_counter()
