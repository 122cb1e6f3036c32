"""Which level is responsible for a ground-truth box: by a model's own anchors or sizes, else by running its assigner.

For anchor heads it is the level of the anchor with the highest IoU, the anchor that the frameworks' matchers give the
box in any case. Of anchors of one shape that is the one at the grid point nearest to the box's centre, so that only
this one is computed: N boxes cost N times the anchors of one cell, not of an image. FCOS goes by the distance from the
box's centre to its farther edge. Where an assigner goes by more than the box (by statistics of many anchors, or by what
the model predicts), it is the level with the most of the box's positive samples. Of equals the finer level wins.

Shapes: N boxes of all images, A anchor shapes of a level, P positive samples, K levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msbal.data import DetectionData

_AT_ONCE = 8192  # boxes: a million at once would fit no cache


class Cell(NamedTuple):
    """The anchors of one cell of a level's grid.

    Attributes:
        anchors: ``[A, 4]``, x1, y1, x2, y2 around the origin.
        step: ``[2]`` or ``[N, 2]`` pixels from one grid point to the next, in x and y.
        points: ``[2]`` or ``[N, 2]`` how many grid points there are in x and y.
        offset: where in a cell its grid point lies: 0 at the corner, 0.5 in the centre.
    """

    anchors: Tensor
    step: Tensor
    points: Tensor
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
        best = torch.stack([_best_iou(some, cell(sizes)) for cell in cells])
        found.append(best.argmax(dim=0))  # on a CPU the first of equals, which is the finest
    return torch.cat(found)


def reach_levels(boxes: Tensor, limits: Sequence[float]) -> Tensor:
    """Return ``[N]``, FCOS's level of each box, by the distance from its centre to its farther edge.

    Args:
        limits: that distance's upper limit for each level but the coarsest.
    """
    reach = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1) / 2
    return (reach.unsqueeze(1) >= torch.tensor(limits)).sum(dim=1)


def range_levels(size: Tensor, ranges: Sequence[Sequence[float]]) -> Tensor:
    """Return ``[N]``, the finest level whose range, limits included, holds a box's size (``[N]``); -1 for none."""
    low, high = torch.tensor([tuple(limits) for limits in ranges], dtype=torch.float64).unbind(dim=1)
    inside = (size.unsqueeze(1) >= low) & (size.unsqueeze(1) <= high)
    return torch.where(inside.any(dim=1), inside.int().argmax(dim=1), -1)


def majority_levels(box: Tensor, level: Tensor, boxes: int, levels: int) -> Tensor:
    """Return ``[boxes]`` on the CPU, the level with the most positive samples of each box; -1 for a box without any.

    Args:
        box, level: ``[P]`` of each positive sample.
    """
    votes = torch.bincount(box * levels + level, minlength=boxes * levels).cpu().view(boxes, levels)
    return torch.where(votes.any(dim=1), votes.argmax(dim=1), -1)


def levels_by_running(
    data: DetectionData,
    groups: Iterable[str],
    batches: Iterable[Sequence[int]],
    run: Callable[[Sequence[int]], Mapping[str, Sequence[Tensor]]],
    progress: Callable[[int], None] | None = None,
) -> dict[str, NDArray[np.int64]]:
    """Return the level of each box by group, ``[N]``, as a model's own assigner decides.

    Args:
        batches: of images with boxes, by index; the boxes of other images have no level.
        run: returns, by group, the levels of each image's boxes; a group that it once leaves out is left out.
        progress: called after each batch with how many images are done, at the end with all.
    """
    start = np.cumsum([0, *(int((~record.crowd).sum()) for record in data.images)])
    found = {group: np.full(start[-1], -1, dtype=np.int64) for group in groups}
    done = 0
    for batch in batches:
        levels = run(batch)
        found = {group: whole for group, whole in found.items() if group in levels}
        for group, whole in found.items():
            for index, of_image in zip(batch, levels[group], strict=True):
                whole[start[index] : start[index + 1]] = of_image.numpy()
        done += len(batch)
        if progress is not None:
            progress(done)
    if progress is not None and done < len(data):  # images without boxes
        progress(len(data))
    return found


def _best_iou(boxes: Tensor, cell: Cell) -> Tensor:
    """Return ``[N]``, the highest IoU of each box with an anchor of one level."""
    centre, step = ((boxes[:, :2] + boxes[:, 2:]) / 2).unsqueeze(1), cell.step.unsqueeze(-2)
    anchor_centre = (cell.anchors[:, :2] + cell.anchors[:, 2:]) / 2
    last = cell.points.unsqueeze(-2) - 1
    place = ((centre - anchor_centre) / step - cell.offset).round().clamp(min=0)
    shift = (torch.minimum(place, last) + cell.offset) * step
    anchors = cell.anchors + torch.cat([shift, shift], dim=2)
    upper = torch.maximum(anchors[..., :2], boxes[:, None, :2])
    lower = torch.minimum(anchors[..., 2:], boxes[:, None, 2:])
    overlap = (lower - upper).clamp(min=0).prod(dim=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).unsqueeze(1)
    return (overlap / ((anchors[..., 2:] - anchors[..., :2]).prod(dim=2) + area - overlap)).amax(dim=1)
