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
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from msbal.backend.kit.balanced import Balanced
from msbal.backend.kit.nonfinite import (
    UNEXPLAINED,
    OnNonFinite,
    Sighting,
    name_losses,
    of_all_ranks,
    poisoned,
)
from msbal.backend.kit.seeding import seed_iteration
from msbal.backend.kit.steps import Stepper
from msbal.engine.processes import rank
from msbal.spec import ScheduleSpec


class Trainer(SimpleTrainer):  # type: ignore[misc]
    """Trains a balanced model by the spec's schedule.

    A step of which any loss or gradient is NaN or infinite never reaches the weights: the run stops, or leaves
    the whole step out, the gradients accumulated for it included.

    Args:
        model: wrapped in DistributedDataParallel or not.
        data_loader: one batch an iteration.
        balanced: the model; what its strategy learns is in the optimizer.
        schedule: the spec's.
        on_nonfinite: told of steps that are left out.
        seed: the run's.
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
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self.balanced, self.schedule, self.seed = balanced, schedule, seed
        self.on_nonfinite, self.stop_requested = on_nonfinite, False
        self.stepper = Stepper(
            optimizer,
            schedule.amp,
            next(model.parameters()).device,
            schedule.accumulate,
            schedule.clip_norm,
            balanced.parameters(),
        )
        self.average = WeightAverage(balanced.model, schedule.ema) if schedule.ema else None
        self._seen: list[Sighting] = []

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
        self.storage.put_scalar("data_time", time.perf_counter() - started)
        done = self.iter + 1
        seed_iteration(self.seed, done, rank())
        if self.iter == self.start_iter:
            self.optimizer.zero_grad()
        due = done % self.schedule.accumulate == 0 or done == self.max_iter
        with self._sync(due):
            with self.stepper.autocast():
                losses = self.model(data)
                total = sum(losses.values())
            self.stepper.backward(poisoned(total))
        if torch.isfinite(total.detach()):
            self.storage.put_scalar("total_loss", float(total.detach()))
        else:
            self._seen.append(Sighting(done, rank(), self._names(losses)))
        if due:
            self._step(done)

    def _step(self, done: int) -> None:
        self.stepper.step()
        if self.stepper.left_out_a_step():
            # On all ranks alike, as they average their gradients.
            seen, self._seen = of_all_ranks(self._seen), []
            if not seen and not self.stepper.scales:
                seen = [Sighting(done, rank(), UNEXPLAINED)]
            self.on_nonfinite.deal(seen)
        elif self.average is not None:
            self.average.update()

    def _sync(self, due: bool) -> AbstractContextManager[Any]:
        """Exchange gradients between processes only where a step follows."""
        if due or not isinstance(self.model, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()

    def _names(self, losses: Mapping[str, Tensor]) -> str:
        split = {key for splitter in self.balanced.splitters for key in splitter.keys}
        rest = {key: loss for key, loss in losses.items() if key not in split}
        return name_losses(self.balanced.groups, self.balanced.losses, rest)

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks (the learning rate's), optimizer, scaler."""
        state: dict[str, Any] = super().state_dict()
        state["scaler"] = self.stepper.scaler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        super().load_state_dict(state)
        self.stepper.load_state_dict(state["scaler"])


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
