"""The examples for other people's code bases: each level's gradient is weighted as in the slow way, and they train."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from msbal.backend.proof import GRADIENT_TOLERANCE
from msbal.baselines import Fixed

EXAMPLES = Path(__file__).parents[3] / "examples" / "own_yolo"


def example(name: str) -> ModuleType:
    pytest.importorskip(name.removesuffix("_gate"))
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def total(output: dict[str, Tensor]) -> Tensor:
    return output["total_loss" if "total_loss" in output else "loss"]


def alone(maps: list[Tensor], level: int) -> list[Tensor]:
    return [one if k == level else one.detach() for k, one in enumerate(maps)]


def effdet_slow(bench: Any, images: Tensor, target: Any) -> list[Tensor]:
    classes, boxes = bench.model(images)
    labels = bench.anchor_labeler.batch_label_anchors(target["bbox"], target["cls"])
    return [bench.loss_fn(alone(classes, k), alone(boxes, k), *labels)[0] for k in range(5)]


def libreyolo_slow(model: Any, images: Tensor, target: Tensor) -> list[Tensor]:
    loss = model.head._get_loss_fn(images.device)
    loss.update_anchors([images.shape[3], images.shape[2]])
    maps = model.head(list(model.neck(*model.backbone(images))))
    return [loss(alone(maps, k), target)["total_loss"] for k in range(3)]


@pytest.mark.parametrize(("name", "slow"), [("effdet_gate", effdet_slow), ("libreyolo_gate", libreyolo_slow)])
def test_an_example(name: str, slow: Callable[..., list[Tensor]], capsys: pytest.CaptureFixture[str]) -> None:
    module = example(name)
    plain = module.make_model().train()
    batch = module.make_batch(0)

    # The slow way: the own loss once for each level, the others' predictions detached.
    slowly, ours = copy.deepcopy(plain), copy.deepcopy(plain)
    losses = slow(slowly, *batch)
    weights = [0.5 + k for k in range(len(losses))]
    torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum().backward()
    module.balance(ours, Fixed(tuple(weights)))
    total(ours(*batch)).backward()
    noise = 1e-6 * max(float(p.grad.abs().max()) for p in slowly.parameters() if p.grad is not None)
    for one, other in zip(slowly.parameters(), ours.parameters(), strict=True):
        if one.grad is None or other.grad is None:
            assert one.grad is other.grad
            continue
        largest = float(one.grad.abs().max())
        torch.testing.assert_close(other.grad, one.grad, rtol=0, atol=GRADIENT_TOLERANCE * largest + noise)
    copy.deepcopy(ours)  # for an EMA

    # Equal weights change no bit.
    trained = []
    for strategy in (None, "equal"):
        model = copy.deepcopy(plain)
        gate = None if strategy is None else module.balance(model, strategy, interval=2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for seed in range(2):
            optimizer.zero_grad()
            total(model(*module.make_batch(seed))).backward()
            optimizer.step()
        trained.append([parameter.detach() for parameter in model.parameters()])
    assert gate is not None and gate.balancers.balancers["all"].iteration == 2
    assert all(one.equal(other) for one, other in zip(*trained, strict=True))

    module.main(5)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["5"] and "weights" in lines[0]


def test_without_any_object() -> None:
    module = example("libreyolo_gate")
    model = module.make_model().train()
    gate = module.balance(model, "avw", interval=2)
    images, targets = module.make_batch(0)
    model(images, targets[:, :0])["total_loss"].backward()
    assert gate.balancers.balancers["all"].iteration == 1
