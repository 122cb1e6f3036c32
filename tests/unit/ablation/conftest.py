"""A grid of runs that cost nothing: a stand-in for the training process writes what a run leaves."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msbal_torchvision", reason="the grid's specs are validated with the torchvision backend")

from ablation_tiny import BASE, Watcher

from msbal.ablation.grid import Grid, make_grid
from msbal.ablation.spec import parse_ablation


@pytest.fixture
def ablation(tmp_path: Path) -> Callable[..., Any]:
    """An ablation spec: ``ablation(arms={...}, seeds=2)``."""

    def make(**keys: Any) -> Any:
        return parse_ablation({"base": BASE, "output": str(tmp_path / "out"), **keys}, base=tmp_path)

    return make


@pytest.fixture
def grid(ablation: Callable[..., Any]) -> Callable[..., Grid]:
    """The same, expanded."""
    return lambda **keys: make_grid(ablation(**keys))


@pytest.fixture
def pretend() -> tuple[str, ...]:
    """A program that behaves as `msbal train` towards the files; what it does is in `starts.txt`."""
    return sys.executable, str(Path(__file__).parent / "pretend_train.py")


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()
