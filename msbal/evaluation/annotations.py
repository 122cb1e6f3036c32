"""A COCO annotation file as ground truth; its images need not be there.

`msbal.data` prepares a data set for training: it looks for every image and clips the boxes to it. Here the
boxes stay as they are written, so that the metrics are those that pycocotools gives for the same two files.
The file itself is read by the same rules; where pycocotools reads it otherwise, a note says so.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from msbal.data import DetectionData
from msbal.data.assembly import make_records
from msbal.data.box_checks import are_fractions, odd_boxes
from msbal.data.coco.coco_columns import CocoFile, read_coco_file
from msbal.data.files import printable, shown
from msbal.data.images.finding import locate
from msbal.errors import DataError

_LARGEST = 1e38  # float32 ends there


def read_annotations(path: Path, images: Path | None = None) -> DetectionData:
    """Read the ground truth of one split.

    Args:
        path: the JSON file.
        images: the folder that its ``file_name`` entries are relative to; the file's own by default.

    Raises:
        DataError: where the file cannot be used; one line that names the entry at fault.
    """
    file = read_coco_file(path, needs_names=False)
    corners, limits = file.corners, file.sizes[file.rows]
    bad = np.flatnonzero(~(np.abs(corners) < _LARGEST).all(axis=1))
    if len(bad):
        found = f"annotations[{bad[0]}]: `bbox` is {shown(file.boxes[bad[0]].tolist())}"
        raise DataError(file.where, found, "four numbers: x, y, width, height")

    def spot(index: int) -> str:
        return f"{file.annotation(index)} of {printable(names[file.rows[index]])}"

    folder = images if images is not None else path.parent
    names = [name or str(id_) for name, id_ in zip(file.file_names, file.image_ids, strict=True)]
    # Names as other machines write them are looked for where a folder is named, to be drawn.
    there = [None] * len(names) if images is None else locate(images, names)
    records = make_records(
        [found or folder / name for found, name in zip(there, names, strict=True)],
        file.sizes,
        file.rows,
        corners.astype(np.float32),
        file.category,
        file.difficult,
        ids=file.image_ids,
        area=file.area,
        crowd=file.crowd,
    )
    notes = [*file.notes, *odd_boxes(corners, limits, spot, from_extent=True)]
    if are_fractions(corners, limits):
        notes.append("no box reaches beyond the first pixel of its image: are they fractions of the image?")
    return DetectionData(
        path.stem, _classes(file), tuple(id_ for id_, _ in file.categories), records,
        notes=tuple(notes), image_numbers=file.image_numbers, category_numbers=file.category_numbers,
    )  # fmt: skip


def _classes(file: CocoFile) -> tuple[str, ...]:
    """Return a name for each class; classes of one name stay apart, as in pycocotools, by their ids."""
    used = set(np.unique(file.category).tolist())
    names = [name for _, name in file.categories]
    count, in_use = Counter(names), Counter(names[index] for index in used)
    return tuple(
        name if count[name] == 1 or (index in used and in_use[name] == 1) else f"{name} ({id_})"
        for index, (id_, name) in enumerate(file.categories)
    )
