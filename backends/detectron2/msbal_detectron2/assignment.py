"""Which level a ground-truth box belongs to, by the model's own anchors.

For anchor heads it is the level of the anchor with the highest IoU, which detectron2's matchers give the box in any
case (``allow_low_quality_matches``). Of anchors of one shape the highest IoU is that of the grid point nearest to
the box's centre, so only that one is looked at: N boxes cost N times the anchors of one cell, not of an image.
FCOS goes by the distance from the box's centre to its farther edge, the RoI head by ``assign_boxes_to_levels``. Of
equals the finer level wins.

Shapes: N boxes of all images, K levels, A anchor shapes of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.structures import Boxes
from numpy.typing import NDArray
from torch import Tensor

from msbal.backend import LevelGroup
from msbal.data import DetectionData
from msbal_detectron2.splitters.roi import roi_levels


def count_boxes(
    model: Any, groups: Sequence[LevelGroup], data: DetectionData, augmentations: Sequence[Any]
) -> dict[str, list[int]]:
    """Boxes per level of each group, crowds left out.

    An image's own size decides its grids; what padding to the batch's largest image adds is not seen.

    Args:
        augmentations: detectron2's, that bring an image to the model's size; none of them random.
    """
    boxes, images = _resized(data, augmentations, model.backbone.size_divisibility)
    counts = {}
    for group in groups:
        if group.name.startswith("roi"):
            levels = roi_levels(model.roi_heads.box_pooler, [Boxes(boxes)])
        elif isinstance(model, FCOS):
            levels = _fcos_levels(group.strides, boxes)
        else:
            one_stage = group.name == "all"
            generator = (model if one_stage else model.proposal_generator).anchor_generator
            levels = _anchor_levels(generator, boxes, images)
        counts[group.name] = torch.bincount(levels, minlength=len(group.levels)).tolist()
    return counts


def _resized(data: DetectionData, augmentations: Sequence[Any], divisible: int) -> tuple[Tensor, Tensor]:
    """Boxes ``[N, 4]`` as the model sees them, and ``[N, 2]`` width and height of their padded images."""
    boxes: list[NDArray[np.float32]] = [np.zeros((0, 4), np.float32)]
    sizes: list[NDArray[np.float32]] = [np.zeros((0, 2), np.float32)]
    pixel = np.zeros((1, 1, 3), np.uint8)
    for record in data.images:
        kept = record.boxes[~record.crowd].astype(np.float32)
        width, height = record.width, record.height
        for augmentation in augmentations:
            # An image of this size that takes no memory: only its shape is looked at.
            transform = augmentation.get_transform(np.broadcast_to(pixel, (height, width, 3)))
            kept = np.asarray(transform.apply_box(kept), np.float32).reshape(-1, 4)
            width = getattr(transform, "new_w", width)
            height = getattr(transform, "new_h", height)
        step = max(divisible, 1)
        padded = [-(-side // step) * step for side in (width, height)]
        boxes.append(kept)
        sizes.append(np.tile(np.array(padded, np.float32), (len(kept), 1)))
    return torch.from_numpy(np.concatenate(boxes)), torch.from_numpy(np.concatenate(sizes))


def _anchor_levels(generator: Any, boxes: Tensor, images: Tensor) -> Tensor:
    best = [
        _best_iou(boxes, images, cell.detach().cpu(), float(stride), float(generator.offset))
        for cell, stride in zip(generator.cell_anchors, generator.strides, strict=True)
    ]
    # argmax takes the first of equals on the CPU, and levels are finest first.
    return torch.stack(best).argmax(dim=0)


def _best_iou(boxes: Tensor, images: Tensor, cell: Tensor, stride: float, offset: float) -> Tensor:
    """``[N]`` the highest IoU of each box with an anchor of one level, whose cell has ``[A, 4]``."""
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2).unsqueeze(1)
    cell_centre = (cell[:, :2] + cell[:, 2:]) / 2
    last = (torch.ceil(images / stride) - 1).unsqueeze(1)
    place = ((centre - cell_centre) / stride - offset).round().clamp(min=0)
    shift = (torch.minimum(place, last) + offset) * stride
    anchors = cell + torch.cat([shift, shift], dim=2)
    upper = torch.maximum(anchors[..., :2], boxes[:, None, :2])
    lower = torch.minimum(anchors[..., 2:], boxes[:, None, 2:])
    overlap = (lower - upper).clamp(min=0).prod(dim=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).unsqueeze(1)
    anchor_area = (anchors[..., 2:] - anchors[..., :2]).prod(dim=2)
    return (overlap / (anchor_area + area - overlap)).amax(dim=1)


def _fcos_levels(strides: Sequence[int], boxes: Tensor) -> Tensor:
    """``FCOS.label_anchors``: the finest level takes up to 8 strides, each next one twice as far."""
    reach = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) / 2
    upper = torch.tensor([8.0 * stride for stride in strides[:-1]])
    return (reach.unsqueeze(1) >= upper).sum(dim=1)
