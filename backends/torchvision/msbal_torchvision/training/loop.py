"""The training loop."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from msbal.backend import Job
from msbal.backend.kit.balanced import Balanced
from msbal.backend.kit.seeding import mix
from msbal.errors import SpecError
from msbal.training.distributed import rank, world_size
from msbal.training.stream import Positions
from msbal_torchvision import checkpoints
from msbal_torchvision.pixels import Sample, Stream, keep, to_device
from msbal_torchvision.training.guard import Guard
from msbal_torchvision.training.optimization import Stepper, make_optimizer, make_scheduler
from msbal_torchvision.training.pace import Pace

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
        self.total = detector.iterations(len(job.train))
        self.iteration = 0

        self.balancers = job.balancers.to(self.device)
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        learned = list(self.balancers.parameters())
        self.optimizer = make_optimizer(parameters, learned, self.schedule.optimizer, self.device)
        self.scheduler = make_scheduler(self.optimizer, self.schedule, self.total)
        self.stepper = Stepper(
            self.optimizer,
            [*parameters, *learned],
            self.schedule.amp,
            self.device,
            self.schedule.accumulate,
            self.schedule.clip_norm,
        )
        self.learned = learned
        self.average: AveragedModel | None = None
        if self.schedule.ema is not None:
            ema = get_ema_multi_avg_fn(self.schedule.ema)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(self.model, multi_avg_fn=ema, use_buffers=True)
        detector.average = None if self.average is None else self.average.module
        self.guard = Guard(
            job.spec.balance.on_nonfinite, detector.groups, self.rank, self.processes, job.monitor.message
        )
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
        """Write a checkpoint, on the first rank, after all records up to it."""
        self.job.recorder.flush()
        # The ranks' own losses of an unfinished interval; a collective.
        self.balanced.synchronize()
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

    @property
    def whole(self) -> bool:
        """Whether no gradient waits for its step, so that a checkpoint here resumes exactly."""
        return self.iteration % self.schedule.accumulate == 0 or self.iteration == self.total

    def run_iteration(self, samples: list[Sample]) -> None:
        """Forward, backward, and a step where one is due; the model balances its losses itself."""
        self.iteration += 1
        # What samplers and drop-outs draw is a function of (seed, iteration, rank): there is no random
        # state to save, and runs with other strategies draw the same.
        torch.manual_seed(mix("step", self.seed, self.iteration, self.rank))
        images, targets = to_device(samples, self.device)
        with self._synchronisation():
            with self.stepper.autocast():
                losses: dict[str, Tensor] = self.forward(images, targets)
            self.balanced.require_calls()
            total = reduce(torch.add, losses.values())
            total = self.guard.protect(
                self.iteration, total, self.balanced.losses, self.detector.rest(losses)
            )
            self.stepper.backward(total)
        if self.whole:
            self._average_learned()
            self.stepper.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
        self.scheduler.step()
        self.guard.poll()
        # On the CPU nothing has to be waited for.
        if self.device.type == "cpu" or self.iteration % LOOK_EVERY == 0:
            self.look()

    def _synchronisation(self) -> AbstractContextManager[Any]:
        if isinstance(self.forward, DistributedDataParallel) and not self.whole:
            return self.forward.no_sync()
        return nullcontext()

    def _average_learned(self) -> None:
        """Average over ranks the gradients of what a strategy learns, which the wrapper does not see."""
        if self.processes > 1:
            for parameter in self.learned:
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= self.processes

    def look(self) -> None:
        """Find out, waiting for the device, whether a step was left out, and deal with it; see `Guard.look`."""
        unexplained = "" if self.stepper.scales else "the gradient of a finite loss is not finite"
        self.guard.look(self.iteration, self.stepper.left_out_a_step(), unexplained)


def train(detector: TorchvisionDetector, job: Job) -> None:
    """Train to the end, or until asked to stop; see `msbal.backend.Detector.train`."""
    trainer = Trainer(detector, job)
    try:
        _run(trainer)
    finally:
        trainer.balanced.remove()


def _run(trainer: Trainer) -> None:
    detector, job = trainer.detector, trainer.job
    trainer.resume()
    total, recorder, monitor = trainer.total, job.recorder, job.monitor
    monitor.started(trainer.iteration, total, detector.groups)
    pace = Pace(monitor, trainer.batch * trainer.processes, total, trainer.device)
    every = job.spec.schedule.checkpoint_every
    evaluate_every = job.spec.evaluate.every
    saved = trainer.iteration
    trainer.model.train()
    for samples in trainer.loader():
        trainer.run_iteration(samples)
        recorder.step(trainer.iteration)
        pace.tick(trainer.iteration, trainer.optimizer.param_groups[0]["lr"])
        at_end = trainer.iteration == total
        if (
            job.evaluate is not None
            and evaluate_every
            and trainer.iteration % evaluate_every == 0
            and not at_end
        ):
            # Before the checkpoint: a run killed in between evaluates again, and misses nothing.
            recorder.flush()
            job.evaluate(detector, trainer.iteration)
            pace.restart()
        # Asked by all ranks in every iteration, as they have to agree.
        stop = job.stop_requested()
        due = every is not None and trainer.iteration // every > saved // every
        if trainer.whole and (stop or at_end or due):
            trainer.look()
            trainer.save()
            saved = trainer.iteration
            pace.restart()
            if stop:
                return
