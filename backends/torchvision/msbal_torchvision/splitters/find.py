"""Finds the losses of a torchvision model that can be split into levels, and the levels themselves.

torchvision lists feature maps in the order in which the backbone returns them, which is finest first in all of its own
models. msbal always wants them finest first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD

from msbal.backend import LevelGroup
from msbal.backend.kit.splitter import MIN_LEVELS, level_names, require_levels
from msbal.errors import SpecError
from msbal_torchvision.splitters.fcos import FCOSSplitter
from msbal_torchvision.splitters.retinanet import RetinaNetSplitter
from msbal_torchvision.splitters.roi import RoISplitter, require_levels_of_rois
from msbal_torchvision.splitters.rpn import RPNSplitter
from msbal_torchvision.splitters.splitter import LevelSplitter
from msbal_torchvision.splitters.ssd import SSDSplitter

HEADS = ("rpn", "roi")  # of a two-stage model, in the order in which it computes their losses
DEFAULT_SCOPE = ("rpn",)
_PROBE_SIZE = 256  # pixels: two cells at stride 128


def find(model: nn.Module, scope: Sequence[str] = DEFAULT_SCOPE) -> list[LevelSplitter]:
    """Return the splitters of this model's losses; the model stays as it is.

    Args:
        model: a RetinaNet, FCOS, SSD, or a Faster, Mask or Keypoint R-CNN of torchvision, or of a subclass that keeps
            torchvision's loss.
        scope: which heads of a two-stage model, of ``rpn`` and ``roi``. One-stage models have one head.

    Raises:
        SpecError: where the model is none of these, has its own loss, lacks a head, or has a head with fewer than two
            levels.
    """
    detector: Any = model
    if isinstance(model, GeneralizedRCNN):
        if not scope or len(set(scope)) != len(scope) or not set(scope) <= set(HEADS):
            expected = f"one or more of {', '.join(HEADS)}, each at most once"
            raise SpecError("balance.scope", f"[{', '.join(scope)}]", expected)
        levels = find_levels(model)
        makers = {"rpn": _rpn, "roi": _roi}
        return [makers[name](detector, levels) for name in HEADS if name in scope]
    if tuple(scope) != DEFAULT_SCOPE:
        raise SpecError(
            "balance.scope", f"[{', '.join(scope)}] for {type(model).__name__}", "no scope",
            "leave it out: the model has one head",
        )  # fmt: skip
    if isinstance(model, SSD):
        return [_splitter(SSDSplitter, model, "all", detector.head, find_levels(model))]
    for kind, splitter in ((RetinaNet, RetinaNetSplitter), (FCOS, FCOSSplitter)):
        if isinstance(model, kind):
            return [_splitter(splitter, detector.head, "all", detector.head, find_levels(model))]
    raise SpecError(
        "model", type(model).__name__, "a torchvision RetinaNet, FCOS, SSD, or a Faster, Mask or Keypoint R-CNN",
        "of a wrapped model, balance what is in it; else use msbal.Balancer on your own level losses",
    )  # fmt: skip


@dataclass(frozen=True)
class Levels:
    """The feature maps of a model, in its backbone's order.

    Attributes:
        keys: the names under which the backbone returns them.
        strides: pixels per cell.
    """

    keys: tuple[str, ...]
    strides: tuple[int, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """Indices that sort the levels finest first."""
        return tuple(sorted(range(len(self.strides)), key=lambda level: self.strides[level]))


@torch.no_grad()
def find_levels(model: Any) -> Levels:
    """Run the backbone once, in evaluation mode, on an empty image, and read off the strides.

    Args:
        model: with torchvision's `backbone`, `transform` and anchor generator.
    """
    parameter = next(model.parameters())
    height, width = getattr(model.transform, "fixed_size", None) or (_PROBE_SIZE, _PROBE_SIZE)
    image = torch.zeros(1, 3, height, width, device=parameter.device, dtype=parameter.dtype)
    training = {module: module.training for module in model.backbone.modules()}
    model.backbone.eval()
    try:
        features = model.backbone(image)
    finally:
        for module, mode in training.items():
            module.training = mode
    if isinstance(features, Tensor):
        features = {"0": features}
    strides = [max(1, round(height / feature.shape[-2])) for feature in features.values()]
    # SSD has steps of its own, as its grids are no exact fractions of the image.
    steps = getattr(getattr(model, "anchor_generator", None), "steps", None)
    if steps is not None and len(steps) == len(strides):
        strides = [round(step) for step in steps]
    return Levels(tuple(features), tuple(strides))


def _splitter(
    kind: type[LevelSplitter], owner: nn.Module, name: str, head: nn.Module, levels: Levels
) -> LevelSplitter:
    """Make a splitter of all of the model's levels."""
    strides = tuple(levels.strides[level] for level in levels.order)
    require_levels(type(head).__name__, strides)
    return kind(owner, _group(kind, name, head, strides), levels.order)


def _group(kind: type[LevelSplitter], name: str, head: nn.Module, strides: tuple[int, ...]) -> LevelGroup:
    return LevelGroup(name, type(head).__name__, level_names(strides), strides, kind.term_names)


def _rpn(model: Any, levels: Levels) -> LevelSplitter:
    return _splitter(RPNSplitter, model.rpn, "rpn", model.rpn, levels)


def _roi(model: Any, levels: Levels) -> LevelSplitter:
    """Its levels are those that ``MultiScaleRoIAlign`` can choose: from its first map to its last, by octaves."""
    heads = model.roi_heads
    require_levels_of_rois(heads)
    names = heads.box_roi_pool.featmap_names
    pooled = [stride for key, stride in zip(levels.keys, levels.strides, strict=True) if key in names]
    first, last = (int(math.log2(stride)) for stride in (pooled[0], pooled[-1])) if pooled else (0, -1)
    strides = tuple(2**level for level in range(first, last + 1))
    if len(strides) < MIN_LEVELS:
        found = ", ".join(map(str, pooled)) or "none"
        raise SpecError(
            f"model: {type(heads).__name__}", f"it pools RoIs from maps of stride {found}: all are of one level",
            "at least two pyramid levels to balance", "leave `roi` out of the scope",
        )  # fmt: skip
    return RoISplitter(heads, _group(RoISplitter, "roi", heads, strides), range(len(strides)))
