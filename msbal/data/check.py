"""Whether a data set can be trained on: that it has boxes, and image files that fit them."""

from __future__ import annotations

from collections.abc import Sequence

from msbal.data.files import listed, printable
from msbal.data.model import DetectionData
from msbal.data.pictures import size_matches
from msbal.errors import DataError

_LOOKED_AT = 1000


def require_boxes(data: DetectionData, where: str) -> None:
    """Raise a DataError where there is nothing in `data` to learn from or to evaluate on."""
    if all(image.crowd.all() for image in data.images):
        notes = [f"{len(data.dropped)} unusable"] if data.dropped else []
        notes += [f"{data.skipped} of other classes"] if data.skipped else []
        notes += [f"{data.box_count} crowds"] if data.box_count else []
        found = f"{printable(data.name)} has no box that counts" + (f" ({', '.join(notes)})" if notes else "")
        raise DataError(where, found, f"boxes in its {len(data)} images")


def require_readable_images(data: DetectionData, where: str, limit: int = _LOOKED_AT) -> None:
    """Look at the headers of the image files, `limit` of them spread evenly where there are more.

    Raises:
        DataError: where some are no images, or not of the size that their annotations say (the boxes
            would be in the wrong places).
    """
    count = len(data)
    chosen: Sequence[int] = range(count)
    if count > limit:
        chosen = sorted({i * count // limit for i in range(limit)})
    wrong = []
    for index in chosen:
        image = data.images[index]
        problem = size_matches(image.path, image.width, image.height)
        if problem is not None:
            wrong.append((image.path, problem))
    if wrong:
        path, problem = wrong[0]
        others = listed((other.name for other, _ in wrong[1:]), len(wrong) - 1)
        also = f", also {others}" if others else ""
        found = f"{printable(str(path))} {problem} ({len(wrong)} of {len(chosen)} images looked at are wrong{also})"
        raise DataError(where, found, fix="mend or remove these images")
