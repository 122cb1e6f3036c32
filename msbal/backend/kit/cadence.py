"""What follows an iteration: records, an evaluation, a checkpoint, the end."""

from __future__ import annotations

from collections.abc import Callable

from msbal.backend.protocol import Job


class Cadence:
    """When a run evaluates, saves and stops; the same in every backend.

    Args:
        total: iterations of the run.
        done: those that a resumed run begins after.
        save_every: iterations between checkpoints; None for one at the end only.
        evaluate: called with the iteration. The last one is not asked for: the core evaluates the end.
        save: writes the checkpoint of an iteration. All records are written by then, and the balancers of all ranks
            have told each other what a checkpoint needs.
        accumulate: iterations whose gradients make one step, where it is not the spec that decides.
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
        self._saved = done

    def whole(self, iteration: int) -> bool:
        """Whether no gradient waits for its step, so that a checkpoint after it resumes exactly."""
        return iteration % self._accumulate == 0 or iteration == self.total

    def after(self, iteration: int) -> bool:
        """Do what is due after an iteration; on all ranks alike.

        Returns:
            whether the run should end here: it was asked to stop, and a checkpoint is written.
        """
        job, at_end = self.job, iteration == self.total
        job.recorder.step(iteration)
        every = job.spec.evaluate.every
        if job.evaluate is not None and every and iteration % every == 0 and not at_end:
            # Before the checkpoint: a run killed in between evaluates again, and misses nothing.
            job.recorder.flush()
            self._evaluate(iteration)
        # Asked by all ranks in every iteration, as they have to agree.
        stop = job.stop_requested()
        period = self.save_every
        due = period is not None and iteration // period > self._saved // period
        if not (self.whole(iteration) and (stop or at_end or due)):
            return False
        job.recorder.flush()
        # The ranks' own losses of an unfinished interval; a collective.
        job.balancers.synchronize()
        self._save(iteration)
        self._saved = iteration
        return stop
