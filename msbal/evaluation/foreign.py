"""A run's predictions on ground truth that is not the run's own: whose ids are whose, and what differs."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msbal.data import DetectionData
from msbal.data.files import printable
from msbal.data.remarks import classes_meant, nearest
from msbal.evaluation.detections import GroundTruth, ground_truth


def foreign_ids(own: DetectionData, other: DetectionData) -> tuple[tuple[int, ...], list[str]]:
    """Return the category id that each class of `other` has in the predictions of a run.

    Classes are the same where their names are. One whose name `other` lacks is still found by its id where the
    name there is much like it (`lamp`, `Lamp`).

    Args:
        own: the split that the run predicted on; its category ids are those of the predictions.

    Returns:
        an id for each class of `other`, one of no prediction where the run lacks the class; and sentences
        about classes that are not found by name and id alike.
    """
    id_of = dict(zip(own.classes, own.category_ids, strict=True))
    name_of = {id_: name for name, id_ in id_of.items() if name not in other.classes}
    free = itertools.filterfalse(set(own.category_ids).__contains__, itertools.count(-1, -1))
    ids: list[int] = []
    moved, alike = [], []
    for name, id_ in zip(other.classes, other.category_ids, strict=True):
        meant = name_of.get(id_)
        if name in id_of:
            ids.append(id_of[name])
            if ids[-1] != id_:
                moved.append(f"`{printable(name)}` is {id_of[name]} to the run, {id_} there")
        elif meant is not None and nearest(meant, [name]) is not None:
            ids.append(id_)
            alike.append(f"`{printable(meant)}` of the run is `{printable(name)}` there")
        else:
            ids.append(next(free))
    lines = []
    if moved:
        lines.append(
            f"the category ids of {printable(other.name)} are others ({moved[0]}): matched by class name"
        )
    if alike:
        lines.append(f"matched by category id, for the names are nearly alike: {', '.join(alike[:3])}")
    return tuple(ids), lines


def with_image_ids(own: DetectionData, other: DetectionData) -> DetectionData:
    """Return `other` with a run's image ids, where ids are texts that each file numbers in its own order."""
    if own.image_numbers == other.image_numbers:
        return other
    text_of = {number: text for text, number in other.image_numbers.items()}
    ids = (own.image_numbers.get(text_of.get(image.id, str(image.id))) for image in other.images)
    images = [
        replace(image, id=-row if id_ is None else id_)
        for row, (image, id_) in enumerate(zip(other.images, ids, strict=True), 1)
    ]
    return replace(other, images=tuple(images), image_numbers=own.image_numbers)


def differences(own: DetectionData, other: DetectionData, ids: tuple[int, ...]) -> list[str]:
    """Return sentences on how a run's own split and the ground truth in its place differ.

    Args:
        ids: as `foreign_ids` gives them.
    """
    name, split = printable(other.name), "the run's own validation split"
    truth, own_truth = ground_truth(other), ground_truth(own)
    file_of = {image.id: image.path.name for image in own.images}
    unseen = sum(image.id not in file_of for image in other.images)
    parts = []
    if (len(own), len(own_truth)) != (len(other), len(truth)):
        sizes = f"{len(other):,} images and {len(truth):,} boxes, {split} {len(own):,} and {len(own_truth):,}"
        parts.append(f"{name} has {sizes}")
    elif not unseen and not _same_boxes(truth, own_truth):
        parts.append(f"boxes of {name} differ from those of {split} in place, area or being a crowd")
    if unseen:
        parts.append(f"of the images of {name}, {unseen:,} not in {split}: nothing was predicted there")
    boxes = np.bincount(truth.label, minlength=len(ids)).tolist()
    foreign = {
        class_: count
        for class_, id_, count in zip(other.classes, ids, boxes, strict=True)
        if count and id_ not in own.category_ids
    }
    if foreign:
        parts.append(
            f"{sum(foreign.values()):,} boxes are of classes that it was not trained on and count as not found: "
            f"{classes_meant(foreign, own.classes)}"
        )
    lines = ["; ".join(parts)] if parts else []
    renamed = [image for image in other.images if file_of.get(image.id, image.path.name) != image.path.name]
    if renamed:
        first = renamed[0]
        lines.append(
            f"{len(renamed):,} image ids of {name} are other files in {split} ({first.id} is "
            f"{printable(first.path.name)}, there {printable(file_of[first.id])}): are they the same images?"
        )
    return lines


def _same_boxes(one: GroundTruth, other: GroundTruth) -> bool:
    """Return whether all but the classes is the same, in any order."""
    a, b = _rows(one), _rows(other)
    return np.array_equal(a, b) or np.array_equal(a[np.lexsort(a.T)], b[np.lexsort(b.T)])


def _rows(truth: GroundTruth) -> NDArray[np.float64]:
    columns = (truth.image_id[truth.image], *truth.box.T, truth.area, truth.crowd, truth.difficult)
    return np.stack([column.astype(np.float64) for column in columns], axis=1)
