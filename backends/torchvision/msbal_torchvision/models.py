"""Builds a torchvision model from the spec's ``model:`` section.

Everything is made of torchvision's own parts; comments say where it differs from torchvision's builders.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torchvision
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.fcos import FCOS, FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.models.detection.ssd import SSD
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from msbal.errors import SpecError
from msbal_torchvision.spec import TorchvisionModel
from msbal_torchvision.weights import load_weights

# Images of this size and more get torchvision's anchors. Those of smaller images shrink with them; otherwise the coarse
# levels would have anchors larger than the image and nothing to learn.
FULL_SIZE = 640


def build_model(spec: TorchvisionModel, classes: int) -> nn.Module:
    """Build the model, with random weights where the spec names none.

    Args:
        classes: their number without the background, which torchvision counts as class 0.

    Raises:
        SpecError: where weights cannot be found, downloaded or used.
    """
    build = _ssd_of_torchvision if spec.own_size else _BUILDERS[spec.name]
    model = build(spec, classes + 1)
    if spec.weights is not None:
        load_weights(model, spec.weights)
    return model


def anchor_sizes(spec: TorchvisionModel, strides: tuple[int, ...], per_stride: int) -> tuple[float, ...]:
    """Return the side of each level's smallest anchor, in pixels.

    Args:
        strides: those of the levels, finest first.
        per_stride: the side of an anchor in strides, at full size: 4 in RetinaNet, 8 in the RPN, 1 in FCOS.
    """
    if spec.anchor_sizes is not None:
        return spec.anchor_sizes
    return tuple(stride * per_stride * _shrink(spec) for stride in strides)


def _shrink(spec: TorchvisionModel) -> float:
    return min(1.0, max(spec.min_size) / FULL_SIZE)


# -- backbones -----------------------------------------------------------------------------------


def group_norm(channels: int) -> nn.GroupNorm:
    """Make a GroupNorm as in torchvision's RetinaNet v2, with fewer groups for few channels."""
    groups = next(
        groups for groups in (32, 16, 8, 4, 2, 1) if channels % groups == 0 and channels >= 2 * groups
    )
    return nn.GroupNorm(groups, channels)


def _norm(spec: TorchvisionModel) -> Callable[..., nn.Module]:
    name = spec.norm or ("frozen_bn" if spec.starts_trained else "bn")
    norms: dict[str, Callable[..., nn.Module]] = {
        "bn": nn.BatchNorm2d,
        "gn": group_norm,
        "frozen_bn": FrozenBatchNorm2d,
    }
    return norms[name]


def _fpn_norm(spec: TorchvisionModel) -> Callable[..., nn.Module] | None:
    # As in torchvision, none over a frozen backbone; from scratch the pyramid needs one to learn.
    return None if spec.norm == "frozen_bn" or (spec.norm is None and spec.starts_trained) else _norm(spec)


def _head_norm(spec: TorchvisionModel) -> Callable[..., nn.Module] | None:
    # Levels share a head: batch statistics would mix them and differ between training and prediction.
    return None if _fpn_norm(spec) is None else group_norm


def _with_imagenet(
    spec: TorchvisionModel, make: Callable[..., nn.Module], key: str, trained: str, /, **arguments: Any
) -> nn.Module:
    """Call `make`, with torchvision's ImageNet weights where the spec asks for them.

    Args:
        key: the argument of `make` that takes the weights.
        trained: the weights' name.
        arguments: further ones of `make`, of any name.
    """
    if not spec.pretrained:
        return make(**{key: None}, **arguments)
    try:
        return make(**{key: trained}, **arguments)
    except OSError as error:
        raise SpecError(
            "model.pretrained",
            f"the weights of {spec.backbone} could not be downloaded ({error})",
            "a connection, or the file in torch's cache",
            "give a local file as `model.weights`, or set `pretrained: false`",
        ) from error


def _pyramid(spec: TorchvisionModel, finest: int, extra: str) -> BackboneWithFPN:
    """Build a backbone with an FPN.

    Args:
        finest: the stride of the finest level, 4 or 8.
        extra: ``p6p7`` adds two strided convolutions on top, ``pool`` one pooling.
    """
    channels = spec.fpn_channels
    extra_block = LastLevelMaxPool() if extra == "pool" else LastLevelP6P7(channels, channels)
    make = getattr(torchvision.models, spec.backbone)
    body: Any = _with_imagenet(spec, make, "weights", "IMAGENET1K_V1", norm_layer=_norm(spec))
    if spec.backbone.startswith("resnet"):
        stages = ["layer4", "layer3", "layer2", "layer1", "conv1"]
        layers = _layers_to_train(spec, len(stages), 3)
        trained = [*stages[:layers], *(["bn1"] if layers == len(stages) else [])]
        for name, parameter in body.named_parameters():
            parameter.requires_grad_(any(name.startswith(stage) for stage in trained))
        returned = [1, 2, 3, 4] if finest == 4 else [2, 3, 4]
        return_layers = {f"layer{stage}": str(level) for level, stage in enumerate(returned)}
        width = body.inplanes // 8
        in_channels = [width * 2 ** (stage - 1) for stage in returned]
    else:
        # One stage of each stride, so that the levels are octaves. torchvision's own builder takes the last two stages,
        # both of stride 32.
        body = body.features
        strided = (
            [0] + [i for i, block in enumerate(body) if getattr(block, "_is_cn", False)] + [len(body) - 1]
        )
        layers = _layers_to_train(spec, len(strided), 3)
        frozen = len(body) if layers == 0 else strided[len(strided) - layers]
        for block in body[:frozen]:
            block.requires_grad_(False)
        stages_used = ([strided[1]] if finest == 4 else []) + [strided[2], strided[3], strided[-1]]
        return_layers = {str(stage): str(level) for level, stage in enumerate(stages_used)}
        in_channels = [body[stage].out_channels for stage in stages_used]
    return BackboneWithFPN(
        body, return_layers, in_channels, channels, extra_blocks=extra_block, norm_layer=_fpn_norm(spec)
    )


def _layers_to_train(spec: TorchvisionModel, stages: int, default: int) -> int:
    if spec.trainable_layers is None:
        return default if spec.starts_trained else stages
    if spec.trainable_layers > stages:
        raise SpecError(
            "model.trainable_layers", str(spec.trainable_layers), f"at most {stages} for {spec.backbone}"
        )
    return spec.trainable_layers


# -- detectors -----------------------------------------------------------------------------------


def _sizes(spec: TorchvisionModel) -> dict[str, Any]:
    return {"min_size": spec.min_size, "max_size": spec.max_size}


def _post(spec: TorchvisionModel) -> dict[str, Any]:
    return {
        "score_thresh": spec.score_threshold,
        "nms_thresh": spec.nms_threshold,
        "detections_per_img": spec.detections_per_image,
    }


def _retinanet(spec: TorchvisionModel, classes: int) -> nn.Module:
    sizes = anchor_sizes(spec, (8, 16, 32, 64, 128), 4)
    octaves = tuple((size, size * 2 ** (1 / 3), size * 2 ** (2 / 3)) for size in sizes)
    anchors = AnchorGenerator(octaves, ((0.5, 1.0, 2.0),) * len(octaves))
    head = RetinaNetHead(
        spec.fpn_channels, anchors.num_anchors_per_location()[0], classes, norm_layer=_head_norm(spec)
    )
    for branch in (head.classification_head, head.regression_head):
        branch.conv = branch.conv[: spec.head_convs]
    return RetinaNet(  # type: ignore[no-any-return]
        _pyramid(spec, 8, "p6p7"), classes, anchor_generator=anchors, head=head, **_sizes(spec), **_post(spec)
    )


def _fcos(spec: TorchvisionModel, classes: int) -> nn.Module:
    sizes = anchor_sizes(spec, (8, 16, 32, 64, 128), 1)
    anchors = AnchorGenerator(tuple((size,) for size in sizes), ((1.0,),) * len(sizes))
    # FCOSHead has 32 groups, too many for few channels; its branches take any norm.
    head = FCOSHead(32, 1, classes, num_convs=1)
    channels, convs = spec.fpn_channels, spec.head_convs
    head.classification_head = FCOSClassificationHead(channels, 1, classes, convs, norm_layer=group_norm)
    head.regression_head = FCOSRegressionHead(channels, 1, convs, norm_layer=group_norm)
    return FCOS(  # type: ignore[no-any-return]
        _pyramid(spec, 8, "p6p7"),
        classes,
        anchor_generator=anchors,
        head=head,
        # Its unit is the anchor, which on small images is smaller than a stride, while points stay a stride apart.
        center_sampling_radius=1.5 * max(1.0, 8 / sizes[0]),
        **_sizes(spec),
        **_post(spec),
    )


def _fasterrcnn(spec: TorchvisionModel, classes: int) -> nn.Module:
    sizes = anchor_sizes(spec, (4, 8, 16, 32, 64), 8)
    anchors = AnchorGenerator(tuple((size,) for size in sizes), ((0.5, 1.0, 2.0),) * len(sizes))
    pool = MultiScaleRoIAlign(
        ["0", "1", "2", "3"], output_size=7, sampling_ratio=2, canonical_scale=round(224 * _shrink(spec))
    )
    post = {f"box_{key}": value for key, value in _post(spec).items()}
    return FasterRCNN(  # type: ignore[no-any-return]
        _pyramid(spec, 4, "pool"),
        classes,
        rpn_anchor_generator=anchors,
        box_roi_pool=pool,
        **_sizes(spec),
        **post,
    )


def _ssd(spec: TorchvisionModel, classes: int) -> nn.Module:
    """Build SSD's boxes and loss over a feature pyramid, for images of `min_size` pixels squared."""
    size = max(spec.min_size)
    strides = (8, 16, 32, 64, 128)
    scales = [side / size for side in anchor_sizes(spec, strides, 4)]
    boxes = DefaultBoxGenerator(
        [[2, 3]] * len(scales), scales=[*scales, min(1.05, 2 * scales[-1])], steps=list(strides)
    )
    backbone = _pyramid(spec, 8, "p6p7")
    # SSD wants the channels of each level, where a pyramid has one number.
    backbone.out_channels = [spec.fpn_channels] * len(scales)
    return SSD(backbone, boxes, (size, size), classes, **_post(spec))  # type: ignore[no-any-return]


def _ssd_of_torchvision(spec: TorchvisionModel, classes: int) -> nn.Module:
    norm = spec.norm or ("frozen_bn" if spec.starts_trained else "bn")
    arguments: dict[str, Any] = {
        "weights": None,
        "num_classes": classes,
        "trainable_backbone_layers": spec.trainable_layers if spec.starts_trained else None,
        **_post(spec),
    }
    weights = "IMAGENET1K_FEATURES" if spec.backbone == "vgg16" else "IMAGENET1K_V1"
    if spec.backbone == "vgg16":
        make = detection.ssd300_vgg16  # VGG has no normalisation layers
    else:
        make = detection.ssdlite320_mobilenet_v3_large
        own = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
        arguments["norm_layer"] = {"bn": own, "gn": group_norm, "frozen_bn": own}[norm]
    return _with_imagenet(spec, make, "weights_backbone", weights, **arguments)


_BUILDERS: dict[str, Callable[[TorchvisionModel, int], nn.Module]] = {
    "retinanet": _retinanet,
    "fcos": _fcos,
    "fasterrcnn": _fasterrcnn,
    "ssd": _ssd,
}
