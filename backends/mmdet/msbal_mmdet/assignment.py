"""Which level is responsible for a ground-truth box, by mmdet's anchors, ranges and assigners.

See `msbal.backend.kit.assignment`. A box that VOC calls difficult, which mmdet does not train on, gets the level that
it would have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.models.task_modules import AnchorGenerator, GridAssigner, MaxIoUAssigner
from mmengine.config import Config
from numpy.typing import NDArray
from torch import Tensor, nn

from msbal.backend.kit.assignment import Cell, anchor_levels, majority_levels, range_levels
from msbal.data import DetectionData
from msbal_mmdet.config.pipeline import resizing
from msbal_mmdet.splitters.base import HeadSplitter
from msbal_mmdet.splitters.reduction import listen
from msbal_mmdet.splitters.roi import RoISplitter

TOGETHER = 8
"""Images in a batch that the model is run on, all of one size: padding would take anchors away from the smaller."""
_UNDECIDED = {"FSAFHead", "PAAHead", "StageCascadeRPNHead"}
"""Heads, by class name or that of a base, whose assigner does not have the last word: their losses do, or a stage."""
_ASSIGNERS = ("alignment_assigner", "refine_assigner", "cls_assigner", "assigner")
"""Where heads keep the assigner that decides what is classified as an object; of several the first that is asked."""


class Inputs(NamedTuple):
    """The boxes of a data set as the model sees them.

    Attributes:
        boxes: ``[N, 4]``, crowds left out.
        images: ``[N, 2]`` width and height of each box's padded image.
        sizes: width and height of each image, padded.
    """

    boxes: Tensor
    images: Tensor
    sizes: list[tuple[int, int]]


def inputs_of(config: Config, model: Any, data: DetectionData) -> Inputs:
    """Bring the boxes of a data set to the model's size, by the config's own steps, once for each size of image."""
    resize = resizing(config)
    divisor = max(1, getattr(model.data_preprocessor, "pad_size_divisor", 1))
    by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, record in enumerate(data.images):
        by_size[record.width, record.height].append(index)
    boxes: list[NDArray[np.float32]] = [
        record.boxes[~record.crowd].astype(np.float32).reshape(-1, 4) for record in data.images
    ]
    sizes = [(0, 0)] * len(data)
    for (width, height), indices in by_size.items():
        resized, *size = resize(width, height, np.concatenate([boxes[i] for i in indices]))
        parts = np.split(resized, np.cumsum([len(boxes[i]) for i in indices])[:-1])
        for index, part in zip(indices, parts, strict=True):
            boxes[index] = part
            sizes[index] = (-(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor)
    images = np.repeat(np.array(sizes, np.float32).reshape(-1, 2), [len(part) for part in boxes], axis=0)
    whole = np.concatenate([np.zeros((0, 4), np.float32), *boxes])
    return Inputs(torch.from_numpy(whole), torch.from_numpy(images), sizes)


def levels_at_once(splitter: HeadSplitter, inputs: Inputs) -> Tensor | None:
    """Return ``[N]``, the level of each box where anchors and sizes alone decide; else None."""
    head, boxes = splitter.head, inputs.boxes
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(dim=1)
    if isinstance(splitter, RoISplitter):
        rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], dim=1)
        levels: Tensor = splitter.extractor.map_roi_levels(rois, splitter.num_levels)
        return levels
    kinds, assigners = _kinds(head), _assigners(head)
    if kinds & _UNDECIDED:
        return None
    if assigners:
        generator = getattr(head, "prior_generator", None)
        by_overlap = len(assigners) == 1 and type(assigners[0]) in (MaxIoUAssigner, GridAssigner)
        if not by_overlap or not isinstance(generator, AnchorGenerator):
            return None
        cells = [partial(_cell, generator.base_anchors[k], generator.strides[k]) for k in splitter.order]
        return anchor_levels(boxes, inputs.images, cells)
    if "CenterNetUpdateHead" in kinds:
        return range_levels((width**2 + height**2).sqrt() / 2, head.regress_ranges)
    if "FCOSHead" in kinds:
        return range_levels(torch.maximum(width, height) / 2, head.regress_ranges)
    if kinds & {"FoveaHead", "SOLOHead"}:
        return range_levels((width * height).sqrt(), head.scale_ranges)
    return None


def batches_of(data: DetectionData, sizes: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Yield the images that have boxes in batches of one size."""
    by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, record in enumerate(data.images):
        if not record.crowd.all():
            by_size[sizes[index]].append(index)
    for indices in by_size.values():
        for start in range(0, len(indices), TOGETHER):
            yield indices[start : start + TOGETHER]


def all_trained_on(data: DetectionData) -> DetectionData:
    """Return the data with no box difficult."""
    return replace(data, images=tuple(replace(i, difficult=np.zeros_like(i.difficult)) for i in data.images))


def levels_of_pass(
    splitters: Sequence[HeadSplitter], images: int, run: Callable[[], Any]
) -> Mapping[str, Sequence[Tensor]]:
    """Return the level of each box of each image, by group, as the heads' own assigners decide in a training pass.

    Args:
        splitters: of the heads.
        images: in the batch, each with boxes.
        run: the pass. A group is missing where its assigner was not called once for each image and all anchors.
    """
    asked: dict[str, list[list[Any]]] = {}
    maps: dict[str, Any] = {}
    with ExitStack() as stack:
        for splitter in splitters:
            name, assigners = splitter.group.name, _assigners(splitter.head)
            if _kinds(splitter.head) & _UNDECIDED:
                continue
            asked[name] = [[] for _ in assigners]
            for assigner, results in zip(assigners, asked[name], strict=True):
                stack.enter_context(listen(assigner, "assign", results.append))
            watch = splitter.head.register_forward_hook(partial(_keep, maps, name))
            stack.callback(watch.remove)
        run()
    found = {}
    for splitter in splitters:
        name = splitter.group.name
        results = next((answers for answers in asked.get(name, ()) if answers), [])
        cells = [part.shape[-2] * part.shape[-1] for part in maps.get(name, ())]
        levels = [_voted(splitter, result, cells) for result in results if len(cells) == splitter.num_levels]
        if len(levels) == images and all(level is not None for level in levels):
            found[name] = [level for level in levels if level is not None]
    return found


def _voted(splitter: HeadSplitter, result: Any, cells: Sequence[int]) -> Tensor | None:
    """Return the levels of one image's boxes from an ``AssignResult``; None where it is not of all anchors."""
    taken: Tensor = result.gt_inds
    each, left = divmod(len(taken), sum(cells))
    if left:
        return None
    ranks = [splitter.order.index(k) for k in range(splitter.num_levels)]
    level = torch.tensor(ranks).repeat_interleave(torch.tensor(cells) * each).to(taken.device)
    positive = taken > 0
    return majority_levels(taken[positive] - 1, level[positive], result.num_gts, splitter.num_levels)


def _keep(maps: dict[str, Any], name: str, head: nn.Module, args: Any, output: Any) -> None:
    maps[name] = output[0]


def _assigners(head: Any) -> list[Any]:
    found = [getattr(head, name, None) for name in _ASSIGNERS]
    return list({id(assigner): assigner for assigner in found if assigner is not None}.values())


def _kinds(head: nn.Module) -> set[str]:
    return {cls.__name__ for cls in type(head).__mro__}


def _cell(anchors: Tensor, stride: Sequence[float], images: Tensor) -> Cell:
    step = torch.tensor([float(side) for side in stride])
    # YOLACT's strides are 550 over the number of points, which has no exact float.
    return Cell(anchors.detach().cpu(), step, torch.ceil(images / step - 1e-3), 0.0)
