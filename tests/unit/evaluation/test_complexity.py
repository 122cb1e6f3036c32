from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from msbal.data import DetectionData
from msbal.evaluation.complexity import balancing_cost, count, detector_complexity


def test_one_convolution_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 5)
    )  # fmt: skip
    for parameter in model[1].parameters():
        parameter.requires_grad = False
    found = count(model.eval(), lambda: model(torch.zeros(1, 3, 8, 8)))
    assert found.input == (1, 3, 8, 8)
    assert found.multiply_adds == 3 * 8 * 9 * 64 + 128 * 5
    assert found.operations == 2 * found.multiply_adds
    # bias, normalisation, activation, pooling
    assert found.other == 8 * 64 + 2 * 8 * 64 + 8 * 64 + 8 * 64
    assert found.as_mmdetection == found.multiply_adds + found.other
    assert (found.parameters, found.trainable) == (
        3 * 8 * 9 + 8 + 16 + 128 * 5 + 5,
        3 * 8 * 9 + 8 + 128 * 5 + 5,
    )


def test_no_hook_stays() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())

    def fails() -> None:
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        count(model, fails)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("width", "height", "metric"),
    [(1280, 800, 239.32), (1333, 800, 250.34)],
    ids=["MMDetection's documented metric", "Table 1"],
)
def test_retinanet_has_the_published_metric(width: int, height: int, metric: float) -> None:
    """MMDetection's RetinaNet-R50 takes P6 from C5, 80 classes; its tool does not pad the input."""
    detection = pytest.importorskip("torchvision.models.detection", reason="torchvision is not installed")
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    model = detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=80)
    model.backbone.fpn.extra_blocks = LastLevelP6P7(2048, 256)
    model = model.to("meta").eval()
    image = torch.zeros(1, 3, height, width, device="meta")
    found = count(model, lambda: model.head(list(model.backbone(image).values())))
    assert round(found.as_mmdetection / 1e9, 2) == metric
    assert found.input == (1, 3, height, width)
    assert round(found.parameters / 1e6, 2) == 37.97


class Detector:
    """Two levels over one convolution, in the form of `msbal.backend.Detector`."""

    groups = ()

    def __init__(self) -> None:
        self.model: Any = nn.Conv2d(3, 4, 3, padding=1)

    def predict(self, data: DetectionData, progress: Any = None) -> list[dict[str, Any]]:
        from PIL import Image

        with Image.open(data.images[0].path) as file:
            pixels = torch.from_numpy(np.asarray(file, dtype=np.float32)).permute(2, 0, 1)[None]
        self.model(pixels)
        return []

    def batch(self, data: DetectionData, indices: list[int]) -> torch.Tensor:
        return torch.ones(1, 3, 8, 8)

    def framework_losses(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.model(batch).mean()}

    def split_losses(self, batch: torch.Tensor) -> Any:
        from msbal.backend import SplitLosses

        features = self.model(batch)
        return SplitLosses({"all": torch.stack([features.mean(), features.var()])[None]}, {})  # type: ignore[dict-item]


NOTHING = DetectionData("nothing", ("a",), (1,), ())


def test_a_detector_predicts_on_an_image_of_the_size_asked_for() -> None:
    found = detector_complexity(Detector(), NOTHING, width=40, height=24)  # type: ignore[arg-type]
    assert found.input == (1, 3, 24, 40)
    assert found.multiply_adds == 3 * 4 * 9 * 24 * 40


def test_balancing_adds_nothing_and_the_counter_would_see_it() -> None:
    from msbal.engine import Balancer

    detector = Detector()
    detector.model.eval()
    balancer = Balancer(["P3", "P4", "P5"], "avw", terms=("cls",), interval=2)
    losses = torch.tensor([[1.0, 2.0, 3.0]])
    learnable = sum(p.numel() for p in balancer.parameters())
    found = balancing_cost(detector, lambda groups: balancer(losses), learnable, NOTHING)  # type: ignore[arg-type]
    assert found.plain == found.split == 3 * 4 * 9 * 64
    assert found.parameters == 0
    assert not detector.model.training  # as it was

    costly = balancing_cost(detector, lambda groups: groups["all"] @ torch.ones(2, 7), 14, NOTHING)  # type: ignore[arg-type]
    assert costly.split - costly.plain == 2 * 7
