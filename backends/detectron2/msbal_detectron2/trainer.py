"""detectron2's SimpleTrainer with what the spec asks for beyond it: accumulation, clipping, precision, checkpoints.

One iteration is one forward pass. Its chance (the sampling of anchors and RoIs) follows from the seed, the process and
the iteration alone, so that a resumed run, and one with another strategy, samples alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.utils.events import EventStorage
from torch import nn
from torch.optim.swa_utils import AveragedModel

from msbal.backend import Job
from msbal.backend.kit.balanced import Balanced
from msbal.backend.kit.cadence import Cadence, Pace
from msbal.backend.kit.nonfinite import Guard, OnNonFinite
from msbal.backend.kit.seeding import seed_iteration
from msbal.backend.kit.steps import Stepper, exchanging
from msbal.engine.processes import rank, world_size
from msbal.engine.record import IntervalRecord
from msbal.spec import ScheduleSpec
from msbal.training.checkpoints import Checkpoints, resuming
from msbal_detectron2.hook import put_scalars
from msbal_detectron2.weights import plain

CHECKPOINTS = Checkpoints("detectron2", ("model", "trainer", "balancing"))
"""``trainer`` has the optimizer, scaler and hooks, ``balancing`` the balancers and each process's loss normalizer.

Beside them: ``iteration``, and ``average`` where weights are averaged. ``DetectionCheckpointer`` can load the model.
"""


class Trainer(SimpleTrainer):  # type: ignore[misc]
    """Trains a balanced model by the spec's schedule.

    A step with a NaN or infinite loss or gradient never reaches the weights: the run stops, or skips the whole step,
    including the gradients accumulated for it.

    Args:
        model: wrapped in DistributedDataParallel or not.
        data_loader: one batch an iteration.
        optimizer: has the parameters of the strategy, too.
        balanced: the model's handle.
        on_nonfinite: told of skipped steps.
        average: of the model's weights.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        balanced: Balanced,
        schedule: ScheduleSpec,
        on_nonfinite: OnNonFinite,
        seed: int,
        average: AveragedModel | None = None,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self.balanced, self.schedule, self.seed = balanced, schedule, seed
        self.average, self.stop_requested = average, False
        self.learning_rate = 0.0  # of the last iteration's step
        self.guard = Guard(on_nonfinite, balanced.groups)
        self.stepper = Stepper(
            optimizer,
            schedule.amp,
            next(model.parameters()).device,
            schedule.accumulate,
            schedule.clip_norm,
            balanced.parameters(),
        )

    def train(self, start_iter: int, max_iter: int) -> None:
        """Train as ``TrainerBase.train``, but stop where asked to, and leave errors to msbal."""
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            self.before_train()
            try:
                while self.iter < max_iter and not self.stop_requested:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            finally:
                self.after_train()

    def run_step(self) -> None:
        """Run forward and backward, and step the optimizer where due."""
        started = time.perf_counter()
        data = next(self._data_loader_iter)
        self.storage.put_scalar("data_time", time.perf_counter() - started)
        done = self.iter + 1
        self.learning_rate = float(self.optimizer.param_groups[0]["lr"])
        seed_iteration(self.seed, done, rank())
        if self.iter == self.start_iter:
            self.optimizer.zero_grad()
        due = done % self.schedule.accumulate == 0 or done == self.max_iter
        with exchanging(self.model, due):
            with self.stepper.autocast():
                losses = self.model(data)
                total = sum(losses.values())
            rest = self.balanced.rest(losses)
            self.stepper.backward(self.guard.protect(done, total, self.balanced.losses, rest))
        value = float(total.detach())
        if math.isfinite(value):
            self.storage.put_scalar("total_loss", value)
        if due:
            self.stepper.step()
            left_out = self.stepper.left_out_a_step()
            self.guard.look(done, left_out, explained=self.stepper.scales)
            if self.average is not None and not left_out:
                self.average.update_parameters(self.balanced.model)

    def state_dict(self) -> dict[str, Any]:
        """Return the iteration, hooks (the learning rate's), optimizer and scaler."""
        state: dict[str, Any] = super().state_dict()
        state["scaler"] = self.stepper.scaler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        super().load_state_dict(state)
        self.stepper.load_state_dict(state["scaler"])


class RunHook(HookBase):  # type: ignore[misc]
    """What a run does after each iteration: records, progress, checkpoints, evaluations, stopping.

    Args:
        start, total: iterations that are done, and those of the whole run.
        images: per iteration and process.
        save_every: iterations between checkpoints.
        evaluate: called with the iteration where an evaluation is due.
    """

    def __init__(
        self, job: Job, trainer: Trainer, start: int, total: int, images: int, save_every: int,
        evaluate: Callable[[int], object],
    ) -> None:  # fmt: skip
        self._job, self._trainer, self._run_evaluation = job, trainer, evaluate
        self._cadence = Cadence(job, total, start, save_every, self._evaluate, self._save)
        device = next(trainer.balanced.model.parameters()).device
        self._pace = Pace(job.monitor, images * world_size(), total, device)
        _report_to_storage(job, trainer)

    def after_step(self) -> None:
        """Do what is due; the trainer calls this."""
        trainer, done = self._trainer, self.trainer.iter + 1
        if done == trainer.start_iter + 1:
            trainer.balanced.require_calls()
        self._pace.tick(done, trainer.learning_rate)
        trainer.stop_requested = self._cadence.after(done, trainer.learning_rate)

    def _evaluate(self, done: int) -> None:
        self._run_evaluation(done)
        self._pace.restart()

    def _save(self, done: int) -> None:
        """Write a checkpoint; every process takes part."""
        trainer = self._trainer
        trainer.balanced.synchronize()
        if rank() != 0:
            return
        state = {
            "iteration": done,
            "model": trainer.balanced.model.state_dict(),
            "trainer": trainer.state_dict(),
            "balancing": trainer.balanced.state_dict(),
            "average": {} if trainer.average is None else trainer.average.state_dict(),
        }
        CHECKPOINTS.save(self._job.run.checkpoints, plain(state))

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        trainer = self._trainer
        with resuming():
            trainer.balanced.model.load_state_dict(state["model"])
            trainer.load_state_dict(state["trainer"])
            trainer.balanced.load_state_dict(state["balancing"])
            if trainer.average is not None:
                trainer.average.load_state_dict(state["average"])
        self._job.recorder.rewind(int(state["iteration"]))


def _report_to_storage(job: Job, trainer: Trainer) -> None:
    """Put the records into detectron2's EventStorage too, where a model's own code may read them."""
    tell = job.recorder.on_record

    def on_record(record: IntervalRecord) -> None:
        put_scalars(trainer.storage, record, trainer.balanced)
        if tell is not None:
            tell(record)

    job.recorder.on_record = on_record
