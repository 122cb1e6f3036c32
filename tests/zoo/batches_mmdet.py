"""Training batches made up for a built model: for proofs, not for training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from zoo import language_mmdet as language

SIDE = 128  # pixels

Sides = tuple[tuple[int, int], ...]
"""(height, width) of each image, pixels."""

_ON_VIDEO = {"MaskTrackRCNN", "QDTrack"}
"""They train on a key frame and a reference frame."""


def class_count(model: Any) -> int:
    """The number of classes that a built model predicts, at most 80."""
    counts: list[int] = [
        m.num_classes for m in model.modules() if isinstance(getattr(m, "num_classes", None), int)
    ]
    return max(1, min([c for c in counts if c > 0] or [80]))


def sides_for(model: Any) -> Sides:
    """The sizes of two images that this model can take.

    Of different size, so that padding is tried too, except where mmdet itself cannot do that.
    """
    heads = _classes(model)
    if "SSDHead" in heads:
        # Its extra layers are made for one input size.
        generators = [m.prior_generator for m in model.modules() if hasattr(m, "prior_generator")]
        side = int(getattr(generators[0], "input_size", 300)) if generators else 300
        return ((side, side), (side, side))
    if heads & {"YOLACTHead", "RTMDetInsHead", *_ON_VIDEO}:
        return ((SIDE, SIDE), (SIDE, SIDE))
    if "SOLOHead" in heads:
        return ((SIDE // 2, SIDE // 2), (SIDE // 2, SIDE // 2 - 32))
    if "DDODHead" in heads:
        # Its deformable convolutions want three cells on the coarsest level.
        return ((288, 288), (256, 288))
    return ((SIDE, SIDE), (SIDE - 32, SIDE))


def _classes(model: Any) -> set[str]:
    return {cls.__name__ for m in model.modules() for cls in type(m).__mro__}


def batch_for(model: Any, masks: bool = True, attempt: int = 0) -> dict[str, Any]:
    """A batch that a built model can train on, in the form that it wants.

    Args:
        model: any detector or tracker of mmdet.
        masks: whether the config's pipeline loads them; see `loads_masks`.
        attempt: another choice of pixels and labels; the third and later have larger images.
    """
    sides = sides_for(model) if attempt < 2 else ((3 * SIDE, 3 * SIDE),) * 2
    made = batch(class_count(model), sides, seed=attempt, masks=masks)
    if "SemiBaseDetector" in _classes(model):
        return _branches(made)
    return _pairs(made) if _classes(model) & _ON_VIDEO else made


def _branches(made: dict[str, Any]) -> dict[str, Any]:
    """The same images labelled, and twice as unlabelled ones: for the teacher and for its student."""
    for sample in made["data_samples"]:
        sample.set_metainfo({"homography_matrix": np.eye(3, dtype=np.float32)})
    names = ("sup", "unsup_teacher", "unsup_student")
    return {key: {name: copy.deepcopy(value) for name in names} for key, value in made.items()}


def _pairs(made: dict[str, Any]) -> dict[str, Any]:
    """Each image as a key frame with a reference frame beside it, as video detectors take them."""
    from mmdet.structures import TrackDataSample

    inputs, samples = [], []
    for image, sample in zip(made["inputs"], made["data_samples"], strict=True):
        sample.gt_instances.instances_ids = torch.arange(len(sample.gt_instances))
        track = TrackDataSample()
        track.video_data_samples = [sample, sample.clone()]
        track.set_metainfo({"key_frames_inds": [0], "ref_frames_inds": [1]})
        inputs.append(torch.stack([image, image.flip(-1)]))
        samples.append(track)
    return {"inputs": inputs, "data_samples": samples}


def batch(
    classes: int,
    sides: Sequence[tuple[int, int]] = ((SIDE, SIDE), (SIDE - 32, SIDE)),
    boxes: Sequence[Sequence[tuple[int, int, int, int]]] | None = None,
    seed: int = 0,
    masks: bool = True,
) -> dict[str, Any]:
    """A training batch as a data loader gives it: images, boxes of all sizes, masks, semantic maps,
    proposals (for Fast R-CNN, which has nothing to make them), class names (for GLIP).

    Args:
        classes: labels are below it.
        sides: (height, width) of each image, pixels.
        boxes: (x1, y1, x2, y2) of each image; by default one small to one that fills the image.
        seed: of the pixels and labels.
        masks: whether the pipeline loads them; some assigners behave differently with masks.
    """
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    rng = np.random.default_rng(seed)
    inputs, samples = [], []
    for index, (height, width) in enumerate(sides):
        chosen = boxes[index] if boxes is not None else default_boxes(height, width)
        inputs.append(torch.from_numpy(rng.integers(0, 255, (3, height, width), dtype=np.uint8)))
        sample = DetDataSample()
        sample.set_metainfo(
            {
                "img_id": index,
                "img_shape": (height, width),
                "ori_shape": (height, width),
                "pad_shape": (height, width),
                "batch_input_shape": (height, width),
                "scale_factor": (1.0, 1.0),
                "flip": False,
                "flip_direction": None,
                "border": np.array([0, height, 0, width], dtype=np.float32),
                "text": language.words(classes),
            }
        )
        instances = InstanceData()
        instances.bboxes = torch.tensor(np.array(chosen, dtype=np.float32).reshape(-1, 4))
        labels = rng.integers(0, classes, len(chosen))
        instances.labels = torch.from_numpy(labels.astype(np.int64))
        if masks:
            bitmaps = np.zeros((len(chosen), height, width), dtype=np.uint8)
            for bitmap, (x1, y1, x2, y2) in zip(bitmaps, chosen, strict=True):
                bitmap[y1:y2, x1:x2] = 1
            instances.masks = BitmapMasks(bitmaps, height, width)
        sample.gt_instances = instances
        ignored = InstanceData()
        ignored.bboxes = torch.zeros(0, 4)
        ignored.labels = torch.zeros(0, dtype=torch.int64)
        sample.ignored_instances = ignored
        sample.proposals = InstanceData(bboxes=_proposals(height, width))
        semantic = np.zeros((1, height, width), dtype=np.int64)
        for (x1, y1, x2, y2), label in zip(chosen, labels, strict=True):
            semantic[0, y1:y2, x1:x2] = label
        sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(semantic))
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}


def default_boxes(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Small to large, so that several levels have positives."""
    boxes, x = [], 2
    for size in (10, 20, 34):
        boxes.append((x, 4, min(x + size, width), min(4 + size, height)))
        x += size + 4
    boxes.append((6, height // 2, width // 2, height - 4))
    boxes.append((1, 1, width - 2, height - 2))
    return boxes


def _proposals(height: int, width: int) -> torch.Tensor:
    """``[P, 4]``: squares of three sizes all over the image."""
    found = [
        (x, y, min(x + size, width), min(y + size, height))
        for size in (16, 48, 112)
        for y in range(0, height - 8, max(16, size // 2))
        for x in range(0, width - 8, max(16, size // 2))
    ]
    return torch.tensor(found, dtype=torch.float32)
