from __future__ import annotations

import pytest

pytest.importorskip("torchvision", reason="torchvision is not installed")

from zoo.workers import zoo_of

FAST = ["retinanet_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn"]


def test_names() -> None:
    assert {*FAST, "fcos_resnet50_fpn", "maskrcnn_resnet50_fpn", "ssd300_vgg16"} <= set(
        zoo_of("torchvision").names()
    )


@pytest.mark.release
@pytest.mark.parametrize("name", FAST)
def test_the_proof_holds(name: str) -> None:
    outcome = zoo_of("torchvision").check(name)
    assert outcome.status == "supported", outcome.reason
    assert outcome.metrics["unit_gradient"] == 0.0
