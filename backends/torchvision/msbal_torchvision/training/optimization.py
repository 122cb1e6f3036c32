"""The optimizer and its learning rate."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from msbal.backend.kit.learning_rate import LearningRate
from msbal.spec.schedule import OptimizerSpec, ScheduleSpec


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


def make_scheduler(optimizer: Optimizer, spec: ScheduleSpec, total: int) -> LambdaLR:
    """Make torch's scheduler around `LearningRate`, stepped once an iteration."""
    # It also steps before the optimizer's first step, where gradients accumulate or that step is skipped.
    warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)` before", UserWarning)
    return LambdaLR(optimizer, LearningRate(spec, total))
