"""The splits of a spec's ``data:`` section, read and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, overload

from msbal.data.coco.read_coco import read_categories, read_coco
from msbal.data.detection_data import DetectionData, subset
from msbal.data.files import printable
from msbal.data.generated.generate import generate, read_generated
from msbal.data.images.image_check import look_at_images
from msbal.data.voc.read_voc import read_voc
from msbal.data.yolo.read_yolo import read_yolo
from msbal.errors import DataError

if TYPE_CHECKING:
    from msbal.spec.data import CocoData, DataSpec, VocData, YoloData


@overload
def load(
    spec: DataSpec,
    split: Literal["train"],
    classes: Sequence[str] | None = None,
    drawing: Callable[[int, int], None] | None = None,
) -> DetectionData: ...


@overload
def load(
    spec: DataSpec,
    split: Literal["val"],
    classes: Sequence[str] | None = None,
    drawing: Callable[[int, int], None] | None = None,
) -> DetectionData | None: ...


def load(
    spec: DataSpec,
    split: Literal["train", "val"],
    classes: Sequence[str] | None = None,
    drawing: Callable[[int, int], None] | None = None,
) -> DetectionData | None:
    """Read and check one split.

    Args:
        spec: the ``data:`` section.
        split: ``train`` or ``val``.
        classes: of the training split, for ``val`` where the spec has none; found out from the training split's
            annotations if None, which takes as long as reading them.
        drawing: called with how many generated images are drawn and how many there will be, unless all are there.

    Returns:
        The split; None for a ``val`` that the spec does not have.

    Raises:
        DataError: where anything is wrong with it.
    """
    if split == "val" and not spec.has_val:
        return None
    if spec.format == "generated":
        folder = generate(spec.root, spec.seed, spec.train_images, spec.val_images, spec.size, drawing)
        data = read_generated(folder, split)
    else:
        data = _read(spec, split, spec.classes or classes)
    _require_boxes(data, f"data.{split}")
    if spec.format == "generated":
        return data
    return replace(data, notes=(*data.notes, *look_at_images(data, f"data.{split}")))


def _read(
    spec: CocoData | VocData | YoloData, split: Literal["train", "val"], classes: Sequence[str] | None
) -> DetectionData:
    if split == "train" or spec.holdout is not None:
        whole = _read_train(spec)
        return whole if spec.holdout is None else hold_out(whole, spec.holdout)[split == "val"]
    return _read_val(spec, classes)


def _read_train(spec: CocoData | VocData | YoloData) -> DetectionData:
    if spec.format == "voc":
        return read_voc(spec.root, spec.train.pairs, spec.classes)
    if spec.format == "yolo":
        return read_yolo(spec.root, spec.names, spec.train.images, spec.classes)
    return read_coco(spec.root / spec.train.annotations, spec.root / spec.train.images, spec.classes)


def _read_val(spec: CocoData | VocData | YoloData, classes: Sequence[str] | None) -> DetectionData:
    """Read it with the labels of the training split, whose classes need not all occur here."""
    assert spec.val is not None
    if spec.format == "voc":
        classes = classes or _read_train(spec).classes
        return read_voc(spec.root, spec.val.pairs, classes, partial=True)
    if spec.format == "yolo":
        return read_yolo(spec.root, spec.names, spec.val.images, spec.classes or classes)
    classes = classes or read_categories(spec.root / spec.train.annotations)
    annotations = spec.root / spec.val.annotations
    return read_coco(annotations, spec.root / spec.val.images, classes, partial=True)


def _require_boxes(data: DetectionData, where: str) -> None:
    """Raise a DataError where there is nothing in `data` to learn from or to evaluate on."""
    if all(image.crowd.all() for image in data.images):
        notes = [f"{len(data.dropped)} unusable"] if data.dropped else []
        notes += [f"{data.skipped} of other classes"] if data.skipped else []
        notes += [f"{data.box_count} crowds"] if data.box_count else []
        found = f"{printable(data.name)} has no box that counts" + (f" ({', '.join(notes)})" if notes else "")
        raise DataError(where, found, f"boxes in its {len(data)} images")


def hold_out(data: DetectionData, share: float) -> tuple[DetectionData, DetectionData]:
    """Split `data` into images to train on and images held out; both keep its order.

    The images whose names have the smallest SHA-256 are held out: the same ones in every run and on every machine, and
    adding images moves few of the others.

    Args:
        data: at least two images.
        share: of the images to hold out, between 0 and 1; at least one image is, and one is not.

    Raises:
        DataError: where there are fewer than two images.
    """
    count = len(data)
    if count < 2:
        raise DataError("data.holdout", f"{data.name} has {count} image", "two or more to hold one out")
    held = min(max(round(share * count), 1), count - 1)
    by_hash = sorted(range(count), key=lambda i: (_hash(data.images[i].path.name), i))
    val = sorted(by_hash[:held])
    train = sorted(by_hash[held:])
    # Notes are about the whole, and so belong to one of the two.
    return _part(data, train, "train"), replace(_part(data, val, "held out"), notes=(), other_classes={})


def _part(data: DetectionData, indices: Sequence[int], suffix: str) -> DetectionData:
    part = subset(data, indices)
    kept = set(indices)
    dropped = tuple(box for box in data.dropped if box.row in kept)
    return replace(part, name=f"{data.name} ({suffix})", dropped=dropped)


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
