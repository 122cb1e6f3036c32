"""The optimizer, its learning rate, and one step of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from msbal.spec.schedule import OptimizerSpec, ScheduleSpec

WARMUP_START = 1e-3
MAX_WARMUP = 500
_NEVER = 2**31 - 1


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    balancers: Iterable[nn.Parameter],
    spec: OptimizerSpec,
    device: torch.device,
) -> Optimizer:
    """The spec's optimizer.

    Args:
        parameters: of the model, those that are trained.
        balancers: those that a strategy learns; they are not decayed.
    """
    groups: list[dict[str, Any]] = [{"params": list(parameters), "weight_decay": spec.weight_decay}]
    learned = list(balancers)
    if learned:
        groups.append({"params": learned, "weight_decay": 0.0})
    # Fused on CUDA, it takes the scaler's verdict on the device, and a step waits for nothing. On the CPU a
    # fused Adam is several times faster, a fused SGD is not and rounds otherwise than the usual one.
    on_gpu = True if device.type == "cuda" else None
    if spec.name == "sgd":
        return SGD(groups, lr=spec.lr, momentum=spec.momentum, fused=on_gpu)
    adam = Adam if spec.name == "adam" else AdamW
    return adam(groups, lr=spec.lr, fused=True if device.type in ("cuda", "cpu") else None)


class LearningRate:
    """The learning rate's factor after so many iterations: a pure function, so that it resumes exactly.

    Args:
        spec: of it `warmup` (by default 500 iterations, at most a tenth of the run), `scheduler`, `decay`.
        total: iterations of the run.
    """

    def __init__(self, spec: ScheduleSpec, total: int) -> None:
        self.kind, self.total = spec.scheduler or "step", total
        self.warmup = min(MAX_WARMUP, total // 10) if spec.warmup is None else spec.warmup
        decay = (8 / 12, 11 / 12) if spec.decay is None else spec.decay
        self.milestones = [round(fraction * total) for fraction in decay]

    def __call__(self, done: int) -> float:
        """The factor for the iteration after `done` others."""
        warm = 1.0
        if done < self.warmup:
            warm = WARMUP_START + (1 - WARMUP_START) * done / self.warmup
        if self.kind == "step":
            return float(warm * 0.1 ** sum(done >= milestone for milestone in self.milestones))
        if self.kind == "cosine":
            progress = torch.tensor(min(1.0, done / max(1, self.total)), dtype=torch.float64)
            return float(warm * 0.5 * (1 + torch.cos(torch.pi * progress)))
        return warm


def make_scheduler(optimizer: Optimizer, spec: ScheduleSpec, total: int) -> LambdaLR:
    """Torch's scheduler around `LearningRate`, stepped once an iteration."""
    # So it is also before the first step, where gradients accumulate or the first is left out.
    warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)` before", UserWarning)
    return LambdaLR(optimizer, LearningRate(spec, total))


class Stepper:
    """Backward passes, and an optimizer step after every `accumulate` of them.

    A step whose gradient holds a NaN or an infinity is left out, on the device: torch's gradient scaler does
    that also where nothing needs scaling (the scale is then 1, which changes no bit).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: list[nn.Parameter],
        amp: Literal["none", "fp16", "bf16"],
        device: torch.device,
        accumulate: int = 1,
        clip_norm: float | None = None,
    ) -> None:
        self.optimizer, self.parameters = optimizer, parameters
        self.amp, self.device, self.accumulate, self.clip_norm = amp, device, accumulate, clip_norm
        self.scales = amp == "fp16"
        self.scaler = GradScaler(
            device.type,
            init_scale=2.0**16 if self.scales else 1.0,
            growth_interval=2000 if self.scales else _NEVER,
        )
        self._scale = self.scaler.get_scale()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a scaler's state."""
        self.scaler.load_state_dict(state)
        self._scale = self.scaler.get_scale()

    def autocast(self) -> AbstractContextManager[Any]:
        """Where the forward pass runs."""
        if self.amp == "none":
            return nullcontext()
        dtype = torch.float16 if self.amp == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype)

    def backward(self, total: Tensor) -> None:
        """Add one iteration's gradient."""
        if self.accumulate > 1:
            total = total / self.accumulate
        self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Step with the gradients gathered, and clear them."""
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
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
