"""Whether the image files of a data set fit their annotations, by their headers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msbal.data.detection_data import DetectionData, ImageRecord
from msbal.data.files import listed, printable
from msbal.data.images.image_files import Header, misfit, read_header, without_warnings
from msbal.errors import DataError

LOOKED_AT = 1000


def spread(count: int, limit: int = LOOKED_AT) -> Sequence[int]:
    """Return `limit` of `count` indices, spread evenly; all of them where there are no more."""
    return range(count) if count <= limit else sorted({i * count // limit for i in range(limit)})


def look_at_images(data: DetectionData, where: str, limit: int = LOOKED_AT) -> list[str]:
    """Check the headers of the image files; of `limit`, spread evenly, where there are more.

    Returns:
        a sentence on how many have an EXIF orientation, and what is done about it.

    Raises:
        DataError: where some are not images, have another size than annotated (boxes would be in the wrong places), or
            more than 8 bits a channel.
    """
    chosen = spread(len(data), limit)
    wrong: list[tuple[Path, str, str]] = []
    oriented: list[tuple[ImageRecord, Header]] = []
    with without_warnings():
        for index in chosen:
            image = data.images[index]
            try:
                header = read_header(image.path)
                problem = misfit(header, image.width, image.height)
            except DataError as error:
                wrong.append((image.path, error.found, ""))
                continue
            if problem is not None:
                wrong.append((image.path, *problem))
            elif header.orientation != 1:
                oriented.append((image, header))
    refuse(wrong, len(chosen), where)
    return _orientations(oriented, len(chosen), len(data)) if oriented else []


def refuse(wrong: Sequence[tuple[Path, str, str]], looked_at: int, where: str) -> None:
    """Raise a DataError for the first of the wrong images that counts the others; do nothing where there are none.

    Args:
        wrong: path, what is wrong, and what to do about it, or an empty text.
    """
    if wrong:
        path, problem, fix = wrong[0]
        others = listed((other.name for other, *_ in wrong[1:]), len(wrong) - 1)
        also = f", also {others}" if others else ""
        found = (
            f"{printable(str(path))} {problem} ({len(wrong)} of {looked_at} images looked at are wrong{also})"
        )
        raise DataError(where, found, fix=fix or "mend or remove these images")


def _orientations(found: Sequence[tuple[ImageRecord, Header]], looked_at: int, count: int) -> list[str]:
    stored = [image for image, header in found if not header.is_turned(image.width, image.height)]
    unclear = [image for image, header in found if header.size == header.shown]
    of = f"{looked_at} images" if looked_at == count else f"the {looked_at} images looked at"
    if len(found) > len(stored):
        text = f"{len(found)} of {of} carry an EXIF orientation and are turned as it says"
        if stored:
            text += (
                f", except {len(stored)} that are annotated as stored, e.g. {printable(stored[0].path.name)}"
            )
        if unclear:
            text += (
                f"; of {len(unclear)} the size cannot tell whether they were annotated so, e.g. "
                f"{printable(unclear[0].path.name)}: if not, remove the orientation from the files"
            )
        return [text]
    return [
        f"{len(found)} of {of} carry an EXIF orientation and are annotated as stored: they are not turned"
    ]
