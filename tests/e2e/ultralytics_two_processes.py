"""A trainer of ultralytics' that its own launcher starts in two processes, on the CPU, where it would ask for GPUs."""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOCAL_RANK, RANK

from msbal_ultralytics import balanced_of


class OnCpu(nn.parallel.DistributedDataParallel):
    def __init__(self, module: nn.Module, device_ids: Any = None, **options: Any) -> None:
        super().__init__(module, **options)


class TwoProcesses(DetectionTrainer):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.world_size, self.ddp = 2, LOCAL_RANK == -1

    def _setup_ddp(self) -> None:
        torch.set_num_threads(1)
        nn.parallel.DistributedDataParallel = OnCpu  # type: ignore[misc]
        dist.init_process_group("gloo", rank=RANK, world_size=2)

    def final_eval(self) -> None:
        """Validates best.pt, in a process group on GPUs only."""


def write_down(trainer: Any) -> None:
    """A callback: what this process holds."""
    balanced = balanced_of(trainer.model)
    weights = {} if balanced is None else {
        name: balancer.weights.tolist() for name, balancer in balanced.balancers.balancers.items()
    }  # fmt: skip
    (trainer.save_dir / f"rank{RANK}-{trainer.epoch}.json").write_text(json.dumps(weights))


def stop(trainer: Any) -> None:
    """A callback: stands for a kill of all processes."""
    if trainer.epoch == 1:
        raise KeyboardInterrupt
