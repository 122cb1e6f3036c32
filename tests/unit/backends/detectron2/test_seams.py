"""The proof, per head: unit weights are detectron2's own losses and gradients; any weights are the slow sum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage
from models import BOXES, batch, gradients, same_start, tiny
from torch import Tensor, nn

from msbal.engine import BalancerSet, Equal, Fixed
from msbal_detectron2.balancing import Balancing

RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
FASTER = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
CASCADE = "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"
FCOS = "COCO-Detection/fcos_R_50_FPN_1x.py"

# (config, scope, overrides)
HEADS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "retinanet": (RETINANET, ("rpn",), {}),
    "retinanet-giou": (RETINANET, ("rpn",), {"MODEL__RETINANET__BBOX_REG_LOSS_TYPE": "giou"}),
    "retinanet-beta": (RETINANET, ("rpn",), {"MODEL__RETINANET__SMOOTH_L1_LOSS_BETA": 0.1}),
    "retinanet-lazy": ("COCO-Detection/retinanet_R_50_FPN_1x.py", ("rpn",), {}),
    "fcos": (FCOS, ("rpn",), {}),
    "rpn-only": ("COCO-Detection/rpn_R_50_FPN_1x.yaml", ("rpn",), {}),
    "faster": (FASTER, ("rpn",), {}),
    "faster-weights": (
        FASTER,
        ("rpn", "roi"),
        {"MODEL__RPN__LOSS_WEIGHT": 0.7, "MODEL__ROI_BOX_HEAD__BBOX_REG_LOSS_WEIGHT": 1.7},
    ),
    "faster-giou": (
        FASTER,
        ("rpn", "roi"),
        {"MODEL__RPN__BBOX_REG_LOSS_TYPE": "giou", "MODEL__ROI_BOX_HEAD__BBOX_REG_LOSS_TYPE": "giou"},
    ),
    "faster-agnostic": (FASTER, ("roi",), {"MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG": True}),
    "mask": ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", ("rpn", "roi"), {}),
    "keypoint": (
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
        ("rpn", "roi"),
        {"MODEL__ROI_KEYPOINT_HEAD__CONV_DIMS": (16,)},
    ),
    "cascade": (CASCADE, ("rpn", "roi"), {}),
}


@pytest.fixture(params=HEADS, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[str, ...]]:
    config, scope, overrides = HEADS[request.param]
    torch.manual_seed(0)
    model = tiny(config, **overrides).train()
    # TorchScript profiles its first calls, and computes the last bit otherwise from the second on.
    for data in (batch(BOXES), batch(BOXES[:1])):
        with EventStorage():
            for losses in (model(data), Balancing(model, scope).split(data)):
                if isinstance(losses, dict):
                    gradients(model, sum(losses.values()))
                else:
                    gradients(model, sum(group.values.sum() for group in losses.groups.values()))
    model.__dict__.pop("loss_normalizer", None)
    return model, scope


INPUTS = {
    "two images": BOXES,
    "one image": BOXES[:1],
    "a level without positives": [[[4.0, 4.0, 20.0, 18.0]]],
    "an empty image among others": [BOXES[0], []],
    "only empty images": [[], []],
}


def balancers(balancing: Balancing, strategy: Any, interval: int = 100) -> BalancerSet:
    return BalancerSet(balancing.group_names(), strategy, interval=interval)


@pytest.mark.parametrize("inputs", INPUTS)
def test_unit_weights_are_the_framework(case: tuple[nn.Module, tuple[str, ...]], inputs: str) -> None:
    model, scope = case
    data = batch(INPUTS[inputs])
    balancing = Balancing(model, scope)
    own = same_start(model, lambda: model(data))
    own_gradients = gradients(model, sum(own.values()))

    balancing.install(balancers(balancing, Equal()))
    try:
        balanced = same_start(model, lambda: model(data))
        balanced_gradients = gradients(model, sum(balanced.values()))
    finally:
        balancing.remove()

    assert set(balanced) == set(own)
    for key in own:
        torch.testing.assert_close(balanced[key], own[key], rtol=2e-6, atol=1e-7, msg=key)
    assert set(balanced_gradients) == set(own_gradients)
    for name, gradient in own_gradients.items():
        assert torch.equal(balanced_gradients[name], gradient), name


def test_any_weights_are_the_slow_sum(case: tuple[nn.Module, tuple[str, ...]]) -> None:
    model, scope = case
    data = batch(BOXES)
    balancing = Balancing(model, scope)
    split = same_start(model, lambda: balancing.split(data))
    slow: dict[str, Tensor] = {}
    parts = [(1.0, loss) for loss in split.rest.values()]
    for group in balancing.groups:
        weights = [0.5 + 0.75 * k for k in range(len(group.levels))]
        by_level = split.groups[group.name].values.sum(dim=0)
        parts += list(zip(weights, by_level, strict=True))
    for index, (weight, loss) in enumerate(parts):
        model.zero_grad(set_to_none=True)
        loss.backward(retain_graph=index + 1 < len(parts))
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                slow[name] = slow.get(name, 0) + weight * parameter.grad.double()
    model.zero_grad(set_to_none=True)

    sets = BalancerSet(balancing.group_names(), Equal(), interval=100)
    for group in balancing.groups:
        k = len(group.levels)
        sets.balancers[group.name].weights = torch.tensor([0.5 + 0.75 * i for i in range(k)]).double()
    balancing.install(sets)
    try:
        fast = gradients(model, sum(same_start(model, lambda: model(data)).values()))
    finally:
        balancing.remove()
    assert set(fast) == set(slow)
    for name, gradient in slow.items():
        error = (fast[name].double() - gradient).norm() / gradient.norm().clamp(min=1e-12)
        assert error < 1e-5, f"{name}: relative error {error:.1e}"
