"""Put the seam into a torchvision model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

from msbal.backend import LevelGroup
from msbal_torchvision.seams.fcos import FCOSPart
from msbal_torchvision.seams.levels import Levels, find_levels, name_levels, require_two_levels
from msbal_torchvision.seams.retinanet import RetinaNetPart
from msbal_torchvision.seams.roi import RoIPart
from msbal_torchvision.seams.rpn import RPNPart
from msbal_torchvision.seams.seam import Seam, UnsplittableModelError
from msbal_torchvision.seams.ssd import SSDPart

_ONE_STAGE: tuple[tuple[type[nn.Module], Any], ...] = (
    (RetinaNet, RetinaNetPart),
    (FCOS, FCOSPart),
    (SSD, SSDPart),
)
_TWO_STAGE: dict[str, Any] = {"rpn": RPNPart, "roi": RoIPart}


def install(model: nn.Module, scope: Sequence[str] = ("rpn",)) -> Seam:
    """Put the seam into this one model; torchvision itself, and other models, stay as they are.

    Args:
        model: a RetinaNet, FCOS, SSD, or a Faster, Mask or Keypoint R-CNN of torchvision, or of a subclass
            that keeps torchvision's loss.
        scope: which heads of a two-stage model to split, of ``rpn`` and ``roi``. One-stage models have one
            head, and do not look at it.

    Raises:
        UnsplittableModelError: where the model is none of these, has its own loss, or a head of it has
            fewer than two levels.
        ValueError: where `scope` names another head.
    """
    parts: list[tuple[Any, LevelGroup, tuple[int, ...]]] = []
    one_stage = next((part for kind, part in _ONE_STAGE if isinstance(model, kind)), None)
    if one_stage is not None:
        one_stage.check(model)
        levels = find_levels(model)
        parts.append((one_stage, *_group("all", _head(model), levels, one_stage.terms)))
    elif isinstance(model, GeneralizedRCNN):
        unknown = [name for name in scope if name not in _TWO_STAGE]
        if unknown or not scope or len(set(scope)) != len(tuple(scope)):
            raise ValueError(
                f"scope should be of {list(_TWO_STAGE)}, each at most once. Found {list(scope)}."
            )
        # The RPN's loss is computed first, whatever the order in the scope.
        for name in (name for name in _TWO_STAGE if name in scope):
            _TWO_STAGE[name].check(model)
        levels = find_levels(model)
        for name in (name for name in _TWO_STAGE if name in scope):
            part = _TWO_STAGE[name]
            if name == "rpn":
                parts.append((part, *_group(name, model.rpn, levels, part.terms)))
            else:
                parts.append((part, *_roi_group(model, levels)))
    else:
        raise UnsplittableModelError(
            "The model should be a torchvision RetinaNet, FCOS, SSD, or a Faster, Mask or Keypoint R-CNN. "
            f"Found {type(model).__name__}"
        )
    seam = Seam(tuple(group for _, group, _ in parts))
    for part, group, order in parts:
        part(seam, group, order).install(model)
    return seam


def _head(model: Any) -> nn.Module:
    head: nn.Module = model.head
    return head


def _group(
    name: str, head: nn.Module, levels: Levels, terms: tuple[str, ...]
) -> tuple[LevelGroup, tuple[int, ...]]:
    order = levels.order
    strides = tuple(levels.strides[level] for level in order)
    require_two_levels(head, strides)
    return LevelGroup(name, type(head).__name__, name_levels(strides), strides, terms), order


def _roi_group(model: Any, levels: Levels) -> tuple[LevelGroup, tuple[int, ...]]:
    """The levels that ``MultiScaleRoIAlign`` can choose: from the first of its maps to the last, by octaves."""
    heads, pool = model.roi_heads, model.roi_heads.box_roi_pool
    assert isinstance(pool, MultiScaleRoIAlign)
    pooled = [
        stride for key, stride in zip(levels.keys, levels.strides, strict=True) if key in pool.featmap_names
    ]
    if pooled:
        first, last = (int(math.log2(stride)) for stride in (pooled[0], pooled[-1]))
        strides = tuple(2**level for level in range(first, last + 1))
    else:
        strides = ()
    require_two_levels(
        heads,
        strides,
        f"its RoIs are pooled from feature maps of stride {', '.join(map(str, pooled)) or 'none'}, "
        "so all of them belong to one level; leave `roi` out of the scope",
    )
    group = LevelGroup("roi", type(heads).__name__, name_levels(strides), strides, RoIPart.terms)
    return group, tuple(range(len(strides)))
