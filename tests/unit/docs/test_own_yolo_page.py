"""The code on the page for other people's repositories runs as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

PAGE = (Path(__file__).parents[3] / "docs" / "guides" / "own-yolo.md").read_text(encoding="utf-8")
SIZES = [16, 4, 1]
LOOP, CONCATENATED, MAPS, EFFDET, LIBREYOLO = re.findall(
    r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL
)


def run(code: str, **names: Any) -> dict[str, Any]:
    exec(compile(code, "own-yolo.md", "exec"), names)
    return names


def loader(targets: Any) -> Iterator[tuple[Tensor, Any]]:
    for _ in range(3):
        yield torch.rand(2, 21, 6), targets


def trained(code: str, network: Any, criterion: Any, targets: Any, layer: nn.Module) -> None:
    before = [parameter.detach().clone() for parameter in layer.parameters()]
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    found = run(code, network=network, criterion=criterion, loader=loader(targets), optimizer=optimizer)
    gate = found["gate"]
    assert gate.balancers.balancers["all"].iteration == 3 and not gate._unproved
    assert not any(one.equal(other) for one, other in zip(before, layer.parameters(), strict=True))


def test_a_loop_over_the_levels() -> None:
    level_losses = lambda one, targets: ((one - targets).square().sum(), one.abs().sum())  # noqa: E731
    found = run(LOOP, level_losses=level_losses)
    maps = [torch.rand(2, size) for size in SIZES]
    expected = sum(sum(level_losses(one, 0.5)) for one in maps)
    assert float(found["total_loss"](maps, 0.5)) == pytest.approx(float(expected))
    assert found["balancer"].iteration == 1


def test_predictions_in_one_tensor() -> None:
    layer = nn.Linear(6, 6)

    def network(images: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        found = layer(images)
        return found[..., :2], found[..., 2:], SIZES

    def criterion(scores: Tensor, boxes: Tensor, targets: float) -> dict[str, Tensor]:
        return {"cls": (scores - targets).square().sum(dim=2), "box": boxes.abs().sum(dim=2)}

    trained(CONCATENATED, network, criterion, 0.5, layer)


def test_a_list_of_maps() -> None:
    layer = nn.Linear(6, 6)

    def criterion(maps: list[Tensor], targets: list[float]) -> Tensor:
        return torch.stack([(m - t).square().sum() for m, t in zip(maps, targets, strict=True)]).sum()

    trained(MAPS, lambda images: list(layer(images).split(SIZES, dim=1)), criterion, [0.1, 0.2, 0.3], layer)


def test_the_whole_examples_are_those_that_are_tested() -> None:
    assert [re.findall(r'"(examples/own_yolo/\w+\.py)"', code) for code in (EFFDET, LIBREYOLO)] == [
        ["examples/own_yolo/effdet_gate.py"], ["examples/own_yolo/libreyolo_gate.py"]
    ]  # fmt: skip
