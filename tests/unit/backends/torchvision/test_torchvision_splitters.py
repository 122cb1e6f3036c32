"""The splitters: levels add up, gradients are torchvision's bit for bit, weights act on their own level."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection import roi_heads
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

from msbal.backend import SplitLosses
from msbal.errors import SpecError
from msbal_torchvision import balance
from msbal_torchvision.splitters import find

SCOPES = {
    "retinanet": ("rpn",), "fcos": ("rpn",), "ssd": ("rpn",), "fasterrcnn": ("rpn", "roi"),
}  # fmt: skip
NAMES = {"retinanet": "P3 P4 P5 P6 P7", "fcos": "P3 P4 P5 P6 P7", "ssd": "P3 P4 P5 P6 P7"}
every_head = pytest.mark.parametrize("name", SCOPES)


def forward(model, batch, seed=7):
    torch.manual_seed(seed)
    return model(*batch)


def split(model, batch, scope=("rpn",)):
    """The losses by level."""
    handle = balance(model, "equal", interval=2, scope=scope)
    with handle.collecting() as groups:
        losses = forward(model, batch)
    keys = [key for splitter in handle.splitters for key in splitter.keys]
    handle.remove()
    once = {name: level_losses for name, (level_losses,) in groups.items()}
    return SplitLosses(once, {key: loss for key, loss in losses.items() if key not in keys})


def total(split, weights=None):
    """The sum of the level losses, each level's times its weight, and of the rest."""
    result = sum(split.rest.values()) if split.rest else 0.0
    for group, losses in split.groups.items():
        weight = torch.ones(losses.values.shape[1]) if weights is None else weights[group]
        result = result + (losses.values * weight).sum()
    return result


def gradients(model, loss):
    model.zero_grad()
    loss.backward(retain_graph=True)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def changed(first, second):
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


@every_head
def test_levels_add_up_and_unit_weights_give_the_frameworks_gradients_bit_for_bit(make_model, batch, name):
    model = make_model(name)
    own = forward(model, batch)
    expected = gradients(model, sum(own.values()))
    drawn = torch.get_rng_state()

    groups = [splitter.group for splitter in find(model, SCOPES[name])]
    found = split(model, batch, SCOPES[name])
    assert torch.equal(torch.get_rng_state(), drawn)
    for group in groups:
        assert found.groups[group.name].values.shape == (len(group.terms), len(group.levels))
    assert torch.allclose(total(found), sum(own.values()), rtol=1e-5)
    assert changed(gradients(model, total(found)), expected) == []
    assert any(gradient.abs().sum() > 0 for gradient in expected.values())


@every_head
def test_weights_act_as_on_the_slow_sum(make_model, batch, name):
    model = make_model(name)
    found = split(model, batch, SCOPES[name])
    weights = {name: torch.linspace(0.3, 2.0, x.values.shape[1]) for name, x in found.groups.items()}
    quick = gradients(model, total(found, weights))
    slow = {parameter: torch.zeros_like(value) for parameter, value in quick.items()}
    parts = [(1.0, loss) for loss in found.rest.values()]
    for group, losses in found.groups.items():
        parts += [(w, losses.values[:, k].sum()) for k, w in enumerate(weights[group])]
    for weight, part in parts:
        for parameter, value in gradients(model, part).items():
            slow[parameter] += weight * value
    for parameter, value in quick.items():
        scale = max(value.abs().max(), 1e-6)
        assert (value - slow[parameter]).abs().max() <= 1e-4 * scale, parameter


@pytest.mark.parametrize("name", ["retinanet", "fcos"])
def test_a_levels_loss_touches_only_its_own_predictions(make_model, batch, name):
    model = make_model(name)
    captured = []
    model.head.register_forward_hook(lambda module, inputs, outputs: captured.append(outputs))
    found = split(model, batch)
    cls_logits = captured[0]["cls_logits"]
    grids = [16 * 16, 8 * 8, 4 * 4, 2 * 2, 1]  # of 128 x 128 pixels, padded
    per_cell = cls_logits.shape[1] // sum(grids)
    for level in range(5):
        (gradient,) = torch.autograd.grad(
            found.groups["all"].values[:, level].sum(), cls_logits, retain_graph=True
        )
        touched = [
            bool(part.abs().sum() > 0)
            for part in gradient.split([cells * per_cell for cells in grids], dim=1)
        ]
        assert touched == [k == level for k in range(5)]


def test_the_groups_say_what_they_are(make_model):
    for name, levels in NAMES.items():
        (group,) = [splitter.group for splitter in find(make_model(name))]
        assert (group.name, group.levels, group.strides) == (
            "all", tuple(levels.split()), (8, 16, 32, 64, 128),
        )  # fmt: skip
    rpn, roi = [splitter.group for splitter in find(make_model("fasterrcnn"), ("roi", "rpn"))]
    assert (rpn.name, rpn.levels) == ("rpn", ("P2", "P3", "P4", "P5", "P6"))
    assert (roi.name, roi.levels, roi.strides) == ("roi", ("P2", "P3", "P4", "P5"), (4, 8, 16, 32))
    assert find(make_model("fcos"))[0].group.terms == ("cls", "bbox", "centerness")


@pytest.mark.parametrize("scope", [("rpn",), ("roi",)])
def test_heads_outside_the_scope_keep_their_losses(make_model, batch, scope):
    model = make_model("fasterrcnn")
    expected = gradients(model, sum(forward(model, batch).values()))
    found = split(model, batch, scope)
    kept = {"rpn": {"loss_classifier", "loss_box_reg"}, "roi": {"loss_objectness", "loss_rpn_box_reg"}}
    assert set(found.rest) == kept[scope[0]]
    assert changed(gradients(model, total(found)), expected) == []


@pytest.mark.parametrize("builder", [detection.maskrcnn_resnet50_fpn, detection.keypointrcnn_resnet50_fpn])
def test_masks_and_keypoints_stay_as_they_are(batch, builder):
    torch.manual_seed(0)
    model = builder(weights=None, weights_backbone=None, num_classes=4 if "mask" in builder.__name__ else 2)
    model.train().backbone.requires_grad_(False)
    model.transform.min_size, model.transform.max_size = (96,), 128
    images, targets = batch
    targets = [
        {
            **target,
            "labels": target["labels"].clamp(max=1),
            "masks": torch.ones(len(target["labels"]), *image.shape[1:], dtype=torch.uint8),
            "keypoints": torch.full((len(target["labels"]), 17, 3), 40.0),
        }
        for image, target in zip(images, targets, strict=True)
    ]
    own = forward(model, (images, targets))
    handle = balance(model, "equal", interval=2, scope=("rpn", "roi"))
    found = forward(model, (images, targets))
    assert list(found) == list(own)
    for key, loss in own.items():
        assert torch.allclose(found[key], loss, rtol=1e-5)
        if key in ("loss_mask", "loss_keypoint"):
            assert torch.equal(found[key], loss)
    assert handle.groups[1].head == "RoIHeads"


@pytest.mark.parametrize(
    ("builder", "levels"),
    [
        pytest.param(detection.ssd300_vgg16, "P3 P4 P5 P6 S100 S300", marks=pytest.mark.release),
        (detection.ssdlite320_mobilenet_v3_large, "P4 P5 P6 S107 S160 S320"),
    ],
)
def test_torchvisions_own_ssds_mine_first_and_split_afterwards(batch, builder, levels):
    torch.manual_seed(0)
    model = builder(weights=None, weights_backbone=None, num_classes=4).train()
    own = forward(model, batch)
    expected = gradients(model, sum(own.values()))
    assert find(model)[0].group.levels == tuple(levels.split())
    found = split(model, batch)
    assert torch.allclose(total(found), sum(own.values()), rtol=1e-5)
    assert changed(gradients(model, total(found)), expected) == []


@every_head
def test_images_without_boxes_and_a_batch_of_one(make_model, batch, name):
    images, targets = batch
    alone = ([images[1]], [targets[1]])
    model = make_model(name)
    model.eval()  # batch statistics of one image of one cell are undefined
    for module in (model, *(m for m in model.modules() if not isinstance(m, nn.BatchNorm2d))):
        module.training = True
    own = forward(model, alone)
    expected = gradients(model, sum(own.values()))
    found = split(model, alone, SCOPES[name])
    assert all(float(losses.positives.sum()) == 0 for losses in found.groups.values())
    assert torch.isfinite(total(found))
    assert torch.allclose(total(found), sum(own.values()), rtol=1e-5)
    assert changed(gradients(model, total(found)), expected) == []


def test_positives_are_counted_on_the_level_that_has_them(make_model, batch):
    images, _ = batch
    targets = [
        {"boxes": torch.tensor([[12.0, 12.0, 20.0, 20.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.tensor([[0.0, 0.0, 96.0, 96.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    model = make_model("retinanet", anchor_sizes=(8, 16, 32, 64, 128))
    found = split(model, (images, targets)).groups["all"]
    assert found.positives[0] > 0 and found.positives[1:3].sum() == 0 and found.positives[3:].sum() > 0
    assert torch.equal(found.values[1] > 0, found.positives > 0)


def test_a_backbone_that_lists_its_levels_coarsest_first_is_sorted(make_model, batch):
    plain, turned = make_model("retinanet"), make_model("retinanet")
    expected = split(plain, batch).groups["all"].values

    class Turned(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.out_channels = inner, inner.out_channels

        def forward(self, x):
            return dict(reversed(self.inner(x).items()))

    turned.backbone = Turned(turned.backbone)
    turned.anchor_generator.cell_anchors.reverse()
    turned.anchor_generator.sizes = turned.anchor_generator.sizes[::-1]
    assert find(turned)[0].group.strides == (8, 16, 32, 64, 128)
    assert torch.allclose(split(turned, batch).groups["all"].values, expected, rtol=1e-4)


# -- refusals ------------------------------------------------------------------------------------


def refused(model, match, scope=("rpn",)):
    with pytest.raises(SpecError, match=match) as caught:
        balance(model, scope=scope)
    assert "\n" not in str(caught.value)


class OwnHead(RetinaNetHead):
    def compute_loss(self, *arguments):
        return {}


class OwnClassification(RetinaNetClassificationHead):
    def compute_loss(self, *arguments):
        return 0


class OwnRPN(RegionProposalNetwork):
    def compute_loss(self, *arguments):
        return super().compute_loss(*arguments)


class OwnRoIHeads(RoIHeads):
    def forward(self, *arguments):
        return super().forward(*arguments)


class OwnSSD(SSD):
    def compute_loss(self, *arguments):
        return super().compute_loss(*arguments)


@pytest.mark.parametrize(
    ("name", "part", "kind", "method"),
    [
        ("retinanet", "head", OwnHead, "compute_loss"),
        ("retinanet", "head.classification_head", OwnClassification, "compute_loss"),
        ("fasterrcnn", "rpn", OwnRPN, "compute_loss"),
        ("fasterrcnn", "roi_heads", OwnRoIHeads, "forward"),
        ("ssd", "", OwnSSD, "compute_loss"),
    ],
)
def test_own_losses_are_refused_on_the_class_and_on_the_instance(make_model, name, part, kind, method):
    model = make_model(name)
    module = model.get_submodule(part)
    stock = type(module)
    module.__class__ = kind
    refused(model, rf"{kind.__name__}\.{method}: overridden in a subclass.*msbal\.Balancer", SCOPES[name])
    module.__class__ = stock
    vars(module)[method] = getattr(module, method)
    refused(model, rf"{stock.__name__}\.{method}: replaced on the instance", SCOPES[name])
    del vars(module)[method]
    balance(model, scope=SCOPES[name])


def test_a_subclass_that_keeps_the_loss_is_balanced(make_model, batch):
    class Mine(RetinaNetHead):
        def forward(self, x):
            return super().forward(x)

    model = make_model("retinanet")
    model.head.__class__ = Mine
    assert find(model)[0].group.head == "Mine"
    assert float(split(model, batch).groups["all"].values.sum()) > 0


def test_too_few_levels_are_refused_with_the_reason(make_model):
    class OneLevel(nn.Module):
        out_channels = 8

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, stride=16, padding=1)

        def forward(self, x):
            return self.conv(x)

    model = make_model("retinanet")
    model.backbone = OneLevel()
    refused(model, r"RetinaNetHead: it works on one level \(stride 16\)")

    # torchvision's MobileNet pyramid pools its RoIs from two maps of one stride: all are of one level.
    mobile = detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3
    )
    assert find(mobile)[0].group.levels == ("P5a", "P5b", "P6")
    refused(mobile, "leave `roi` out", ("rpn", "roi"))
    assert "compute_loss" not in vars(mobile.rpn)


def test_other_models_and_scopes_are_refused(make_model):
    refused(nn.Linear(2, 2), "Linear; expected a torchvision RetinaNet")
    refused(make_model("retinanet"), "one head", ("rpn", "roi"))
    model = make_model("fasterrcnn")
    for scope in (("mask",), (), ("rpn", "rpn")):
        refused(model, "balance.scope", scope)
    model.roi_heads.box_roi_pool = nn.Identity()
    refused(model, "box_roi_pool: Identity.*MultiScaleRoIAlign", ("roi",))
    assert isinstance(make_model("fasterrcnn").roi_heads.box_roi_pool, MultiScaleRoIAlign)


@pytest.mark.parametrize(
    ("module", "function", "name"),
    [(roi_heads, "fastrcnn_loss", "fasterrcnn"), (detection.retinanet, "sigmoid_focal_loss", "retinanet")],
)
def test_a_function_of_the_loss_that_was_patched_is_refused_on_the_first_batch(
    make_model, batch, monkeypatch, module, function, name
):
    own = getattr(module, function)

    def doubled(*arguments, **keys):
        found = own(*arguments, **keys)
        return (2 * found[0], found[1]) if isinstance(found, tuple) else 2 * found

    monkeypatch.setattr(module, function, doubled)
    model = make_model(name)
    balance(model, scope=SCOPES[name])
    with pytest.raises(SpecError, match=r"loss_classifier|classification") as caught:
        forward(model, batch)
    assert "\n" not in str(caught.value) and all(p.grad is None for p in model.parameters())
