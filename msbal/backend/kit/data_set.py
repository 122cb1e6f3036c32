"""A data set as a framework sees it: the images that it trains on, and what it detects in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from msbal.data import DetectionData, ImageRecord
from msbal.data.files import printable
from msbal.errors import DataError

Unfit = Callable[[ImageRecord], str]
"""Why an image is left out, to follow "has" or "have" (``no boxes``); empty where it is used."""


def used_images(images: Sequence[ImageRecord], unfit: Unfit) -> tuple[tuple[ImageRecord, ...], Counter[str]]:
    """Return the images that are trained on, and how many are left out for each reason."""
    used, left_out = [], Counter[str]()
    for image in images:
        reason = unfit(image)
        if reason:
            left_out[reason] += 1
        else:
            used.append(image)
    return tuple(used), left_out


def use_notes(
    train: DetectionData, unfit: Unfit | None = None, setting: str = "", fix: str = ""
) -> list[str]:
    """Say how many images are used, where not all are, and how many of those have no boxes.

    Args:
        unfit: the framework's rule; by default all images are used.
        setting: the framework's setting that the rule comes from.
        fix: how to change it.

    Raises:
        DataError: where no image is left.
    """
    used, left_out = used_images(train.images, unfit) if unfit else (train.images, Counter[str]())
    why = ", ".join(
        f"{count} {'has' if count == 1 else 'have'} {reason}" for reason, count in left_out.items()
    )
    if not used:
        raise DataError(
            setting, f"leaves none of the {len(train)} images of {train.name}: {why}", "at least one to train on", fix
        )  # fmt: skip
    name, notes = printable(train.name), []
    if left_out:
        notes.append(f"{name}: {len(used)} of {len(train)} images are used: {why} ({setting})")
    empty = sum(not len(image.boxes) for image in used)
    if empty:
        notes.append(
            f"{name}: {empty} of {len(used)} images have no boxes: they are trained on as background"
        )
    return notes


def predict_each(
    model: nn.Module,
    data: DetectionData,
    detect: Callable[[ImageRecord], tuple[Tensor, Tensor, Tensor]],
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Return the detections of all images in COCO results format, in the images' order; the model in eval mode.

    One image at a time: a batch is padded to its largest image, so that a prediction would depend on its neighbours,
    and on how many processes share the images.

    Args:
        detect: returns one image's boxes, labels and scores, as `coco_results` takes them.
        progress: called after each image with how many are done.
    """
    training, found = model.training, list[dict[str, Any]]()
    model.eval()
    try:
        for done, record in enumerate(data.images, start=1):
            found += coco_results(record.id, *detect(record), data.category_ids)
            if progress is not None:
                progress(done)
    finally:
        model.train(training)
    return found


def coco_results(
    image_id: int, boxes: Tensor, labels: Tensor, scores: Tensor, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return one image's detections in COCO results format.

    Args:
        boxes: ``[N, 4]``, x1, y1, x2, y2 in pixels of the image as it is on disk.
        labels: ``[N]``, each an index into `category_ids`.
        scores: ``[N]``.
        category_ids: those of the data set (`DetectionData.category_ids`).
    """
    rows = zip(boxes.tolist(), labels.tolist(), scores.tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for (x1, y1, x2, y2), label, score in rows
    ]  # fmt: skip
