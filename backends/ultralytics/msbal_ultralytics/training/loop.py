"""The training loop: ultralytics' recipe, an iteration at a time, so that a run can stop and resume anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from ultralytics.utils.torch_utils import ModelEMA

from msbal.backend import Job
from msbal.backend.kit.balanced import Balanced
from msbal.backend.kit.cadence import Cadence, Pace
from msbal.backend.kit.nonfinite import Guard, OnNonFinite
from msbal.backend.kit.one_batch import SplitModel
from msbal.backend.kit.seeding import seed_iteration
from msbal.backend.kit.steps import Stepper, add_learned, exchanging
from msbal.backend.kit.workers import load_batches
from msbal.engine.processes import rank, world_size
from msbal.training.checkpoints import Checkpoints, resuming
from msbal.training.stream import Positions
from msbal_ultralytics.training.recipe import Recipe
from msbal_ultralytics.training.samples import Samples, Stream

CHECKPOINTS = Checkpoints("ultralytics", ("model", "optimizer", "scaler", "balancers", "average"))
"""Beside these: ``iteration``, and ``kind``, the class of the optimizer.

``average`` has the moving average of the weights, which ultralytics always keeps and evaluates.
"""

LOOK_EVERY = 100
"""On a GPU, iterations between two checks for skipped steps."""


class _Cadence(Cadence):
    """Knows that ultralytics makes a step of fewer iterations while it warms up."""

    trainer: Trainer

    def whole(self, iteration: int) -> bool:
        return iteration in (self.trainer.stepped, self.total)


class Trainer:
    """One run's state: everything that a checkpoint holds, and the steps of one iteration.

    Args:
        split: the model and its splitters.
        recipe: with its plan.
        samples: augmented.
        batch: images per iteration and process.
    """

    def __init__(self, split: SplitModel, recipe: Recipe, samples: Samples, job: Job, batch: int) -> None:
        self.split, self.model, self.recipe, self.samples, self.job = (
            split,
            split.model,
            recipe,
            samples,
            job,
        )
        self.device, self.total, self.batch = recipe.device, recipe.total, batch
        self.schedule, self.seed = job.spec.schedule, job.spec.seed
        self.rank, self.processes = rank(), world_size()
        self.iteration = self.stepped = 0  # `stepped`: the iteration of the last step
        self.learning_rate = 0.0

        self.balancers = job.balancers.to(self.device)
        learned = list(self.balancers.parameters())
        optimizer = recipe.make_optimizer()
        add_learned(optimizer, learned)
        recipe.start(optimizer)
        # What ultralytics accumulates it adds up; what the spec accumulates is averaged.
        count = 1 if recipe.by_nbs else recipe.accumulate
        self.stepper = Stepper(optimizer, self.schedule.amp, self.device, count, recipe.clip_norm, learned)
        self.ema = ModelEMA(self.model)
        self.ema.ema.criterion = None
        if self.schedule.ema is not None:
            self.ema.decay = lambda updates: self.schedule.ema
        self.guard = Guard(OnNonFinite(job.spec.balance.on_nonfinite, job.monitor.message), split.groups)
        self.forward: nn.Module = self.model
        if self.processes > 1:
            # A batch without boxes gives the layers of the boxes no gradient.
            self.forward = DistributedDataParallel(
                self.model, device_ids=[self.device] if self.device.type == "cuda" else None,
                find_unused_parameters=True,
            )  # fmt: skip
        # Last: nothing can fail any more, and the average is no copy of a balanced model.
        self.balanced = Balanced(self.model, split.splitters, self.balancers)

    # -- checkpoints -----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return a checkpoint's content, in full precision."""
        return {
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "optimizer": self.recipe.optimizer.state_dict(),
            "kind": type(self.recipe.optimizer).__name__,
            "scaler": self.stepper.scaler.state_dict(),
            "balancers": self.balanced.state_dict(),
            "average": {**self.ema.ema.state_dict(), "n_averaged": torch.tensor(self.ema.updates)},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's content.

        Raises:
            SpecError: where it belongs to another model or another balance section.
        """
        with resuming():
            kind = type(self.recipe.optimizer).__name__
            if state.get("kind") != kind:
                raise ValueError(f"its optimizer is {state.get('kind')}, and a run of this length has {kind}")
            self.model.load_state_dict(state["model"])
            self.recipe.optimizer.load_state_dict(state["optimizer"])
            self.stepper.load_state_dict(state["scaler"])
            self.balanced.load_state_dict(state["balancers"])
            average = dict(state["average"])
            self.ema.updates = int(average.pop("n_averaged"))
            self.ema.ema.load_state_dict(average)
            self.iteration = self.stepped = int(state["iteration"])

    def save(self, iteration: int) -> None:
        """Write a checkpoint on the first rank, after all ranks have checked that it would be sound."""
        self.look()
        if self.rank == 0:
            CHECKPOINTS.save(self.job.run.checkpoints, self.state())

    # -- iterations ------------------------------------------------------------------------------

    def train(self, evaluate: Callable[[int], object]) -> None:
        """Train to the end, or until asked to stop; see `msbal.backend.Detector.train`.

        Args:
            evaluate: called with the iteration where an evaluation is due.
        """
        try:
            self._train(evaluate)
        finally:
            self.balanced.remove()
        self._share_average()

    def _train(self, evaluate: Callable[[int], object]) -> None:
        job = self.job
        if job.checkpoint is not None:
            self.restore(CHECKPOINTS.load_newest(job.checkpoint, job.monitor.message))
        job.recorder.rewind(self.iteration)
        job.monitor.started(self.iteration, self.total, self.split.groups)
        pace = Pace(job.monitor, self.batch * self.processes, self.total, self.device)

        def apart(what: Callable[[int], object], iteration: int) -> None:
            what(iteration)
            pace.restart()

        def evaluated(iteration: int) -> None:
            self._share_average()
            evaluate(iteration)

        every = self.schedule.checkpoint_every or self.recipe.batches
        cadence = _Cadence(
            job, self.total, self.iteration, every, partial(apart, evaluated), partial(apart, self.save)
        )
        cadence.trainer = self
        self.recipe.training_mode()
        batches = iter(self.loader())
        epoch = -1
        try:
            for batch in batches:
                if self.recipe.epoch(self.iteration) != epoch:
                    epoch = self.recipe.epoch(self.iteration)
                    self.recipe.begin_epoch(epoch)
                self.run_iteration(batch)
                pace.tick(self.iteration, self.learning_rate)
                if cadence.after(self.iteration, self.learning_rate):
                    return
        finally:
            # An error's traceback holds the workers, and torch would end them by SIGTERM, which they ignore.
            getattr(batches, "_shutdown_workers", lambda: None)()

    def loader(self) -> Iterable[dict[str, Any]]:
        """Return the batches from here to the end."""
        return load_batches(
            Stream(self.samples, self.seed, self.recipe.closing()),
            Positions(self.iteration, self.total, self.batch, self.rank, self.processes),
            Samples.collate_fn,
            self.schedule.workers,
            self.device,
        )

    def run_iteration(self, batch: dict[str, Any]) -> None:
        """Run forward and backward, and step where due; the model balances its losses itself."""
        recipe = self.recipe
        recipe.set_rates(self.iteration)
        self.learning_rate = float(recipe.optimizer.param_groups[0]["lr"])
        self.iteration += 1
        due = self.iteration - self.stepped >= recipe.iterations_per_step(self.iteration - 1)
        due = due or self.iteration == self.total
        seed_iteration(self.seed, self.iteration, self.rank)
        batch = recipe.preprocess_batch(batch)  # of several sizes, where asked for
        with exchanging(self.forward, due):
            with self.stepper.autocast():
                losses, names = self.forward(batch)
            self.balanced.require_calls()
            # Processes average their gradients; ultralytics' loss is a sum over images.
            total = losses.sum() * self.processes
            named = dict(zip(names, losses.unbind(), strict=True))
            total = self.guard.protect(self.iteration, total, self.balanced.losses, self.balanced.rest(named))
            self.stepper.backward(total)
        if due:
            self.stepper.step()
            self.ema.update(self.model)
            self.stepped = self.iteration
        self.guard.poll()
        # On the CPU there is nothing to wait for.
        if self.device.type == "cpu" or self.iteration % LOOK_EVERY == 0:
            self.look()

    def look(self) -> None:
        """Find out, waiting for the device, whether a step was skipped, and apply the policy; see `Guard.look`."""
        self.guard.look(self.iteration, self.stepper.left_out_a_step(), explained=self.stepper.scales)

    def _share_average(self) -> None:
        """Give all processes the first one's average to predict with; of normalisation each has a part of its own."""
        if self.processes > 1:
            for buffer in self.ema.ema.buffers():
                dist.broadcast(buffer, src=0)
