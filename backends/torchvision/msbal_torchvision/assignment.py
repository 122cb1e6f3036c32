"""Which level a ground-truth box belongs to, by the model's own anchors.

For anchor heads it is the level of the anchor with the highest IoU, the anchor that torchvision's matchers
give the box in any case. Of anchors of one shape the highest IoU is that of the grid point nearest to the
box's centre, so only that one is looked at: N boxes cost N times the anchors of one cell, not of an image.
FCOS goes by the distance from the box's centre to its farther edge, the RoI head by ``map_levels``. Of equals
the finer level wins.

Shapes: N boxes of all images, K levels, A anchor shapes of a level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.fcos import FCOS
from torchvision.ops.poolers import initLevelMapper

from msbal.backend import LevelGroup
from msbal.data import DetectionData

_AT_ONCE = 8192  # boxes


def count_boxes(model: Any, groups: Sequence[LevelGroup], data: DetectionData) -> dict[str, list[int]]:
    """Boxes per level of each group, crowds left out.

    An image's own size decides its grids; what padding to the batch's largest image adds is not seen.
    """
    boxes, images = _resized_boxes(model.transform, data)
    counts = {}
    for group in groups:
        if group.name == "roi":
            levels = _roi_levels(model.roi_heads.box_roi_pool, group, boxes)
        elif isinstance(model, FCOS):
            levels = _fcos_levels(model.anchor_generator, boxes)
        else:
            generator = model.rpn.anchor_generator if group.name == "rpn" else model.anchor_generator
            levels = _anchor_levels(generator, group, boxes, images)
        counts[group.name] = torch.bincount(levels, minlength=len(group.levels)).tolist()
    return counts


def _resized_boxes(transform: Any, data: DetectionData) -> tuple[Tensor, Tensor]:
    """Boxes ``[N, 4]`` as the model sees them, and ``[N, 2]`` height and width of their padded images."""
    counts = [int(np.count_nonzero(~record.crowd)) for record in data.images]
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(r.boxes[~r.crowd] for r in data.images)])
    size = np.array([(record.height, record.width) for record in data.images], np.float64).reshape(-1, 2)
    if transform.fixed_size is not None:
        resized = np.broadcast_to(np.array(transform.fixed_size[:2], np.float64), size.shape)
    else:
        scale = np.minimum(transform.min_size[-1] / size.min(axis=1), transform.max_size / size.max(axis=1))
        resized = np.floor(size * scale[:, None])
    ratio = (resized / size)[:, [1, 0, 1, 0]].astype(np.float32)
    padded = np.ceil(resized / transform.size_divisible) * transform.size_divisible
    sizes = np.repeat(padded.astype(np.float32), counts, axis=0)
    return torch.from_numpy(boxes * np.repeat(ratio, counts, axis=0)), torch.from_numpy(sizes)


def _anchor_levels(
    generator: AnchorGenerator | DefaultBoxGenerator, group: LevelGroup, boxes: Tensor, images: Tensor
) -> Tensor:
    found = [torch.zeros(0, dtype=torch.long)]
    # What is computed for a million boxes at once fits no cache.
    for some, their_images in zip(torch.split(boxes, _AT_ONCE), torch.split(images, _AT_ONCE), strict=True):
        best = torch.stack(
            [
                _best_iou(some, their_images, *_cell(generator, level, stride, their_images))
                for level, stride in enumerate(group.strides)
            ]
        )
        # argmax takes the first of equals on the CPU, and levels are finest first.
        found.append(best.argmax(dim=0))
    return torch.cat(found)


def _cell(
    generator: AnchorGenerator | DefaultBoxGenerator, level: int, stride: int, images: Tensor
) -> tuple[Tensor, float, Tensor]:
    """A cell's anchors ``[1, A, 4]`` around the origin, where in it the grid point lies, strides ``[N, 2]``."""
    if isinstance(generator, DefaultBoxGenerator):
        wh = generator._wh_pairs[level]
        wh = wh.clamp(0, 1) if generator.clip else wh
        half = wh * images[:1].flip(1) / 2 if len(images) else wh
        grid = torch.full_like(images, float(stride))
        return torch.cat([-half, half], dim=1).unsqueeze(0), 0.5, grid
    cells = torch.ceil(images / stride)
    # torchvision's own strides: the image's size over the grid's, rounded down.
    return generator.cell_anchors[level].cpu().unsqueeze(0), 0.0, torch.floor(images / cells)


def _best_iou(boxes: Tensor, images: Tensor, shapes: Tensor, offset: float, grid: Tensor) -> Tensor:
    """``[N]`` the highest IoU of each box with an anchor of one level."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    step = grid.flip(1)  # height and width to x and y
    last = torch.ceil(images.flip(1) / step) - 1
    shape_centre = (shapes[..., :2] + shapes[..., 2:]) / 2
    place = (centre.unsqueeze(1) - shape_centre) / step.unsqueeze(1) - offset
    place = torch.minimum(place.round().clamp(min=0), last.unsqueeze(1))
    shift = (place + offset) * step.unsqueeze(1)
    anchors = shapes + torch.cat([shift, shift], dim=2)
    upper = torch.maximum(anchors[..., :2], boxes[:, None, :2])
    lower = torch.minimum(anchors[..., 2:], boxes[:, None, 2:])
    overlap = (lower - upper).clamp(min=0).prod(dim=2)
    areas = (anchors[..., 2:] - anchors[..., :2]).prod(dim=2) + (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)[
        :, None
    ]
    return (overlap / (areas - overlap)).amax(dim=1)


def _fcos_levels(generator: AnchorGenerator, boxes: Tensor) -> Tensor:
    """``FCOS.compute_loss``: the finest level takes up to 8 anchors' sides, each next one twice as far."""
    reach = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) / 2
    upper = torch.tensor([8.0 * size[0] for size in generator.sizes[:-1]])
    return (reach.unsqueeze(1) >= upper).sum(dim=1)


def _roi_levels(pool: Any, group: LevelGroup, boxes: Tensor) -> Tensor:
    first, last = (int(math.log2(stride)) for stride in (group.strides[0], group.strides[-1]))
    mapper = initLevelMapper(first, last, pool.canonical_scale, pool.canonical_level)
    levels: Tensor = mapper([boxes])
    return levels
