"""The backbones of torchvision's detectors, each with a feature pyramid on top."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torchvision
from torch import nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from msbal.errors import SpecError
from msbal_torchvision import efficientnet_lite
from msbal_torchvision.spec import TorchvisionModel


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
    if spec.backbone == "efficientnet_lite0":
        batch_norm = efficientnet_lite.BatchNorm
        norms |= {"bn": batch_norm, "frozen_bn": partial(FrozenBatchNorm2d, eps=batch_norm.keywords["eps"])}
    return norms[name]


def _fpn_norm(spec: TorchvisionModel) -> Callable[..., nn.Module] | None:
    if spec.fpn_norm is not None:
        return group_norm if spec.fpn_norm == "gn" else None
    # As in torchvision, none over a frozen backbone; from scratch the pyramid needs one to learn.
    return None if spec.norm == "frozen_bn" or (spec.norm is None and spec.starts_trained) else _norm(spec)


def head_norm(spec: TorchvisionModel) -> Callable[..., nn.Module] | None:
    """Return the normalisation of a head: levels share it, and batch statistics would mix them."""
    return None if _fpn_norm(spec) is None else group_norm


def with_imagenet(
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
            "give a local file as `model.weights`, set `pretrained: false`, or take `backbone: efficientnet_lite0`, "
            "whose weights come as a package",
        ) from error


def make_pyramid(spec: TorchvisionModel, finest: int, extra: str) -> BackboneWithFPN:
    """Build a backbone with an FPN.

    Args:
        finest: the stride of the finest level, 4 or 8.
        extra: ``p6p7`` adds two strided convolutions on top, ``pool`` one pooling.
    """
    channels = spec.fpn_channels
    extra_block = LastLevelMaxPool() if extra == "pool" else LastLevelP6P7(channels, channels)
    make_body = {"efficientnet_lite0": _lite, "mobilenet_v3_large": _mobilenet}.get(spec.backbone, _resnet)
    body, stages = make_body(spec)
    used = dict(list(stages.items())[-4 if finest == 4 else -3 :])
    return BackboneWithFPN(
        body,
        {stage: str(level) for level, stage in enumerate(used)},
        list(used.values()),
        channels,
        extra_blocks=extra_block,
        norm_layer=_fpn_norm(spec),
    )


# Each of the following returns a body, and its modules that compute the levels of strides 4 to 32, with their channels.


def _resnet(spec: TorchvisionModel) -> tuple[nn.Module, dict[str, int]]:
    body = _of_torchvision(spec)
    stages = ["layer4", "layer3", "layer2", "layer1", "conv1"]
    layers = _layers_to_train(spec, len(stages))
    trained = [*stages[:layers], *(["bn1"] if layers == len(stages) else [])]
    for name, parameter in body.named_parameters():
        parameter.requires_grad_(any(name.startswith(stage) for stage in trained))
    return body, {f"layer{stage}": body.inplanes // 2 ** (4 - stage) for stage in (1, 2, 3, 4)}


def _mobilenet(spec: TorchvisionModel) -> tuple[nn.Module, dict[str, int]]:
    # One stage of each stride, so that the levels are octaves. torchvision's own builder takes the last two stages,
    # both of stride 32.
    body = _of_torchvision(spec).features
    strided = [0] + [i for i, block in enumerate(body) if getattr(block, "_is_cn", False)] + [len(body) - 1]
    layers = _layers_to_train(spec, len(strided))
    _freeze(body[: len(body) if layers == 0 else strided[len(strided) - layers]])
    return body, {str(stage): body[stage].out_channels for stage in (*strided[1:4], strided[-1])}


def _lite(spec: TorchvisionModel) -> tuple[nn.Module, dict[str, int]]:
    net = efficientnet_lite.EfficientNetLite0(_norm(spec))
    if spec.pretrained:
        net.load_state_dict(efficientnet_lite.imagenet_weights())
    body = net.features()
    lasts = [str(last) for last, _ in net.levels]
    layers = _layers_to_train(spec, len(lasts))
    names = [name for name, _ in body.named_children()]
    _freeze(body[: 0 if layers == len(lasts) else names.index(lasts[-1 - layers]) + 1])
    return body, {str(last): channels for last, channels in net.levels[1:]}


def _of_torchvision(spec: TorchvisionModel) -> Any:
    make = getattr(torchvision.models, spec.backbone)
    return with_imagenet(spec, make, "weights", "IMAGENET1K_V1", norm_layer=_norm(spec))


def _freeze(blocks: Any) -> None:
    for block in blocks:
        block.requires_grad_(False)


def _layers_to_train(spec: TorchvisionModel, stages: int) -> int:
    if spec.trainable_layers is None:
        return 3 if spec.starts_trained else stages
    if spec.trainable_layers > stages:
        raise SpecError(
            "model.trainable_layers", str(spec.trainable_layers), f"at most {stages} for {spec.backbone}"
        )
    return spec.trainable_layers
