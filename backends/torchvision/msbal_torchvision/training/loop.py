"""The training loop."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from msbal.backend import Job
from msbal.backend.kit.balanced import Balanced
from msbal.backend.kit.cadence import Cadence, Pace
from msbal.backend.kit.nonfinite import UNEXPLAINED, OnNonFinite
from msbal.backend.kit.seeding import seed_iteration
from msbal.backend.kit.steps import Stepper, add_learned
from msbal.errors import SpecError
from msbal.training.distributed import rank, world_size
from msbal.training.stream import Positions
from msbal_torchvision import checkpoints
from msbal_torchvision.pixels import Sample, Stream, keep, to_device
from msbal_torchvision.training.guard import Guard
from msbal_torchvision.training.optimization import make_optimizer, make_scheduler

if TYPE_CHECKING:
    from msbal_torchvision.detector import TorchvisionDetector

DEFAULT_WORKERS = 4  # with a GPU; beside a model that trains on the CPU, other processes only take its cores

LOOK_EVERY = (
    100  # iterations, on a GPU, between looks at what the steps found; far less than the scale grows in
)


def _outlive_signals(worker: int) -> None:
    """A scheduler's SIGTERM reaches all processes: those that load go on until the training has stopped."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class Trainer:
    """One run's state: everything that a checkpoint holds, and the way of one iteration."""

    def __init__(self, detector: TorchvisionDetector, job: Job) -> None:
        self.detector, self.job = detector, job
        self.model, self.device = detector.model, detector.device
        self.schedule, self.seed = job.spec.schedule, job.spec.seed
        if self.schedule.optimizer is None or self.schedule.batch_size is None:
            raise SpecError("schedule", "no optimizer or batch_size", "both, where torchvision trains")
        self.rank, self.processes = rank(), world_size()
        self.batch = self.schedule.batch_size
        self.total = detector.iterations(job.train)
        self.iteration = 0

        self.balancers = job.balancers.to(self.device)
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        learned = list(self.balancers.parameters())
        self.optimizer = make_optimizer(parameters, self.schedule.optimizer, self.device)
        add_learned(self.optimizer, learned)
        self.scheduler = make_scheduler(self.optimizer, self.schedule, self.total)
        self.stepper = Stepper(
            self.optimizer, self.schedule.amp, self.device, self.schedule.accumulate, self.schedule.clip_norm, learned
        )  # fmt: skip
        self.average: AveragedModel | None = None
        if self.schedule.ema is not None:
            ema = get_ema_multi_avg_fn(self.schedule.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(self.model, multi_avg_fn=ema, use_buffers=True)
        detector.average = None if self.average is None else self.average.module
        self.guard = Guard(OnNonFinite(job.spec.balance.on_nonfinite, job.monitor.message), detector.groups)
        self.forward: nn.Module = self.model
        if self.processes > 1:
            self.forward = DistributedDataParallel(
                self.model, device_ids=[self.device] if self.device.type == "cuda" else None
            )
        # At last: nothing can fail any more, and the average was no balanced model's copy.
        self.balanced = Balanced(self.model, detector.splitters, self.balancers)

    # -- checkpoints -----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """A checkpoint's content."""
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
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            self.stepper.load_state_dict(state["scaler"])
            self.balanced.load_state_dict(state["balancers"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.iteration = int(state["iteration"])
        except Exception as error:
            # A file that is whole may hold anything: torch's own loading then fails in any way.
            raise SpecError(
                "--resume",
                f"the checkpoint does not fit the spec: {str(error)[:300]}",
                "the spec that the run was started with",
                "leave the spec as it was, or start anew with --force",
            ) from error

    def save(self) -> None:
        """Write a checkpoint, on the first rank; all ranks look first whether it would be a sound one."""
        self.look()
        if self.rank == 0:
            checkpoints.save(self.job.run.checkpoints, self.state())

    def resume(self) -> None:
        """Go back to the job's checkpoint, and its records with it."""
        if self.job.checkpoint is not None:
            self.restore(checkpoints.load_newest(self.job.checkpoint, self.job.monitor.message))
        self.job.recorder.rewind(self.iteration)

    # -- iterations ------------------------------------------------------------------------------

    def loader(self) -> DataLoader[Sample]:
        """The batches from here to the end."""
        workers = self.schedule.workers
        if workers is None:
            workers = DEFAULT_WORKERS if self.device.type == "cuda" else 0
        flip = 0.5 if self.schedule.flip is None else self.schedule.flip
        return DataLoader(
            Stream(self.job.train, self.seed, flip),
            batch_sampler=Positions(self.iteration, self.total, self.batch, self.rank, self.processes),
            num_workers=workers,
            worker_init_fn=_outlive_signals,
            collate_fn=keep,
            pin_memory=self.device.type == "cuda",
            # Its draws decide nothing; without one of its own it would draw from the global generator.
            generator=torch.Generator(),
        )

    def run_iteration(self, samples: list[Sample], whole: bool) -> None:
        """Forward and backward; the model balances its losses itself.

        Args:
            whole: whether the optimizer steps afterwards, with what has accumulated.
        """
        self.iteration += 1
        seed_iteration(self.seed, self.iteration, self.rank)
        images, targets = to_device(samples, self.device)
        with self._synchronisation(whole):
            with self.stepper.autocast():
                losses: dict[str, Tensor] = self.forward(images, targets)
            self.balanced.require_calls()
            total = reduce(torch.add, losses.values())
            total = self.guard.protect(
                self.iteration, total, self.balanced.losses, self.detector.rest(losses)
            )
            self.stepper.backward(total)
        if whole:
            self.stepper.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
        self.scheduler.step()
        self.guard.poll()
        # On the CPU nothing has to be waited for.
        if self.device.type == "cpu" or self.iteration % LOOK_EVERY == 0:
            self.look()

    def _synchronisation(self, whole: bool) -> AbstractContextManager[Any]:
        if isinstance(self.forward, DistributedDataParallel) and not whole:
            return self.forward.no_sync()
        return nullcontext()

    def look(self) -> None:
        """Find out, waiting for the device, whether a step was left out, and deal with it; see `Guard.look`."""
        unexplained = "" if self.stepper.scales else UNEXPLAINED
        self.guard.look(self.iteration, self.stepper.left_out_a_step(), unexplained)


def train(detector: TorchvisionDetector, job: Job) -> None:
    """Train to the end, or until asked to stop; see `msbal.backend.Detector.train`."""
    trainer = Trainer(detector, job)
    try:
        _run(trainer)
    finally:
        trainer.balanced.remove()


def _run(trainer: Trainer) -> None:
    detector, job, total = trainer.detector, trainer.job, trainer.total
    trainer.resume()
    job.monitor.started(trainer.iteration, total, detector.groups)
    pace = Pace(job.monitor, trainer.batch * trainer.processes, total, trainer.device)

    def evaluate(iteration: int) -> None:
        if job.evaluate is not None:
            job.evaluate(detector, iteration)
        pace.restart()

    def save(iteration: int) -> None:
        trainer.save()
        pace.restart()

    every = job.spec.schedule.checkpoint_every
    cadence = Cadence(job, total, trainer.iteration, every, evaluate, save)
    trainer.model.train()
    batches = iter(trainer.loader())
    try:
        for samples in batches:
            trainer.run_iteration(samples, cadence.whole(trainer.iteration + 1))
            pace.tick(trainer.iteration, trainer.optimizer.param_groups[0]["lr"])
            if cadence.after(trainer.iteration):
                return
    finally:
        # Held by an error's traceback, torch would end its processes by SIGTERM, which these outlive.
        getattr(batches, "_shutdown_workers", lambda: None)()
