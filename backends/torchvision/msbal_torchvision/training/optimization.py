"""The optimizer and its learning rate."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from msbal.spec.schedule import OptimizerSpec, ScheduleSpec

WARMUP_START = 1e-3
MAX_WARMUP = 500


def make_optimizer(
    parameters: Iterable[nn.Parameter], spec: OptimizerSpec, device: torch.device
) -> Optimizer:
    """Make the spec's optimizer for the trained parameters."""
    # Fused on CUDA, it takes the scaler's verdict on the device, so that a step waits for nothing. On a CPU a fused
    # Adam is several times faster; a fused SGD is not, and rounds differently from the usual one.
    on_gpu = True if device.type == "cuda" else None
    if spec.name == "sgd":
        return SGD(
            parameters, lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=on_gpu
        )
    adam = Adam if spec.name == "adam" else AdamW
    fused = True if device.type in ("cuda", "cpu") else None
    return adam(parameters, lr=spec.lr, weight_decay=spec.weight_decay, fused=fused)


class LearningRate:
    """The learning rate's factor, a pure function of the iteration, so that it resumes exactly.

    Args:
        spec: its `warmup` (by default 500 iterations, at most a tenth of the run), `scheduler` and `decay` are used.
        total: iterations of the run.
    """

    def __init__(self, spec: ScheduleSpec, total: int) -> None:
        self.kind, self.total = spec.scheduler or "step", total
        self.warmup = min(MAX_WARMUP, total // 10) if spec.warmup is None else spec.warmup
        decay = (8 / 12, 11 / 12) if spec.decay is None else spec.decay
        self.milestones = [round(fraction * total) for fraction in decay]

    def __call__(self, done: int) -> float:
        """Return the factor for the iteration after `done` others."""
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
    """Make torch's scheduler around `LearningRate`, stepped once an iteration."""
    # It also steps before the optimizer's first step, where gradients accumulate or that step is skipped.
    warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)` before", UserWarning)
    return LambdaLR(optimizer, LearningRate(spec, total))
