"""Which of the training images a framework trains on, and what to say of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from msbal.data import DetectionData, ImageRecord
from msbal.data.files import printable
from msbal.errors import DataError

Unfit = Callable[[ImageRecord], str]
"""Why an image is left out, to follow "has" or "have" (``no boxes``); empty where it is not."""


def used_images(images: Sequence[ImageRecord], unfit: Unfit) -> tuple[tuple[ImageRecord, ...], Counter[str]]:
    """Those that are trained on, and how many are left out for each reason."""
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
    """How many of the images are used, where not all are, and how many of those are without boxes.

    Args:
        unfit: the framework's rule; by default all images are used.
        setting: of the framework, that the rule comes from.
        fix: how it is changed.

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
