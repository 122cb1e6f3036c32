"""Which level is responsible for a ground-truth box, by torchvision's anchors; see `msbal.backend.kit.assignment`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.fcos import FCOS
from torchvision.ops.poolers import initLevelMapper

from msbal.backend import LevelGroup
from msbal.backend.kit.assignment import Cell, anchor_levels, reach_levels
from msbal.data import DetectionData


def box_levels(model: Any, groups: Sequence[LevelGroup], data: DetectionData) -> dict[str, NDArray[np.int64]]:
    """Return the level of each box in each group, ``[N]``, without crowds.

    An image's own size decides its grids; padding to the batch's largest image is ignored.
    """
    boxes, images = _resized_boxes(model.transform, data)
    found = {}
    for group in groups:
        if group.name == "roi":
            levels = _roi_levels(model.roi_heads.box_roi_pool, group, boxes)
        elif isinstance(model, FCOS):
            # As ``FCOS.compute_loss``: the finest level takes up to 8 anchors' sides, each next one twice as far.
            levels = reach_levels(boxes, [8.0 * size[0] for size in model.anchor_generator.sizes[:-1]])
        else:
            generator = model.rpn.anchor_generator if group.name == "rpn" else model.anchor_generator
            levels = anchor_levels(boxes, images, _cells(generator, group))
        found[group.name] = levels.numpy()
    return found


def _resized_boxes(transform: Any, data: DetectionData) -> tuple[Tensor, Tensor]:
    """Return boxes ``[N, 4]`` as the model sees them, and ``[N, 2]`` width and height of their padded images."""
    counts = [int(np.count_nonzero(~record.crowd)) for record in data.images]
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(r.boxes[~r.crowd] for r in data.images)])
    size = np.array([(record.width, record.height) for record in data.images], np.float64).reshape(-1, 2)
    if transform.fixed_size is not None:
        height, width = transform.fixed_size[:2]
        resized = np.broadcast_to(np.array((width, height), np.float64), size.shape)
    else:
        scale = np.minimum(transform.min_size[-1] / size.min(axis=1), transform.max_size / size.max(axis=1))
        resized = np.floor(size * scale[:, None])
    ratio = np.tile(resized / size, 2).astype(np.float32)
    padded = np.ceil(resized / transform.size_divisible) * transform.size_divisible
    sizes = np.repeat(padded.astype(np.float32), counts, axis=0)
    return torch.from_numpy(boxes * np.repeat(ratio, counts, axis=0)), torch.from_numpy(sizes)


def _cells(
    generator: AnchorGenerator | DefaultBoxGenerator, group: LevelGroup
) -> list[Callable[[Tensor], Cell]]:
    if isinstance(generator, DefaultBoxGenerator):
        return [partial(_ssd_cell, generator, k, stride) for k, stride in enumerate(group.strides)]
    return [partial(_anchor_cell, generator.cell_anchors[k], s) for k, s in enumerate(group.strides)]


def _ssd_cell(generator: DefaultBoxGenerator, level: int, stride: int, images: Tensor) -> Cell:
    """SSD's boxes are shares of the image, whose size is the same for all."""
    wh = generator._wh_pairs[level]
    half = (wh.clamp(0, 1) if generator.clip else wh) * images[0] / 2
    return Cell(
        torch.cat([-half, half], dim=1), torch.full((2,), float(stride)), torch.ceil(images / stride), 0.5
    )


def _anchor_cell(anchors: Tensor, stride: int, images: Tensor) -> Cell:
    """torchvision's own strides are the image's size over the grid's, rounded down."""
    points = torch.ceil(images / stride)
    return Cell(anchors.cpu(), torch.floor(images / points), points, 0.0)


def _roi_levels(pool: Any, group: LevelGroup, boxes: Tensor) -> Tensor:
    first, last = (int(math.log2(stride)) for stride in (group.strides[0], group.strides[-1]))
    mapper = initLevelMapper(first, last, pool.canonical_scale, pool.canonical_level)
    levels: Tensor = mapper([boxes])
    return levels
