"""Builds a torchvision model from the spec's ``model:`` section.

Everything is made of torchvision's own parts; comments say where it differs from torchvision's builders.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.fcos import FCOS, FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

from msbal_torchvision import efficientnet_lite
from msbal_torchvision.backbones import group_norm, head_norm, make_pyramid, with_imagenet
from msbal_torchvision.spec import TorchvisionModel
from msbal_torchvision.weights import load_weights

# Images of this size and more get torchvision's anchors. Those of smaller images shrink with them; otherwise the coarse
# levels would have anchors larger than the image and nothing to learn.
FULL_SIZE = 640

ANCHOR_RATIOS = (0.5, 1.0, 2.0)


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


def _sizes(spec: TorchvisionModel) -> dict[str, Any]:
    return {"min_size": spec.min_size, "max_size": spec.max_size, **_colours(spec)}


def _colours(spec: TorchvisionModel) -> dict[str, Any]:
    """Return the mean and deviation of images that the backbone expects, with or without trained weights."""
    if spec.backbone == "efficientnet_lite0":
        return {"image_mean": efficientnet_lite.IMAGE_MEAN, "image_std": efficientnet_lite.IMAGE_STD}
    return {}  # torchvision's detectors already have those of its weights


def _post(spec: TorchvisionModel) -> dict[str, Any]:
    return {
        "score_thresh": spec.score_threshold,
        "nms_thresh": spec.nms_threshold,
        "detections_per_img": spec.detections_per_image,
    }


def _retinanet(spec: TorchvisionModel, classes: int) -> nn.Module:
    sizes = anchor_sizes(spec, (8, 16, 32, 64, 128), 4)
    octaves = tuple((size, size * 2 ** (1 / 3), size * 2 ** (2 / 3)) for size in sizes)
    anchors = AnchorGenerator(octaves, (spec.anchor_ratios or ANCHOR_RATIOS,) * len(octaves))
    head = RetinaNetHead(
        spec.fpn_channels, anchors.num_anchors_per_location()[0], classes, norm_layer=head_norm(spec)
    )
    for branch in (head.classification_head, head.regression_head):
        branch.conv = branch.conv[: spec.head_convs]
    return RetinaNet(  # type: ignore[no-any-return]
        make_pyramid(spec, 8, "p6p7"),
        classes,
        anchor_generator=anchors,
        head=head,
        **_sizes(spec),
        **_post(spec),
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
        make_pyramid(spec, 8, "p6p7"),
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
    anchors = AnchorGenerator(
        tuple((size,) for size in sizes), (spec.anchor_ratios or ANCHOR_RATIOS,) * len(sizes)
    )
    pool = MultiScaleRoIAlign(
        ["0", "1", "2", "3"], output_size=7, sampling_ratio=2, canonical_scale=round(224 * _shrink(spec))
    )
    post = {f"box_{key}": value for key, value in _post(spec).items()}
    return FasterRCNN(  # type: ignore[no-any-return]
        make_pyramid(spec, 4, "pool"),
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
    backbone = make_pyramid(spec, 8, "p6p7")
    # SSD wants the channels of each level, where a pyramid has one number.
    backbone.out_channels = [spec.fpn_channels] * len(scales)
    return SSD(backbone, boxes, (size, size), classes, **_colours(spec), **_post(spec))  # type: ignore[no-any-return]


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
    return with_imagenet(spec, make, "weights_backbone", weights, **arguments)


_BUILDERS: dict[str, Callable[[TorchvisionModel, int], nn.Module]] = {
    "retinanet": _retinanet,
    "fcos": _fcos,
    "fasterrcnn": _fasterrcnn,
    "ssd": _ssd,
}
