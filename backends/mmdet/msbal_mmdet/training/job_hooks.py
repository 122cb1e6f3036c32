"""What a run of `msbal train` does in mmengine's hooks: balancing, checkpoints, evaluation, progress and the end."""

from __future__ import annotations

import math
from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper

from msbal.backend import Detector, Job
from msbal.backend.kit.balanced import balanced_of
from msbal.backend.kit.cadence import Cadence, Pace
from msbal.backend.kit.nonfinite import OnNonFinite
from msbal.engine import BalancerSet
from msbal.engine.processes import rank, world_size
from msbal.records.atomic import put_in_place
from msbal_mmdet.hooks import MultiScaleBalanceHook, Records
from msbal_mmdet.splitters.find import Found
from msbal_mmdet.training import checkpoints
from msbal_mmdet.training.overrides import SAVE_EVERY


class Stopped(Exception):
    """Ends mmengine's loop after a checkpoint."""


class JobBalanceHook(MultiScaleBalanceHook):
    """The hook with the balancers and the recorder of a job."""

    def __init__(self, job: Job) -> None:
        self._begin(job.spec.balance)
        self.job = job

    def after_train(self, runner: Any) -> None:
        """Do nothing yet: a run that ends early has its checkpoint after this; `train` ends the balancing."""

    def make_balancers(self, found: Found, runner: Any) -> BalancerSet:
        return self.job.balancers

    def make_records(self, runner: Any) -> Records:
        return JobRecords(self.job, runner.iter)

    def make_on_nonfinite(self, runner: Any) -> OnNonFinite:
        return OnNonFinite(self.spec.on_nonfinite, self.job.monitor.message)


class JobRecords:
    """The job's recorder, which tells the monitor too."""

    def __init__(self, job: Job, iteration: int) -> None:
        job.recorder.attach(job.balancers)
        job.recorder.rewind(iteration)
        self.step, self.flush = job.recorder.step, job.recorder.flush

    def begin(self, iteration: int) -> None:
        pass


class JobHook(Hook):
    """Checkpoints, evaluation, progress and the end of a job."""

    # After everything that changes state in an iteration.
    priority = "LOWEST"

    def __init__(self, detector: Detector, job: Job, balance: JobBalanceHook) -> None:
        self.detector, self.job, self.balance = detector, job, balance
        self.saved = 0

    def before_train(self, runner: Any) -> None:
        self.saved = runner.iter
        job = self.job
        images = getattr(runner.train_dataloader.batch_sampler, "batch_size", 1) * world_size()
        device = next(runner.model.parameters()).device
        self.pace = Pace(job.monitor, images, runner.max_iters, device)
        self.cadence = Cadence(
            job,
            runner.max_iters,
            runner.iter,
            job.spec.schedule.checkpoint_every or SAVE_EVERY,
            lambda done: self._evaluate(runner, done),
            lambda done: self.save(runner, done),
            accumulate=getattr(runner.optim_wrapper, "_accumulative_counts", None),
        )
        job.monitor.started(runner.iter, runner.max_iters, self.detector.groups)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        done = runner.iter + 1
        rate = self.balance.learning_rate
        self.pace.tick(done, math.nan if rate is None else rate)
        if self.cadence.after(done, rate) and done < runner.max_iters:
            raise Stopped

    def after_train(self, runner: Any) -> None:
        """Save a run that ended early: by a hook of the config, or as the loader had fewer batches than it said."""
        done = self.job.ended = runner.iter
        if done < runner.max_iters:
            self.job.monitor.message(f"the run ended after iteration {done} of {runner.max_iters}")
            if done > self.saved:
                self.job.recorder.flush()
                self.save(runner, done)

    def save(self, runner: Any, done: int) -> None:
        """Write a checkpoint; its name appears when it is whole."""
        self.saved = done
        balanced = balanced_of(runner.model)
        if balanced is not None:
            balanced.synchronize()  # what the losses remember in each process; a collective
        path = checkpoints.path_of(self.job.run.checkpoints, done)
        temporary = path.with_name(f".{path.name}.mmengine.tmp")
        try:
            # mmengine saves on the first rank alone.
            runner.save_checkpoint(str(path.parent), temporary.name, by_epoch=False, backend_args=None)
            if rank() == 0:
                put_in_place(temporary, path)
                checkpoints.prune(path)
        except BaseException:
            temporary.unlink(missing_ok=True)  # on a full disk all the more
            raise

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        if runner._resume:
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            checkpoints.require_fit(model, checkpoint["state_dict"])

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        checkpoints.make_ours(checkpoint, self.saved)

    def _evaluate(self, runner: Any, done: int) -> None:
        assert self.job.evaluate is not None
        averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)][:1]
        for hook in averages:
            hook._swap_ema_parameters()
        try:
            self.job.evaluate(self.detector, done)
        finally:
            for hook in averages:
                hook._swap_ema_parameters()
            runner.model.train()
            self.pace.restart()
