"""The seams: levels add up, gradients are torchvision's bit for bit, weights act on their own level."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetHead
from torchvision.ops import MultiScaleRoIAlign

from msbal_torchvision.seams import UnsplittableModelError, install

SCOPES = {
    "retinanet": ("rpn",), "fcos": ("rpn",), "ssd": ("rpn",), "fasterrcnn": ("rpn", "roi"),
}  # fmt: skip
NAMES = {"retinanet": "P3 P4 P5 P6 P7", "fcos": "P3 P4 P5 P6 P7", "ssd": "P3 P4 P5 P6 P7"}
every_head = pytest.mark.parametrize("name", SCOPES)


def total(split, weights=None):
    """The sum of the level losses, each level's times its weight, and of the rest."""
    result = sum(split.rest.values()) if split.rest else 0.0
    for group, losses in split.groups.items():
        weight = torch.ones(losses.values.shape[1]) if weights is None else weights[group]
        result = result + (losses.values * weight).sum()
    return result


def forward(model, batch, seed=7):
    torch.manual_seed(seed)
    return model(*batch)


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

    seam = install(model, SCOPES[name])
    losses = forward(model, batch)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert losses.keys() == own.keys()
    split = seam.split(losses)
    for group in seam.groups:
        values = split.groups[group.name].values
        assert values.shape == (len(group.terms), len(group.levels))
    assert torch.allclose(total(split), sum(own.values()), rtol=1e-5)
    assert changed(gradients(model, total(split)), expected) == []
    assert any(gradient.abs().sum() > 0 for gradient in expected.values())


@every_head
def test_weights_act_as_on_the_slow_sum(make_model, batch, name):
    model = make_model(name)
    seam = install(model, SCOPES[name])
    split = seam.split(forward(model, batch))
    weights = {g.name: torch.linspace(0.3, 2.0, len(g.levels)) for g in seam.groups}
    quick = gradients(model, total(split, weights))
    slow = {parameter: torch.zeros_like(value) for parameter, value in quick.items()}
    parts = [(1.0, loss) for loss in split.rest.values()]
    for group, losses in split.groups.items():
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
    seam = install(model)
    captured = []
    model.head.register_forward_hook(lambda module, inputs, outputs: captured.append(outputs))
    split = seam.split(forward(model, batch))
    cls_logits = captured[0]["cls_logits"]
    grids = [16 * 16, 8 * 8, 4 * 4, 2 * 2, 1]  # of 128 x 128 pixels, padded
    per_cell = cls_logits.shape[1] // sum(grids)
    for level in range(5):
        (gradient,) = torch.autograd.grad(
            split.groups["all"].values[:, level].sum(), cls_logits, retain_graph=True
        )
        touched = [
            bool(part.abs().sum() > 0)
            for part in gradient.split([cells * per_cell for cells in grids], dim=1)
        ]
        assert touched == [k == level for k in range(5)]


def test_the_groups_say_what_they_are(make_model):
    for name, levels in NAMES.items():
        (group,) = install(make_model(name)).groups
        assert (group.name, group.levels, group.strides) == (
            "all", tuple(levels.split()), (8, 16, 32, 64, 128),
        )  # fmt: skip
    rpn, roi = install(make_model("fasterrcnn"), ("roi", "rpn")).groups
    assert (rpn.name, rpn.levels) == ("rpn", ("P2", "P3", "P4", "P5", "P6"))
    assert (roi.name, roi.levels, roi.strides) == ("roi", ("P2", "P3", "P4", "P5"), (4, 8, 16, 32))
    assert install(make_model("fcos")).groups[0].terms == ("cls", "bbox", "centerness")


@pytest.mark.parametrize("scope", [("rpn",), ("roi",)])
def test_heads_outside_the_scope_keep_their_losses(make_model, batch, scope):
    model = make_model("fasterrcnn")
    own = forward(model, batch)
    expected = gradients(model, sum(own.values()))
    split = install(model, scope).split(forward(model, batch))
    kept = {"rpn": {"loss_classifier", "loss_box_reg"}, "roi": {"loss_objectness", "loss_rpn_box_reg"}}
    assert set(split.rest) == kept[scope[0]]
    assert changed(gradients(model, total(split)), expected) == []


@pytest.mark.parametrize(
    ("builder", "levels"),
    [
        pytest.param(detection.ssd300_vgg16, "P3 P4 P5 P6 P7 P8", marks=pytest.mark.release),
        (detection.ssdlite320_mobilenet_v3_large, "P4 P5 P6 P7a P7b P8"),
    ],
)
def test_torchvisions_own_ssds_mine_first_and_split_afterwards(batch, builder, levels):
    torch.manual_seed(0)
    model = builder(weights=None, weights_backbone=None, num_classes=4).train()
    own = forward(model, batch)
    expected = gradients(model, sum(own.values()))
    seam = install(model)
    assert seam.groups[0].levels == tuple(levels.split())
    split = seam.split(forward(model, batch))
    assert torch.allclose(total(split), sum(own.values()), rtol=1e-5)
    assert changed(gradients(model, total(split)), expected) == []


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
    split = install(model, SCOPES[name]).split(forward(model, alone))
    assert all(float(losses.positives.sum()) == 0 for losses in split.groups.values())
    assert torch.isfinite(total(split))
    assert torch.allclose(total(split), sum(own.values()), rtol=1e-5)
    assert changed(gradients(model, total(split)), expected) == []


def test_positives_are_counted_on_the_level_that_has_them(make_model, batch):
    images, _ = batch
    targets = [
        {"boxes": torch.tensor([[12.0, 12.0, 20.0, 20.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.tensor([[0.0, 0.0, 96.0, 96.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    model = make_model("retinanet", anchor_sizes=(8, 16, 32, 64, 128))
    split = install(model).split(forward(model, (images, targets)))
    positives = split.groups["all"].positives
    assert positives[0] > 0 and positives[1:3].sum() == 0 and positives[3:].sum() > 0
    boxes = split.groups["all"].values[1]
    assert torch.equal(boxes > 0, positives > 0)


@every_head
def test_bypassed_the_model_is_torchvisions(make_model, batch, name):
    model = make_model(name)
    own = forward(model, batch)
    seam = install(model, SCOPES[name])
    with seam.bypassed():
        losses = forward(model, batch)
    assert all(torch.equal(losses[key], own[key]) for key in own)
    seam.remove()
    again = forward(model, batch)
    assert all(torch.equal(again[key], own[key]) for key in own)
    with pytest.raises(RuntimeError, match="Found none"):
        seam.split(again)


@every_head
def test_copies_and_pickles_carry_a_seam_of_their_own(make_model, batch, name):
    model = make_model(name)
    seam = install(model, SCOPES[name])
    forward(model, batch)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        before = seam._losses
        forward(twin, batch)
        assert seam._losses is before
    split = seam.split(forward(model, batch))
    assert all(float(losses.values.sum()) > 0 for losses in split.groups.values())


def test_evaluation_is_as_before(make_model, batch):
    model = make_model("fasterrcnn").eval()
    expected = model(batch[0])
    install(model, ("rpn", "roi"))
    found = model(batch[0])
    assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(found, expected, strict=True))


def test_a_backbone_that_lists_its_levels_coarsest_first_is_sorted(make_model, batch):
    plain, turned = make_model("retinanet"), make_model("retinanet")
    expected = install(plain).split(forward(plain, batch)).groups["all"].values

    class Turned(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.out_channels = inner, inner.out_channels

        def forward(self, x):
            return dict(reversed(self.inner(x).items()))

    turned.backbone = Turned(turned.backbone)
    turned.anchor_generator.cell_anchors.reverse()
    turned.anchor_generator.sizes = turned.anchor_generator.sizes[::-1]
    seam = install(turned)
    assert seam.groups[0].strides == (8, 16, 32, 64, 128)
    assert torch.allclose(seam.split(forward(turned, batch)).groups["all"].values, expected, rtol=1e-4)


# -- refusals ------------------------------------------------------------------------------------


def test_own_losses_are_refused(make_model):
    class OwnHead(RetinaNetHead):
        def compute_loss(self, *arguments):
            return {}

    class OwnClassification(RetinaNetClassificationHead):
        def compute_loss(self, *arguments):
            return 0

    model = make_model("retinanet")
    model.head.__class__ = OwnHead
    with pytest.raises(UnsplittableModelError, match=r"OwnHead.compute_loss.*overridden"):
        install(model)
    model = make_model("retinanet")
    model.head.classification_head.__class__ = OwnClassification
    with pytest.raises(UnsplittableModelError, match=r"OwnClassification.compute_loss.*overridden"):
        install(model)


def test_a_subclass_that_keeps_the_loss_is_balanced(make_model, batch):
    class Mine(RetinaNetHead):
        def forward(self, x):
            return super().forward(x)

    model = make_model("retinanet")
    model.head.__class__ = Mine
    seam = install(model)
    assert seam.groups[0].head == "Mine"
    assert float(seam.split(forward(model, batch)).groups["all"].values.sum()) > 0


def test_installing_twice_is_refused(make_model):
    model = make_model("retinanet")
    install(model)
    with pytest.raises(UnsplittableModelError, match="balanced already"):
        install(model)


def test_a_loss_changed_after_the_seam_is_refused(make_model, batch):
    model = make_model("retinanet")
    seam = install(model)
    losses = forward(model, batch)
    losses["classification"] = losses["classification"] * 2
    with pytest.raises(RuntimeError, match="`classification`"):
        seam.split(losses)


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
    with pytest.raises(UnsplittableModelError, match=r"at least two pyramid levels.*Found 1 \(stride 16\)"):
        install(model)

    # torchvision's MobileNet pyramid pools its RoIs from two maps of one stride: all are of one level.
    mobile = detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3
    )
    assert install(mobile).groups[0].levels == ("P5a", "P5b", "P6")
    mobile = detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3
    )
    with pytest.raises(UnsplittableModelError, match="leave `roi` out"):
        install(mobile, ("rpn", "roi"))
    assert "compute_loss" not in vars(mobile.rpn)


def test_other_models_and_scopes_are_refused(make_model):
    with pytest.raises(UnsplittableModelError, match="Found Linear"):
        install(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"scope.*Found \['mask'\]"):
        install(make_model("fasterrcnn"), ("mask",))
    model = make_model("fasterrcnn")
    model.roi_heads.box_roi_pool = nn.Identity()
    with pytest.raises(UnsplittableModelError, match="MultiScaleRoIAlign"):
        install(model, ("roi",))
    assert isinstance(make_model("fasterrcnn").roi_heads.box_roi_pool, MultiScaleRoIAlign)
