"""Which level is responsible for a ground-truth box, by a model's own anchors.

For anchor heads it is the level of the anchor with the highest IoU, the anchor that the frameworks' matchers give the
box in any case. Of anchors of one shape that is the one at the grid point nearest to the box's centre, so that only
this one is computed: N boxes cost N times the anchors of one cell, not of an image. FCOS goes by the distance from the
box's centre to its farther edge. Of equals the finer level wins.

Shapes: N boxes of all images, A anchor shapes of a level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_AT_ONCE = 8192  # boxes: a million at once would fit no cache


class Cell(NamedTuple):
    """The anchors of one cell of a level's grid.

    Attributes:
        anchors: ``[A, 4]``, x1, y1, x2, y2 around the origin.
        step: ``[2]`` or ``[N, 2]`` pixels from one grid point to the next, in x and y.
        offset: where in a cell its grid point lies: 0 at the corner, 0.5 in the centre.
    """

    anchors: Tensor
    step: Tensor
    offset: float


def anchor_levels(boxes: Tensor, images: Tensor, cells: Sequence[Callable[[Tensor], Cell]]) -> Tensor:
    """Return ``[N]``, the level of the anchor with the highest IoU with each box.

    Args:
        boxes: ``[N, 4]`` in pixels of the model's input.
        images: ``[N, 2]`` width and height of each box's padded image.
        cells: a function for each level, finest first, from some rows of `images` to their cell.
    """
    found = [torch.zeros(0, dtype=torch.long)]
    for some, sizes in zip(torch.split(boxes, _AT_ONCE), torch.split(images, _AT_ONCE), strict=True):
        best = torch.stack([_best_iou(some, sizes, cell(sizes)) for cell in cells])
        found.append(best.argmax(dim=0))  # on a CPU the first of equals, which is the finest
    return torch.cat(found)


def reach_levels(boxes: Tensor, limits: Sequence[float]) -> Tensor:
    """Return ``[N]``, FCOS's level of each box, by the distance from its centre to its farther edge.

    Args:
        limits: that distance's upper limit for each level but the coarsest.
    """
    reach = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) / 2
    return (reach.unsqueeze(1) >= torch.tensor(limits)).sum(dim=1)


def _best_iou(boxes: Tensor, images: Tensor, cell: Cell) -> Tensor:
    """Return ``[N]``, the highest IoU of each box with an anchor of one level."""
    centre, step = ((boxes[:, :2] + boxes[:, 2:]) / 2).unsqueeze(1), cell.step.unsqueeze(-2)
    anchor_centre = (cell.anchors[:, :2] + cell.anchors[:, 2:]) / 2
    last = torch.ceil(images.unsqueeze(1) / step) - 1
    place = ((centre - anchor_centre) / step - cell.offset).round().clamp(min=0)
    shift = (torch.minimum(place, last) + cell.offset) * step
    anchors = cell.anchors + torch.cat([shift, shift], dim=2)
    upper = torch.maximum(anchors[..., :2], boxes[:, None, :2])
    lower = torch.minimum(anchors[..., 2:], boxes[:, None, 2:])
    overlap = (lower - upper).clamp(min=0).prod(dim=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).unsqueeze(1)
    return (overlap / ((anchors[..., 2:] - anchors[..., :2]).prod(dim=2) + area - overlap)).amax(dim=1)
