"""The proof, per head: unit weights are detectron2's own losses and gradients; any weights are the slow sum."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_detectron2 import BOXES, gradients, same_start, tiny
from torch import Tensor, nn

from msbal.baselines import Fixed
from msbal.engine import Balancer, BalancerSet, Equal
from msbal.errors import SpecError
from msbal_detectron2.balancing import Balancing
from msbal_detectron2.small import batch

RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
FASTER = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
CASCADE = "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"
FCOS = "COCO-Detection/fcos_R_50_FPN_1x.py"

# (config, scope, overrides)
HEADS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "retinanet": (RETINANET, ("rpn",), {}),
    "retinanet-giou": (RETINANET, ("rpn",), {"MODEL__RETINANET__BBOX_REG_LOSS_TYPE": "giou"}),
    "retinanet-beta": (RETINANET, ("rpn",), {"MODEL__RETINANET__SMOOTH_L1_LOSS_BETA": 0.1}),
    "fcos": (FCOS, ("rpn",), {}),
    "rpn-only": ("COCO-Detection/rpn_R_50_FPN_1x.yaml", ("rpn",), {}),
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
    "keypoint": (
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
        ("rpn", "roi"),
        {},
    ),
    "cascade": (CASCADE, ("rpn", "roi"), {}),
}


MAIN = ("retinanet", "fcos", "faster-weights", "cascade")


TWO_STAGE = ("rpn-only", "faster-weights", "faster-giou", "keypoint", "cascade")


@pytest.fixture(params=HEADS, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[str, ...]]:
    config, scope, overrides = HEADS[request.param]
    torch.manual_seed(0)
    model = tiny(config, **overrides).train()
    return model, scope


INPUTS = {
    "two images": BOXES,
    "one image": BOXES[:1],
    "a level without positives": [[[2.0, 2.0, 10.0, 9.0]]],
    "an empty image among others": [BOXES[0], []],
    "only empty images": [[], []],
}


def balancers(balancing: Balancing, strategy: Any, interval: int = 100) -> BalancerSet:
    return BalancerSet(balancing.group_names(), strategy, interval=interval)


# A variant of a head that is tried with all of them needs no more than these.
FEW = ("two images", "an empty image among others")


@pytest.mark.parametrize(
    ("case", "inputs"),
    [(head, inputs) for head in HEADS for inputs in (INPUTS if head in MAIN else FEW)],
    indirect=["case"],
)
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
        fixed = Fixed(tuple(0.5 + 0.75 * k for k in range(len(group.levels))))
        sets.balancers[group.name] = Balancer(group.levels, fixed, terms=group.terms, group=group.name)
    balancing.install(sets)
    try:
        fast = gradients(model, sum(same_start(model, lambda: model(data)).values()))
    finally:
        balancing.remove()
    assert set(fast) == set(slow)
    # A gradient that cancels to nearly nothing is held against the model's scale.
    floor = 1e-3 * max(float(gradient.norm()) for gradient in slow.values())
    for name, gradient in slow.items():
        error = (fast[name].double() - gradient).norm() / gradient.norm().clamp(min=floor)
        assert error < 1e-5, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("case", TWO_STAGE, indirect=True)
def test_levels_are_detectron2s(case: tuple[nn.Module, tuple[str, ...]]) -> None:
    """Against detectron2's own loss of one level alone: the labels of all other levels ignored, as an RPN can."""
    model, scope = case
    data = batch(BOXES)
    balancing = Balancing(model, scope)
    group = balancing.groups[0]
    assert group.name == "rpn"
    rpn = model.proposal_generator
    values = same_start(model, lambda: balancing.split(data)).groups["rpn"].values
    label = rpn.label_and_sample_anchors
    for k in range(len(group.levels)):

        def only_this_level(anchors: Any, instances: Any, k: int = k) -> Any:
            labels, boxes = label(anchors, instances)
            sizes = [len(level) for level in anchors]
            for image in labels:
                parts = image.split(sizes)
                for other, part in enumerate(parts):
                    if other != k:
                        part.fill_(-1)
            return labels, boxes

        rpn.label_and_sample_anchors = only_this_level
        try:
            own = same_start(model, lambda: balancing.framework_losses(data))
        finally:
            del rpn.label_and_sample_anchors
        expected = torch.stack([own["loss_rpn_cls"], own["loss_rpn_loc"]])
        torch.testing.assert_close(values[:, k], expected)


@pytest.mark.parametrize(
    ("config", "scope", "reason"),
    [
        ("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml", ("rpn",), "one level"),
        ("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml", ("roi",), "one level"),
        ("COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml", ("rpn",), "one level"),
        ("COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml", ("roi",), "one level"),
        ("COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml", ("rpn",), "scope: \\[roi\\]"),
        ("Misc/semantic_R_50_FPN_1x.yaml", ("rpn", "roi"), "no head"),
        (FASTER, ("rpm",), "did you mean `rpn`"),
    ],
)
def test_refusals_say_why(config: str, scope: tuple[str, ...], reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        Balancing(tiny(config), scope)


def test_a_loss_of_ones_own_is_refused() -> None:
    model = tiny(FASTER)
    own = type("MyRPN", (type(model.proposal_generator),), {"losses": lambda self, *args: {}})
    model.proposal_generator.__class__ = own
    with pytest.raises(SpecError, match=r"MyRPN overrides RPN\.losses"):
        Balancing(model)


def test_a_deep_copy_computes_with_its_own_weights() -> None:
    model = tiny(RETINANET)
    balancing = Balancing(model)
    balancing.install(balancers(balancing, Equal()))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        twin.eval(), model.eval()
        image = [{"image": batch(BOXES[:1])[0]["image"]}]
        # At once: detectron2 puts the logits through a sigmoid in place.
        largest: list[float] = []
        twin.head.register_forward_hook(lambda m, i, o: largest.extend(float(x.abs().max()) for x in o[0]))
        twin(image)
    assert len(largest) == 5 and max(largest) == 0.0


def test_normalizer_moves_once_a_step() -> None:
    data = batch(BOXES)
    own, balanced = tiny(RETINANET), tiny(RETINANET)
    balancing = Balancing(balanced)
    balancing.install(balancers(balancing, Equal()))
    for _ in range(3):
        own(data), balanced(data)
    assert balanced.loss_normalizer == own.loss_normalizer
    with balancing.probing():
        balancing.split(data)
    assert balanced.loss_normalizer == own.loss_normalizer
