"""Optimizer steps: precision, accumulation, clipping, skipped steps, averaged weights, a strategy's parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from msbal.engine.processes import world_size

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_NEVER = 2**31 - 1


class Stepper:
    """An optimizer step after every `accumulate` backward passes.

    A step whose gradient holds a NaN or an infinity is skipped on the device. torch's gradient scaler does this even
    where nothing needs scaling: the scale is then 1, which changes no bit.

    Args:
        learned: the strategy's parameters, which the optimizer has already; their gradients are averaged over ranks.

    Attributes:
        scaler: part of a checkpoint; see `load_state_dict`.
        scales: whether the loss is scaled. The scaler then skips a step now and then although all is well.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        amp: Literal["none", "fp16", "bf16"],
        device: torch.device,
        accumulate: int = 1,
        clip_norm: float | None = None,
        learned: Iterable[nn.Parameter] = (),
    ) -> None:
        self.optimizer, self.amp, self.device = optimizer, amp, device
        self.accumulate, self.clip_norm, self.learned = accumulate, clip_norm, list(learned)
        self.scales = amp == "fp16"
        self.scaler = GradScaler(
            device.type,
            init_scale=2.0**16 if self.scales else 1.0,
            growth_interval=2000 if self.scales else _NEVER,
        )
        self._scale = self.scaler.get_scale()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of a `scaler`."""
        self.scaler.load_state_dict(state)
        self._scale = self.scaler.get_scale()

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context for the forward pass."""
        if self.amp == "none":
            return nullcontext()
        return torch.autocast(self.device.type, _DTYPES[self.amp])

    def backward(self, total: Tensor) -> None:
        """Add one iteration's gradient."""
        if self.accumulate > 1:
            total = total / self.accumulate
        self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Step with the accumulated gradients, then clear them."""
        average_gradients(self.learned)
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def left_out_a_step(self) -> bool:
        """Return whether a step has been skipped since the last call. Waits for the device."""
        before, now = self._scale, self.scaler.get_scale()
        if not self.scales and now != before:
            self.scaler.update(before)
            return True
        self._scale = now
        return now < before


def exchanging(model: nn.Module, due: bool) -> AbstractContextManager[Any]:
    """Return the context for a backward pass, in which processes exchange gradients only if a step is due."""
    if due or not isinstance(model, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return model.no_sync()


def make_average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """Return an exponential moving average of a model's weights and buffers, by the spec's ``schedule.ema``.

    Args:
        decay: the share of the average that a step keeps; None for no average.
    """
    if decay is None:
        return None
    ema = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=ema, use_buffers=True)


def add_learned(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> dict[str, Any] | None:
    """Add a strategy's parameters to an optimizer, at its own learning rate and without weight decay.

    Call it before a scheduler is made: a scheduler keeps the groups that it finds.

    Args:
        parameters: all of `BalancerSet.parameters`; most strategies have none.

    Returns:
        the optimizer's new group; None where there are no parameters.
    """
    if not parameters:
        return None
    optimizer.add_param_group({"params": list(parameters), "weight_decay": 0.0})
    group: dict[str, Any] = optimizer.param_groups[-1]
    return group


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Average the gradients of a strategy's parameters over all ranks: DistributedDataParallel does not know them.

    A collective: call it on all ranks, after the last backward pass of a step and before anything reads the gradients.
    """
    count = world_size()
    if count == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= count
