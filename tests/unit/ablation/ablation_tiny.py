"""The smallest run spec, and a grid monitor that keeps what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BASE: dict[str, Any] = {
    "backend": "torchvision",
    "model": {
        "name": "retinanet", "backbone": "resnet18", "min_size": 64, "max_size": 64, "norm": "gn",
        "fpn_channels": 8, "head_convs": 1,
    },
    "data": {"format": "generated", "size": 64, "train_images": 4, "val_images": 2},
    "schedule": {
        "iterations": 4, "batch_size": 1, "workers": 0, "checkpoint_every": 2,
        "optimizer": {"name": "sgd", "lr": 0.001},
    },
    "balance": {"strategy": "rlo", "interval": 2, "amplification": 2.0},
    "device": "cpu",
}  # fmt: skip


class Watcher:
    """See `msbal.ui.grid.GridMonitor`."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, int], list[str]] = {}
        self.messages: list[str] = []

    def planned(self, arms: Sequence[str], seeds: Sequence[int]) -> None:
        self.states = {(arm, seed): [] for arm in arms for seed in seeds}

    def updated(self, arm: str, seed: int, state: str, **rest: Any) -> None:
        self.states[arm, seed].append(state)

    def message(self, text: str) -> None:
        self.messages.append(text)

    def close(self) -> None:
        pass
