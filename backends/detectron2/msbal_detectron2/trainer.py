"""detectron2's SimpleTrainer with what the spec asks for beyond it: accumulation, clipping, any precision.

One iteration is one forward pass. What chance does in it (the sampling of anchors and RoIs) follows from the
seed, the process and the iteration alone, so that a resumed run, and one with another strategy, samples alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from msbal.backend.kit.balanced import Balanced
from msbal.errors import RunError
from msbal.spec import ScheduleSpec
from msbal.training.distributed import rank, world_size
from msbal.training.stream import mix

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_NEVER = 2**31 - 1
_MOST_MESSAGES = 10
_REMEDY = (
    "lower schedule.optimizer.lr or set schedule.clip_norm; balance.on_nonfinite=skip leaves such steps out. "
    "The weights are still those of the step before"
)


class Trainer(SimpleTrainer):  # type: ignore[misc]
    """Trains a balanced model by the spec's schedule.

    A step of which any loss or gradient is NaN or infinite never reaches the weights: the run stops, or leaves
    the whole step out, the gradients accumulated for it included.

    Args:
        model: wrapped in DistributedDataParallel or not.
        data_loader: one batch an iteration.
        balanced: the model.
        schedule: the spec's.
        skip_nonfinite: leave such steps out, rather than stop.
        seed: the run's.
        say: told of each step left out.

    Raises:
        SpecError: for a precision that the device lacks.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        balanced: Balanced,
        schedule: ScheduleSpec,
        skip_nonfinite: bool,
        seed: int,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self.balanced, self.schedule, self.seed, self.say = balanced, schedule, seed, say
        self.skip_nonfinite, self.stop_requested = skip_nonfinite, False
        self.device = next(model.parameters()).device
        self._scales = schedule.amp == "fp16"
        # Where nothing needs scaling the scale is 1, which changes no bit; what remains is that it leaves out
        # a step whose gradient is not finite.
        self.scaler = GradScaler(
            self.device.type,
            init_scale=2.0**16 if self._scales else 1.0,
            growth_interval=2000 if self._scales else _NEVER,
        )
        self.average = WeightAverage(balanced.model, schedule.ema) if schedule.ema else None
        self._spoilt = False
        self._said = 0

    def train(self, start_iter: int, max_iter: int) -> None:
        """As ``TrainerBase.train``, but it can be asked to stop, and its errors are msbal's to show."""
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

    def whole(self, done: int) -> bool:
        """Whether after `done` iterations no gradient waits for its step: a checkpoint then resumes exactly."""
        return done % self.schedule.accumulate == 0 or done == self.max_iter

    def run_step(self) -> None:
        """One forward and backward pass, and an optimizer step where one is due."""
        started = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - started
        torch.manual_seed(mix("step", self.seed, rank(), self.iter))

        due = self.whole(self.iter + 1)
        if self.whole(self.iter) or self.iter == self.start_iter:
            self.optimizer.zero_grad()
            self._spoilt = False
        with self._sync(due):
            with self._autocast():
                losses = self.model(data)
                total = sum(losses.values())
            self.scaler.scale(total / self.schedule.accumulate).backward()
        found = self._nonfinite(total, losses)
        if found:
            self._spoilt = True
            self._leave_out(found)
        else:
            self.storage.put_scalar("total_loss", float(total.detach()))
        self.storage.put_scalar("data_time", data_time)
        if due and not self._spoilt:
            self._step()

    def _step(self) -> None:
        if self.schedule.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.schedule.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if not self._scales and self.scaler.get_scale() != 1.0:
            self.scaler.update(1.0)
            self._leave_out([(rank(), "the gradient of a finite loss is not finite")])
        elif self.average is not None:
            self.average.update()

    def _sync(self, due: bool) -> AbstractContextManager[Any]:
        """Exchange gradients between processes only where a step follows."""
        if due or not isinstance(self.model, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.schedule.amp == "none":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.schedule.amp])

    def _nonfinite(self, total: Tensor, losses: Mapping[str, Tensor]) -> list[tuple[int, str]]:
        """The ranks on which a loss is not finite, and the names of the losses; the same on all ranks.

        Waits for the forward pass, as detectron2 does.
        """
        finite = torch.isfinite(total.detach()).to(torch.int32)
        if world_size() > 1:
            dist.all_reduce(finite, dist.ReduceOp.MIN)
        if bool(finite):
            return []
        mine = [] if bool(torch.isfinite(total.detach())) else [(rank(), self._names(losses))]
        if world_size() == 1:
            return mine
        everyones: list[Any] = [None] * world_size()
        dist.all_gather_object(everyones, mine)
        return [found for part in everyones for found in part]

    def _names(self, losses: Mapping[str, Tensor]) -> str:
        """``the loss P5/cls is nan``; this rank's, of this iteration."""
        found = []
        for name, balancer in self.balanced.balancers.balancers.items():
            prefix = f"{name.partition(':')[0]} " if len(self.balanced.groups) > 1 else ""
            found += [f"{prefix}{item.level}/{item.term} is {item.value}" for item in balancer.nonfinite()]
        balanced = {key for splitter in self.balanced.splitters for key in splitter.keys}
        found += [
            f"{key} is {float(loss.detach())}"
            for key, loss in losses.items()
            if key not in balanced and not torch.isfinite(loss.detach())
        ]
        return "the loss " + (", ".join(found) or "summed over the levels is not finite")

    def _leave_out(self, found: Sequence[tuple[int, str]]) -> None:
        """Say which step is left out and why.

        Raises:
            RunError: where the run is to stop instead.
        """
        where = f"iteration {self.iter + 1}, rank {found[0][0]}"
        what = found[0][1] + "".join(f"; rank {other}: {text}" for other, text in found[1:])
        if not self.skip_nonfinite:
            raise RunError(where, what, "finite numbers", _REMEDY)
        self._said += 1
        if self._said <= _MOST_MESSAGES:
            last = " (further ones are only recorded)" if self._said == _MOST_MESSAGES else ""
            self.say(f"step left out: {where}: {what}{last}")

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks (the learning rate's), optimizer, scaler."""
        state: dict[str, Any] = super().state_dict()
        state["scaler"] = self.scaler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        super().load_state_dict(state)
        self.scaler.load_state_dict(state["scaler"])


class WeightAverage:
    """An exponential moving average of a model's weights, kept beside it.

    Args:
        decay: share of the average that a step keeps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self._average = {name: value.detach().clone() for name, value in self._tensors().items()}

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in self._model.state_dict().items() if value.is_floating_point()}

    @torch.no_grad()
    def update(self) -> None:
        """Take a step's weights in."""
        own = self._tensors()
        torch._foreach_lerp_(
            list(self._average.values()), [own[name] for name in self._average], 1 - self._decay
        )

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and the average; again to put them back."""
        for name, value in self._tensors().items():
            kept = value.clone()
            value.copy_(self._average[name])
            self._average[name].copy_(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """The average, by the model's names."""
        return dict(self._average)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore `state_dict`."""
        for name, value in self._average.items():
            value.copy_(state[name])
