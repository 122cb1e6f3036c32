"""The proof, per head: unit weights are detectron2's own losses and gradients; any weights are the slow sum."""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any

import pytest
import torch
from detectron2.modeling.meta_arch import retinanet
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.utils.events import EventStorage
from tiny_detectron2 import BOXES, gradients, same_start, tiny
from torch import Tensor, nn
from zoo.small_detectron2 import batch

from msbal.backend.kit.balance import balance_function
from msbal.backend.kit.balanced import Balanced, group_names
from msbal.baselines import Fixed
from msbal.engine import Balancer, BalancerSet
from msbal.errors import SpecError
from msbal_detectron2.detector import SplitDetectron2
from msbal_detectron2.splitters import find

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


def weigh(model: nn.Module, scope: tuple[str, ...], strategy: Any = "equal") -> Balanced:
    return balance_function(lambda model, request: request.put(model, find(model, scope)))(model, strategy)


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
    find(model, scope)  # lets TorchScript finish with its first call
    own = same_start(model, lambda: model(data))
    own_gradients = gradients(model, sum(own.values()))

    handle = weigh(model, scope)
    try:
        balanced = same_start(model, lambda: model(data))
        balanced_gradients = gradients(model, sum(balanced.values()))
    finally:
        handle.remove()

    assert list(balanced) == list(own)
    for key in own:
        torch.testing.assert_close(balanced[key], own[key], rtol=2e-6, atol=1e-7, msg=key)
    assert set(balanced_gradients) == set(own_gradients)
    for name, gradient in own_gradients.items():
        assert torch.equal(balanced_gradients[name], gradient), name


def test_any_weights_are_the_slow_sum(case: tuple[nn.Module, tuple[str, ...]]) -> None:
    model, scope = case
    data = batch(BOXES)
    splitters = find(model, scope)
    groups = [splitter.group for splitter in splitters]
    split = same_start(model, lambda: SplitDetectron2(model, splitters).split_losses(data))
    slow: dict[str, Tensor] = {}
    parts = [(1.0, loss) for loss in split.rest.values()]
    for group in groups:
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

    sets = BalancerSet(group_names(groups), "equal", interval=100)
    for group in groups:
        fixed = Fixed(tuple(0.5 + 0.75 * k for k in range(len(group.levels))))
        sets.balancers[group.name] = Balancer(group.levels, fixed, terms=group.terms, group=group.name)
    handle = Balanced(model, splitters, sets)
    try:
        fast = gradients(model, sum(same_start(model, lambda: model(data)).values()))
    finally:
        handle.remove()
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
    splitters = find(model, scope)
    group = splitters[0].group
    assert group.name == "rpn"
    rpn = model.proposal_generator
    values = (
        same_start(model, lambda: SplitDetectron2(model, splitters).split_losses(data)).groups["rpn"].values
    )
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
            own = same_start(model, lambda: SplitDetectron2(model, splitters).framework_losses(data))
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
        ("COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml", ("rpn", "roi"), "scope: \\[roi\\]"),
        ("COCO-Detection/rpn_R_50_FPN_1x.yaml", ("rpn", "roi"), "has no RoI heads"),
        ("Misc/semantic_R_50_FPN_1x.yaml", ("rpn", "roi"), "no head"),
        (FASTER, (), "nothing"),
        (FASTER, ("rpm",), "did you mean `rpn`"),
    ],
)
def test_refusals_say_why(config: str, scope: tuple[str, ...], reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        find(tiny(config), scope)


def ten_times(function: Any) -> Any:
    """A method that multiplies the losses that come out of another one."""

    def scaled(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = function(self, *args, **kwargs)
        proposals, losses = found if isinstance(found, tuple) else (None, found)
        losses = {key: 10 * loss for key, loss in losses.items()}
        return losses if proposals is None else (proposals, losses)

    return scaled


# Of a RetinaNet or a Faster R-CNN: the module, the method that a subclass overrides, and the scope.
OWN: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "a detector's forward": (RETINANET, "", "forward", ("rpn",)),
    "a two-stage detector's forward": (FASTER, "", "forward", ("rpn", "roi")),
    "an RPN's forward": (FASTER, "proposal_generator", "forward", ("rpn",)),
    "RoI heads' _forward_box": (FASTER, "roi_heads", "_forward_box", ("roi",)),
}


@pytest.mark.parametrize("how", ["in a subclass", "on the instance"])
@pytest.mark.parametrize("case", OWN)
def test_what_a_user_does_to_the_losses_is_kept(case: str, how: str) -> None:
    config, path, method, scope = OWN[case]

    def own_gradients(balanced: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = tiny(config).train()
        module: Any = model.get_submodule(path)
        scaled = ten_times(getattr(type(module), method))
        if how == "in a subclass":
            module.__class__ = type("Mine", (type(module),), {method: scaled})
        else:
            setattr(module, method, MethodType(scaled, module))
        if balanced:
            weigh(model, scope)
        torch.manual_seed(0)
        return gradients(model, sum(model(batch(BOXES)).values()))

    plain, ours = own_gradients(False), own_gradients(True)
    assert all(torch.equal(ours[name], gradient) for name, gradient in plain.items())


def test_arguments_and_results_of_ones_own_forward_are_kept() -> None:
    seen: list[str] = []

    class Mine(RetinaNet):  # type: ignore[misc]
        def forward(self, inputs: Any, branch: str = "supervised") -> Any:
            seen.append(branch)
            return super().forward(inputs), branch

    model = tiny(RETINANET).train()
    model.__class__ = Mine
    weigh(model, ("rpn",))
    losses, branch = model(batch(BOXES), branch="pseudo")
    assert set(losses) == {"loss_cls", "loss_box_reg"} and [branch] == seen == ["pseudo"]


@pytest.mark.parametrize("how", ["in a subclass", "on the instance"])
@pytest.mark.parametrize(
    ("config", "path", "method"),
    [
        (RETINANET, "", "losses"),
        (FASTER, "proposal_generator", "losses"),
        (CASCADE, "roi_heads.box_predictor.1", "losses"),
        (FASTER, "roi_heads.box_predictor", "box_reg_loss"),
    ],
)
def test_a_loss_of_ones_own_is_refused(config: str, path: str, method: str, how: str) -> None:
    model = tiny(config)
    module: Any = model.get_submodule(path)
    mine = ten_times(getattr(type(module), method))
    if how == "in a subclass":
        module.__class__ = type("Mine", (type(module),), {method: mine})
    else:
        setattr(module, method, MethodType(mine, module))
    with pytest.raises(SpecError, match=rf"\.{method}.*the method of detectron2's") as caught:
        find(model, ("rpn", "roi"))
    assert "\n" not in str(caught.value)
    assert ("Mine" in str(caught.value) and "overridden in a subclass" in str(caught.value)) == (
        how == "in a subclass"
    )


def test_a_loss_that_is_another_one_unseen_is_refused_on_the_first_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = retinanet._dense_box_regression_loss
    monkeypatch.setattr(retinanet, "_dense_box_regression_loss", lambda *a, **k: 3 * own(*a, **k))
    model = tiny(RETINANET).train()
    weigh(model, ("rpn",))
    with pytest.raises(SpecError, match=r"RetinaNet\.losses.*loss_box_reg"):
        model(batch(BOXES))


def test_the_proof_leaves_no_trace(storage: Any) -> None:
    """Neither in the model, nor in random state, nor among the scalars."""
    models = [tiny(FASTER).train() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    weigh(models[1], ("rpn", "roi"))
    ends = []
    for model in models:
        torch.manual_seed(0)
        with EventStorage() as logged:
            model(batch(BOXES))
        ends.append(
            (model.state_dict(), torch.rand(3), {k: h.values() for k, h in logged.histories().items()})
        )
    (own, own_draws, own_scalars), (ours, draws, scalars) = ends
    assert all(torch.equal(ours[name], value) for name, value in own.items())
    assert torch.equal(draws, own_draws) and scalars == own_scalars


def test_stages_of_a_cascade_are_groups() -> None:
    model = tiny(CASCADE).train()
    handle = weigh(model, ("rpn", "roi"))
    assert [group.name for group in handle.groups] == ["rpn", "roi_stage0", "roi_stage1", "roi_stage2"]
    losses = model(batch(BOXES))
    for splitter in handle.splitters:
        for key, value in zip(splitter.keys, handle.losses[splitter.group.name].sum(dim=1), strict=True):
            torch.testing.assert_close(losses[key].detach(), value)


def test_a_deep_copy_computes_with_its_own_weights() -> None:
    model = tiny(RETINANET)
    weigh(model, ("rpn",))
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
    handle = weigh(balanced, ("rpn",))
    for _ in range(3):
        own(data), balanced(data)
    assert balanced.loss_normalizer == own.loss_normalizer
    splitters = find(own)
    for passes in (SplitDetectron2.split_losses, SplitDetectron2.framework_losses):
        passes(SplitDetectron2(own, splitters), data)
        assert own.loss_normalizer == balanced.loss_normalizer
        passes(SplitDetectron2(balanced, handle.splitters), data)
        assert balanced.loss_normalizer == own.loss_normalizer
    assert handle.balancers.balancers["all"].iteration == 3
