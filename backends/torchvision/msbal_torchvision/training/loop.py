"""The training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from msbal.backend import Job
from msbal.backend.kit.balanced import Balanced
from msbal.backend.kit.cadence import Cadence, Pace
from msbal.backend.kit.nonfinite import Guard, OnNonFinite
from msbal.backend.kit.one_batch import SplitModel
from msbal.backend.kit.seeding import seed_iteration
from msbal.backend.kit.steps import Stepper, add_learned, exchanging, make_average
from msbal.backend.kit.workers import load_batches
from msbal.engine.processes import rank, world_size
from msbal.errors import SpecError
from msbal.training.checkpoints import Checkpoints, resuming
from msbal.training.stream import Positions
from msbal_torchvision.pixels import Sample, Stream, keep, to_device
from msbal_torchvision.training.optimization import make_optimizer, make_scheduler

CHECKPOINTS = Checkpoints("torchvision", ("model", "optimizer", "scheduler", "scaler", "balancers"))
"""Beside these state dictionaries: ``iteration``, and ``average`` where weights are averaged."""

LOOK_EVERY = 100
"""On a GPU, iterations between two checks for skipped steps; far fewer than a gradient scale grows in."""


class Trainer:
    """One run's state: everything that a checkpoint holds, and the steps of one iteration.

    Args:
        split: the model, on `device`, and its splitters.
        total: iterations of the run.
    """

    def __init__(self, split: SplitModel, device: torch.device, job: Job, total: int) -> None:
        self.split, self.model, self.device, self.job, self.total = split, split.model, device, job, total
        self.schedule, self.seed = job.spec.schedule, job.spec.seed
        if self.schedule.optimizer is None or self.schedule.batch_size is None:
            raise SpecError("schedule", "no optimizer or batch_size", "both, where torchvision trains")
        self.rank, self.processes = rank(), world_size()
        self.batch = self.schedule.batch_size
        self.iteration, self.learning_rate = 0, 0.0  # of that iteration's step

        self.balancers = job.balancers.to(device)
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        learned = list(self.balancers.parameters())
        self.optimizer = make_optimizer(parameters, self.schedule.optimizer, device)
        add_learned(self.optimizer, learned)
        self.scheduler = make_scheduler(self.optimizer, self.schedule, total)
        self.stepper = Stepper(
            self.optimizer, self.schedule.amp, device, self.schedule.accumulate, self.schedule.clip_norm, learned
        )  # fmt: skip
        self.average = make_average(self.model, self.schedule.ema)
        self.guard = Guard(OnNonFinite(job.spec.balance.on_nonfinite, job.monitor.message), split.groups)
        self.forward: nn.Module = self.model
        if self.processes > 1:
            self.forward = DistributedDataParallel(
                self.model, device_ids=[device] if device.type == "cuda" else None
            )
        # Last: nothing can fail any more, and the average is no copy of a balanced model.
        self.balanced = Balanced(self.model, split.splitters, self.balancers)

    # -- checkpoints -----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return a checkpoint's content."""
        state: dict[str, Any] = {
            "iteration": self.iteration,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "balancers": self.balanced.state_dict(),
        }
        if self.average is not None:
            state["average"] = self.average.state_dict()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's content.

        Raises:
            SpecError: where it belongs to another model or another balance section.
        """
        with resuming():
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            self.stepper.load_state_dict(state["scaler"])
            self.balanced.load_state_dict(state["balancers"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.iteration = int(state["iteration"])

    def save(self) -> None:
        """Write a checkpoint on the first rank, after all ranks have checked that it would be sound."""
        self.look()
        if self.rank == 0:
            CHECKPOINTS.save(self.job.run.checkpoints, self.state())

    def resume(self) -> None:
        """Go back to the job's checkpoint, and the records with it."""
        if self.job.checkpoint is not None:
            self.restore(CHECKPOINTS.load_newest(self.job.checkpoint, self.job.monitor.message))
        self.job.recorder.rewind(self.iteration)

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

    def _train(self, evaluate: Callable[[int], object]) -> None:
        self.resume()
        self.job.monitor.started(self.iteration, self.total, self.split.groups)
        pace = Pace(self.job.monitor, self.batch * self.processes, self.total, self.device)

        def evaluated(iteration: int) -> None:
            evaluate(iteration)
            pace.restart()

        def saved(iteration: int) -> None:
            self.save()
            pace.restart()

        every = self.schedule.checkpoint_every
        cadence = Cadence(self.job, self.total, self.iteration, every, evaluated, saved)
        self.model.train()
        batches = iter(self.loader())
        try:
            for samples in batches:
                self.run_iteration(samples, cadence.whole(self.iteration + 1))
                pace.tick(self.iteration, self.learning_rate)
                if cadence.after(self.iteration, self.learning_rate):
                    return
        finally:
            # An error's traceback holds the workers, and torch would end them by SIGTERM, which they ignore.
            getattr(batches, "_shutdown_workers", lambda: None)()

    def loader(self) -> Iterable[list[Sample]]:
        """Return the batches from here to the end."""
        flip = 0.5 if self.schedule.flip is None else self.schedule.flip
        return load_batches(
            Stream(self.job.train, self.seed, flip),
            Positions(self.iteration, self.total, self.batch, self.rank, self.processes),
            keep,
            self.schedule.workers,
            self.device,
        )

    def run_iteration(self, samples: list[Sample], whole: bool) -> None:
        """Run forward and backward; the model balances its losses itself.

        Args:
            whole: whether the optimizer steps afterwards, with what has accumulated.
        """
        self.iteration += 1
        self.learning_rate = self.optimizer.param_groups[0]["lr"]
        seed_iteration(self.seed, self.iteration, self.rank)
        images, targets = to_device(samples, self.device)
        with exchanging(self.forward, whole):
            with self.stepper.autocast():
                losses: dict[str, Tensor] = self.forward(images, targets)
            self.balanced.require_calls()
            total = reduce(torch.add, losses.values())
            total = self.guard.protect(
                self.iteration, total, self.balanced.losses, self.balanced.rest(losses)
            )
            self.stepper.backward(total)
        if whole:
            self.stepper.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
        self.scheduler.step()
        self.guard.poll()
        # On the CPU there is nothing to wait for.
        if self.device.type == "cpu" or self.iteration % LOOK_EVERY == 0:
            self.look()

    def look(self) -> None:
        """Find out, waiting for the device, whether a step was skipped, and apply the policy; see `Guard.look`."""
        self.guard.look(self.iteration, self.stepper.left_out_a_step(), explained=self.stepper.scales)
