"""The torchvision backend keeps the contract."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")

import torchvision
from finite_differences import FiniteDifferences
from left_out import LeftOut
from odd_images import OddImages
from tiny_backbone import TinyResNet

from msbal.testing.backends import BackendContract


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads, losses and training are torchvision's own; its ResNet-18 would take more than half of the time."""
    monkeypatch.setattr(torchvision.models, "resnet18", TinyResNet)


def small(name: str, **model: Any) -> dict[str, Any]:
    return {
        "backend": "torchvision",
        "model": {"name": name, "backbone": "resnet18", "min_size": 128, "max_size": 128, **model},
        "schedule": {"batch_size": 2},
    }


class TestTorchvision(BackendContract):
    cases: ClassVar[dict[str, dict[str, Any]]] = {
        "retinanet": small("retinanet", fpn_channels=16),
        "fcos": small("fcos", fpn_channels=16),
        "fasterrcnn": small("fasterrcnn", fpn_channels=16),
        "fasterrcnn-roi": {
            # Those that `min_size` gives would match the contract's small boxes on the middle level.
            **small("fasterrcnn", fpn_channels=16, anchor_sizes=[16, 32, 64, 128, 256]),
            "balance": {"strategy": "equal", "interval": 2, "scope": ["rpn", "roi"]},
        },
        "ssd": small("ssd", fpn_channels=16),
    }
    refused: ClassVar[dict[str, tuple[dict[str, Any], str]]] = {
        "unknown scope": (
            {**small("fasterrcnn"), "balance": {"strategy": "equal", "interval": 2, "scope": ["neck"]}},
            "scope",
        ),
        "scope of one head": (
            {**small("retinanet"), "balance": {"strategy": "equal", "interval": 2, "scope": ["rpn"]}},
            "scope",
        ),
        "top_k": ({**small("retinanet"), "balance": {"strategy": "avw", "interval": 2, "top_k": 5}}, "top_k"),
    }
    trained = ("retinanet", "fasterrcnn-roi")


class TestImages(OddImages):
    case: ClassVar = small("retinanet", fpn_channels=16)
    turns_all: ClassVar = False

    def unpack(self, batch: Any) -> tuple[Any, Any]:
        images, targets = batch
        return images[0].permute(1, 2, 0).numpy() * 255, targets[0]["boxes"].numpy()


class TestFiniteDifferences(FiniteDifferences):
    case: ClassVar = TestImages.case


class TestLeftOut(LeftOut):
    case: ClassVar = TestImages.case
    unpack = TestImages.unpack
    said = "shop: 1 of 5 images have no boxes: they are trained on as background"
    used = 5
