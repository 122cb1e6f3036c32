"""detectron2's SimpleTrainer with what the spec asks for beyond it: accumulation, clipping, any precision.

One iteration is one forward pass. What chance does in it (the sampling of anchors and RoIs) follows from the
seed, the process and the iteration alone, so that a resumed run, and one with another strategy, samples alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from msbal.errors import RunError
from msbal.spec import ScheduleSpec
from msbal.training.distributed import rank, world_size
from msbal_detectron2.balancing import Balancing
from msbal_detectron2.data import mix

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Trainer(SimpleTrainer):
    """Trains a balanced model by the spec's schedule.

    Args:
        model: wrapped in DistributedDataParallel or not.
        data_loader: one batch an iteration.
        balancing: installed on `model`.
        schedule: the spec's.
        skip_nonfinite: pass over a step whose loss is NaN or infinite, rather than stop.
        seed: the run's.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        balancing: Balancing,
        schedule: ScheduleSpec,
        skip_nonfinite: bool,
        seed: int,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self.balancing, self.schedule, self.seed = balancing, schedule, seed
        self.skip_nonfinite, self.stop_requested = skip_nonfinite, False
        self.device = next(model.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=schedule.amp == "fp16")
        self.average = WeightAverage(balancing.model, schedule.ema) if schedule.ema else None

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

    def run_step(self) -> None:
        """One forward and backward pass, and an optimizer step where one is due."""
        started = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - started
        torch.manual_seed(mix("step", self.seed, rank(), self.iter))

        accumulate = self.schedule.accumulate
        first = self.iter % accumulate == 0
        due = (self.iter + 1) % accumulate == 0 or self.iter + 1 == self.max_iter
        if first or self.iter == self.start_iter:
            self.optimizer.zero_grad()
        with self._sync(due):
            with self._autocast():
                losses = self.model(data)
                total = sum(losses.values())
            self.scaler.scale(total / accumulate).backward()
        if self._finite(total, losses):
            self.storage.put_scalar("data_time", data_time)
            self.storage.put_scalar("total_loss", float(total.detach()))
            if due:
                self._step()
        else:
            self.optimizer.zero_grad()

    def _step(self) -> None:
        if self.schedule.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.schedule.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update()

    def _sync(self, due: bool) -> AbstractContextManager[Any]:
        """Exchange gradients between processes only where a step follows."""
        if due or not isinstance(self.model, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()  # type: ignore[no-any-return]

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.schedule.amp == "none":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.schedule.amp])

    def _finite(self, total: Tensor, losses: Mapping[str, Tensor]) -> bool:
        """Whether the step may be taken; all processes agree. Waits for the forward pass, as detectron2 does.

        Raises:
            RunError: naming the loss, unless such steps are to be skipped.
        """
        finite = torch.isfinite(total.detach()).to(torch.int32)
        if world_size() > 1:
            dist.all_reduce(finite, dist.ReduceOp.MIN)
        if bool(finite):
            return True
        if self.skip_nonfinite:
            return False
        assert self.balancing.balancers is not None
        found = [
            f"the {item.term} loss of {item.level} is {item.value} (rank {item.rank})"
            for item in self.balancing.balancers.nonfinite()
        ]
        found += [
            f"{name} is {float(loss.detach())} (rank {rank()})"
            for name, loss in losses.items()
            if not torch.isfinite(loss.detach())
        ]
        raise RunError(
            f"iteration {self.iter + 1}",
            found[0] if found else "a loss of another process is NaN or infinite",
            fix="lower schedule.optimizer.lr, clip with schedule.clip_norm, or set balance.on_nonfinite: skip",
        )

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
