"""Backward passes and optimizer steps: mixed precision, accumulation, clipping, and steps that are left out."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from msbal.backend.kit.learned import average_gradients

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_NEVER = 2**31 - 1


class Stepper:
    """An optimizer step after every `accumulate` backward passes.

    A step whose gradient holds a NaN or an infinity is left out, on the device: torch's gradient scaler does
    that also where nothing needs scaling (the scale is then 1, which changes no bit).

    Args:
        learned: a strategy's parameters, which are in the optimizer; their gradients are averaged over ranks.

    Attributes:
        scaler: part of a checkpoint; see `load_state_dict`.
        scales: whether the loss is scaled, so that steps are left out now and then where all is well.
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
        """Go on with the state of a `scaler`."""
        self.scaler.load_state_dict(state)
        self._scale = self.scaler.get_scale()

    def autocast(self) -> AbstractContextManager[Any]:
        """Where the forward pass runs."""
        if self.amp == "none":
            return nullcontext()
        return torch.autocast(self.device.type, _DTYPES[self.amp])

    def backward(self, total: Tensor) -> None:
        """Add one iteration's gradient."""
        if self.accumulate > 1:
            total = total / self.accumulate
        self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Step with the gradients gathered, and clear them."""
        average_gradients(self.learned)
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def left_out_a_step(self) -> bool:
        """Whether a gradient since the last call was not finite. Waits for the device."""
        before, now = self._scale, self.scaler.get_scale()
        if not self.scales and now != before:
            self.scaler.update(before)
            now = before
            return True
        self._scale = now
        return now < before
