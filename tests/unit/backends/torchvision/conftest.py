"""Fixtures of the torchvision backend's tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision", reason="the torchvision backend needs torchvision")
pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")

from tiny_backbone import TinyResNet  # noqa: E402
from tiny_torchvision import SMALL, Run, make_data, run_in  # noqa: E402

from msbal.data import DetectionData  # noqa: E402
from msbal_torchvision.models import build_model  # noqa: E402
from msbal_torchvision.spec import TorchvisionModel  # noqa: E402


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Every resnet18 here is tiny, unless the test takes the fixture `real_backbone`."""
    if "real_backbone" not in request.fixturenames:
        monkeypatch.setattr(torchvision.models, "resnet18", TinyResNet)


@pytest.fixture
def real_backbone() -> None:
    """Asks for torchvision's own resnet18."""


@pytest.fixture
def make_model() -> Callable[..., Any]:
    """A detector with a tiny pyramid: ``make_model("retinanet")``; always the same weights."""

    def make(name: str, classes: int = 3, **changes: Any) -> Any:
        torch.manual_seed(0)
        return build_model(TorchvisionModel(**{**SMALL, "name": name, **changes}), classes).train()

    return make


@pytest.fixture
def batch() -> tuple[list[Any], list[dict[str, Any]]]:
    """Three images of different sizes: large and small boxes, none, one."""
    draw = torch.Generator().manual_seed(1)
    images = [torch.rand(3, h, w, generator=draw) for h, w in ((96, 110), (100, 96), (96, 96))]
    boxes = [
        [[2, 2, 90, 94], [10, 20, 18, 29], [30, 30, 62, 58], [50, 5, 66, 21], [70, 70, 79, 77]],
        [],
        [[20.5, 30, 44, 70]],
    ]
    targets = [
        {
            "boxes": torch.tensor(b, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.randint(1, 4, (len(b),), generator=draw),
        }
        for b in boxes
    ]
    return images, targets


@pytest.fixture
def data(tmp_path: Path) -> DetectionData:
    """Six images."""
    return make_data(tmp_path / "images")


@pytest.fixture
def make_run(tmp_path: Path, data: DetectionData) -> Callable[..., Run]:
    """A run on six images: ``make_run("name", schedule={...}, balance={...}, resume=True)``."""
    return partial(run_in, tmp_path, data)
