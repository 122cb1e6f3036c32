"""The spec's model section, the models made from it, and starting weights."""

from __future__ import annotations

import pickle

import pytest
import torch
import torchvision
from pydantic import ValidationError
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from msbal.backend import load_backend
from msbal.errors import SpecError
from msbal_torchvision.models import build_model
from msbal_torchvision.spec import TorchvisionModel
from msbal_torchvision.splitters import find
from msbal_torchvision.weights import load_weights


def build(**keys):
    torch.manual_seed(0)
    return build_model(TorchvisionModel(**keys), 3).train()


def norms(module):
    kinds = (nn.BatchNorm2d, nn.GroupNorm, FrozenBatchNorm2d)
    return {type(part) for part in module.modules() if isinstance(part, kinds)}


def one_image(size=96):
    target = {"boxes": torch.tensor([[10.0, 10.0, 50.0, 60.0]]), "labels": torch.tensor([2])}
    return [torch.rand(3, size, size)] * 2, [target] * 2


@pytest.mark.parametrize("name", ["retinanet", "fcos", "fasterrcnn", "ssd"])
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_large"])
def test_every_detector_has_every_backbone_and_five_octaves(real_backbone, name, backbone):
    model = build(name=name, backbone=backbone, min_size=96, fpn_channels=16, head_convs=1)
    group = find(model)[0].group
    if name == "ssd" and backbone == "mobilenet_v3_large":
        assert len(group.levels) == 6
        return
    first = 4 if name == "fasterrcnn" else 8
    assert group.strides == tuple(first * 2**k for k in range(5))
    losses = model(*one_image())
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())


@pytest.mark.parametrize("backbone", ["resnet34", "resnet50", "resnet101"])
def test_deeper_backbones_fit_the_pyramid(real_backbone, backbone):
    model = build(backbone=backbone, min_size=64, fpn_channels=16)
    blocks = model.backbone.fpn.inner_blocks
    wide = 512 if backbone == "resnet34" else 2048
    assert blocks[2][0].in_channels == wide


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"backbone": "vgg16"}, "ssd` only"),
        ({"norm": "frozen_bn"}, "never learns"),
        ({"min_size": 16}, "at least 32"),
        ({"min_size": [64, 2000]}, "at most `max_size`"),
        ({"anchor_sizes": [8, 16]}, "5 sizes"),
        ({"anchor_sizes": [8, 16, 32, 32, 64]}, "rise"),
        ({"name": "ssd", "backbone": "vgg16", "anchor_sizes": [8, 16, 32, 64, 128]}, "own default boxes"),
        ({"anchor_ratios": [1, 1]}, "differ"),
        ({"name": "fcos", "anchor_ratios": [1]}, "only to retinanet and fasterrcnn"),
        ({"name": "ssd", "backbone": "vgg16", "fpn_norm": "gn"}, "no feature pyramid"),
        ({"pretrained": True, "weights": "a.pth"}, "not both"),
        ({"backbone": "resnet19"}, "resnet18"),
        ({"colour": 1}, "Extra inputs"),
        ({"fpn_channels": 20}, "multiple of 8"),
    ],
)
def test_what_does_not_fit_is_refused(changes, match):
    with pytest.raises(ValidationError, match=match):
        TorchvisionModel(**changes)


def test_every_key_is_described():
    assert all(field.description for field in TorchvisionModel.model_fields.values())


def test_small_images_get_small_anchors(make_model):
    small = build(name="retinanet", backbone="resnet18", min_size=160, fpn_channels=16)
    assert [round(sizes[0]) for sizes in small.anchor_generator.sizes] == [8, 16, 32, 64, 128]
    large = build(name="retinanet", backbone="resnet18", fpn_channels=16)
    assert [round(sizes[0]) for sizes in large.anchor_generator.sizes] == [32, 64, 128, 256, 512]
    own = build(backbone="resnet18", anchor_sizes=(10, 20, 40, 80, 160), fpn_channels=16)
    assert [round(sizes[0]) for sizes in own.anchor_generator.sizes] == [10, 20, 40, 80, 160]


@pytest.mark.parametrize(("name", "sizes"), [("retinanet", 3), ("fasterrcnn", 1)])
def test_anchors_have_the_ratios_of_the_spec(name, sizes):
    model = build(name=name, backbone="resnet18", fpn_channels=16, anchor_ratios=(1.0, 3.0))
    generator = model.anchor_generator if name == "retinanet" else model.rpn.anchor_generator
    assert generator.aspect_ratios == ((1.0, 3.0),) * 5
    assert generator.num_anchors_per_location() == [2 * sizes] * 5


@pytest.mark.parametrize(("norm", "kind"), [("bn", nn.BatchNorm2d), ("gn", nn.GroupNorm)])
def test_normalisation_of_backbone_and_head(make_model, norm, kind):
    model = make_model("retinanet", norm=norm)
    assert norms(model.backbone) == {kind}
    # Levels share the head, which batch statistics would mix.
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.head.modules())


@pytest.mark.parametrize(("fpn_norm", "kinds"), [("gn", {nn.GroupNorm}), ("none", set())])
def test_normalisation_of_the_pyramid_is_a_choice_of_its_own(make_model, fpn_norm, kinds):
    model = make_model("retinanet", norm="bn", fpn_norm=fpn_norm)
    assert norms(model.backbone.body) == {nn.BatchNorm2d}
    assert norms(model.backbone.fpn) == norms(model.head) == kinds


def test_the_same_seed_builds_the_same_model(make_run):
    first, second = make_run("a").detector, make_run("b").detector
    other = make_run("c", seed=1).detector
    key = "head.classification_head.cls_logits.weight"
    assert torch.equal(first.model.state_dict()[key], second.model.state_dict()[key])
    assert not torch.equal(first.model.state_dict()[key], other.model.state_dict()[key])


# -- weights -------------------------------------------------------------------------------------


def test_weights_of_a_backbone_a_model_or_a_checkpoint(make_model, tmp_path):
    source = make_model("retinanet")
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(1.0)
    files = {
        "backbone": source.backbone.body.state_dict(),
        "model": source.state_dict(),
        "checkpoint": {"model": source.state_dict(), "iteration": 3},
        "parallel": {f"module.{name}": value for name, value in source.state_dict().items()},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / f"{name}.pth")
        model = make_model("retinanet", weights=tmp_path / f"{name}.pth", norm="bn")
        body, head = "backbone.body.layer4.0.weight", "head.regression_head.bbox_reg.weight"
        assert torch.equal(model.state_dict()[body], source.state_dict()[body]), name
        assert torch.equal(model.state_dict()[head], source.state_dict()[head]) == (name != "backbone")


def test_another_class_list_keeps_the_rest_and_says_so(make_model, tmp_path):
    source = make_model("retinanet", classes=7)
    torch.save(source.state_dict(), tmp_path / "seven.pth")
    with pytest.warns(UserWarning, match="cls_logits"):
        load_weights(make_model("retinanet"), tmp_path / "seven.pth")


def test_bad_weights_are_refused_in_one_line(make_model, tmp_path):
    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"model": Malicious()}))
    torch.save({"model": Malicious()}, tmp_path / "evil_zip.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").touch()
    torch.save({"conv9.weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    files = ["evil.pth", "evil_zip.pth", "text.pth", "empty.pth", "other.pth", "list.pth", "missing.pth", "."]
    for name in files:
        with pytest.raises(SpecError) as caught:
            load_weights(make_model("retinanet"), tmp_path / name)
        assert "\n" not in str(caught.value), name
    assert not (tmp_path / "executed").exists()


def test_frozen_stages(make_model, tmp_path, real_backbone):
    resnet = torchvision.models.resnet18()
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    model = build(
        backbone="resnet18",
        min_size=64,
        fpn_channels=16,
        weights=tmp_path / "resnet18.pth",
        trainable_layers=2,
    )
    trained = {name.split(".")[0] for name, p in model.backbone.body.named_parameters() if p.requires_grad}
    assert trained == {"layer3", "layer4"}
    assert norms(model.backbone) == {FrozenBatchNorm2d}
    assert torch.equal(model.backbone.body.conv1.weight, resnet.conv1.weight)


def test_no_network_is_said_in_one_line(monkeypatch, real_backbone):
    def unreachable(*arguments, **keys):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", unreachable)
    with pytest.raises(SpecError, match=r"model.pretrained.*could not be downloaded"):
        build(backbone="resnet18", min_size=64, pretrained=True)


# -- the backend ---------------------------------------------------------------------------------


def test_the_backend_is_found_and_well():
    backend = load_backend("torchvision")
    diagnosis = backend.diagnose()
    assert not diagnosis.problems and {"torch", "torchvision"} <= set(diagnosis.versions)


def test_a_scope_that_does_not_fit_is_refused(make_run):
    with pytest.raises(SpecError, match=r"balance.scope.*one head"):
        make_run(balance={"scope": ["rpn"]})
    with pytest.raises(SpecError, match=r"balance.scope.*mask"):
        make_run(model={"name": "fasterrcnn"}, balance={"scope": ["mask"]})
