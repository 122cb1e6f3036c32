"""Small detectors of mmdet and batches for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")
pytest.importorskip("msbal_mmdet", reason="the mmdet backend is not installed")

import torch
from tiny_mmdet import NARROW, RETINANET, make
from zoo import small_mmdet as tiny


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Other tests share the cores."""
    torch.set_num_threads(1)


@pytest.fixture
def retinanet() -> Callable[[], Any]:
    """Makes a very small RetinaNet, the same each time."""
    return lambda: make(RETINANET, NARROW)


@pytest.fixture
def small_batch() -> Callable[..., dict[str, Any]]:
    """Makes a batch of two 96 pixel images."""

    def make_batch(**more: Any) -> dict[str, Any]:
        return tiny.batch(80, ((96, 96), (64, 96)), **more)

    return make_batch
