"""Reading COCO annotation files; everything wrong with one is found here, before training.

What a file says is read by `msbal.data.coco.coco_columns`; here it is made fit for training: images are found, boxes
clipped to them. Official category ids are kept; labels are indices into the classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msbal.data.box_notation import are_fractions, odd_boxes
from msbal.data.boxes import clip_boxes, describe
from msbal.data.coco.coco_columns import CocoFile, class_name, parse_coco
from msbal.data.coco.coco_entries import WHAT
from msbal.data.coco.coco_json import read_json
from msbal.data.detection_data import DetectionData, DroppedBox
from msbal.data.files import listed, named, printable, require_folder
from msbal.data.images.finding import elsewhere, find_images
from msbal.data.images.image_files import image_size, without_warnings
from msbal.data.records import make_records
from msbal.data.remarks import spellings
from msbal.errors import DataError, suggest


def read_coco(
    annotations: Path,
    images: Path,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    *,
    partial: bool = False,
) -> DetectionData:
    """Read one split and check all of it.

    Args:
        annotations: the JSON file.
        images: the folder that its ``file_name`` entries are relative to.
        classes: names to train on, in the order of their labels; None takes every category, in the
            file's order. Boxes of other categories are counted in `DetectionData.other_classes`.
        name: what to call the split; the file's stem by default.
        partial: let some of `classes` be absent from the file, as long as one is there: for a
            validation file that is read with the training file's classes.

    Boxes that reach over the image's edge are clipped. Boxes without extent, outside their image or
    with NaN in them are left out and named in `DetectionData.dropped`. Sizes that are not given are
    those of the image files. ``difficult`` (no COCO key, but `DetectionData.to_coco` writes it) is read.

    Raises:
        DataError: one line that names the file, the entry at fault and what should stand there.
    """
    file = parse_coco(read_json(annotations, WHAT), named(annotations))
    chosen = _choose(file, classes, partial)
    paths, of_files = _files(file, images, annotations)
    sizes, of_sizes = _sizes(file, paths)
    notes = [*file.notes, *of_files, *of_sizes]
    return _assemble(name or annotations.stem, file, paths, sizes, chosen, notes)


def read_categories(annotations: Path) -> tuple[str, ...]:
    """The class names that `read_coco` takes from a file by default.

    Raises:
        DataError: as `read_coco` does.
    """
    return _choose(parse_coco(read_json(annotations, WHAT), named(annotations)), None, False).names


@dataclass(frozen=True)
class _Classes:
    names: tuple[str, ...]
    ids: tuple[int, ...]


def _choose(file: CocoFile, classes: Sequence[str] | None, partial: bool) -> _Classes:
    """Which categories are the classes, in which order.

    Roboflow exports a project's name as an unused category 0, which may be a real class's name too: of
    two categories of one name, the one with annotations counts.
    """
    categories, where = file.categories, file.where
    used = {categories[index][0] for index in np.unique(file.category).tolist()}
    by_name: dict[str, list[int]] = {}
    for id_, category in categories:
        by_name.setdefault(category, []).append(id_)
    id_of: dict[str, int] = {}
    for category, ids in by_name.items():
        in_use = [id_ for id_ in ids if id_ in used]
        if len(in_use) > 1:
            found = f"categories {in_use[0]} and {in_use[1]} are both named `{printable(category)}`"
            raise DataError(
                where, found, "a name of its own for every category (blanks around it do not count)"
            )
        id_of[category] = (in_use or ids)[0]
    if classes is None:
        kept = {id_of[category] for category in id_of}
        pairs = [(category, id_) for id_, category in categories if id_ in kept]
        return _Classes(tuple(category for category, _ in pairs), tuple(id_ for _, id_ in pairs))
    check_class_list(classes)
    names = [class_name(category) for category in classes]
    absent = [category for category, name in zip(classes, names, strict=True) if name not in id_of]
    if partial and len(absent) == len(classes):
        known = listed(id_of, len(id_of), 5)
        raise DataError(
            where, f"its categories ({known}) are none of those trained", listed(names, len(names), 5)
        )
    if absent and not partial:
        raise DataError(
            "classes",
            f"`{printable(absent[0])}` is no category of {where}"
            + (f" (nor are {len(absent) - 1} more of the {len(classes)} names)" if len(absent) > 1 else ""),
            fix=suggest(absent[0], list(id_of)[:100]),
        )
    free = max(id_ for id_, _ in categories) + 1
    ids = []
    for name in names:
        ids.append(id_of.get(name, free))
        free += name not in id_of
    return _Classes(tuple(names), tuple(ids))


def check_class_list(classes: Sequence[str]) -> None:
    """Raise a DataError where a list of class names is empty or names one twice."""
    if not classes:
        raise DataError("classes", "is an empty list", "at least one name, or no `classes` at all")
    twice = [name for name, count in Counter(map(class_name, classes)).items() if count > 1]
    if twice:
        raise DataError("classes", f"`{printable(twice[0])}` is listed twice", "every name once")


def _files(file: CocoFile, images: Path, annotations: Path) -> tuple[list[Path], list[str]]:
    """Every image's, and what is to be said of them."""
    require_folder(images, f"the folder of the images that {file.where} lists")
    found, notes = find_images(images, file.file_names)
    missing = [name for name, path in zip(file.file_names, found, strict=True) if path is None]
    if missing:
        is_all = len(missing) == len(found)
        count = "all" if is_all else str(len(missing))
        raise DataError(
            named(images),
            f"{count} of the {len(found)} images in {file.where} are missing: {listed(missing, len(missing))}",
            fix=elsewhere(missing, is_all, images, annotations)
            or "is this the folder that the `file_name` entries are relative to?",
        )
    paths = [path for path in found if path is not None]
    twice = Counter(map(str, paths))
    if len(twice) < len(paths):
        first = next(path for path, count in twice.items() if count > 1)
        notes.append(
            f"{len(paths) - len(twice)} of {len(paths)} images are listed again, the first {named(first)}"
        )
    return paths, notes


def _sizes(file: CocoFile, paths: list[Path]) -> tuple[NDArray[np.int64], list[str]]:
    """``[I, 2]``; where not given, as the image is shown. And what is to be said of them."""
    unknown = np.flatnonzero((file.sizes == 0).any(axis=1)).tolist()
    if not unknown:
        return file.sizes, []
    sizes = file.sizes.copy()
    with without_warnings():
        for row in unknown:
            sizes[row] = image_size(paths[row])
    return sizes, [f"{len(unknown)} of {len(paths)} images have no `width` and `height`: read from the files"]


def _assemble(
    name: str,
    file: CocoFile,
    paths: list[Path],
    sizes: NDArray[np.int64],
    chosen: _Classes,
    notes: list[str],
) -> DetectionData:
    label_of = {id_: label for label, id_ in enumerate(chosen.ids)}
    labels = np.array([label_of.get(id_, -1) for id_, _ in file.categories], dtype=np.int64)[file.category]
    corners, limits = file.corners, sizes[file.rows]
    if are_fractions(corners, limits):
        found = "no box reaches beyond the first pixel of its image"
        raise DataError(file.where, found, "pixels", "are these fractions of the image?")
    boxes, reasons = clip_boxes(corners, limits)

    def spot(index: int) -> str:
        return f"{file.annotation(index)} of {printable(file.file_names[file.rows[index]])}"

    usable = labels >= 0
    usable[list(reasons)] = False
    dropped = tuple(
        DroppedBox(
            image=printable(file.file_names[file.rows[index]]),
            annotation=file.annotation(index),
            reason=describe(file.boxes[index], reason),
            row=int(file.rows[index]),
        )
        for index, reason in sorted(reasons.items())
        if labels[index] >= 0
    )
    others: Counter[str] = Counter()
    for index, count in enumerate(np.bincount(file.category[labels < 0]).tolist()):
        if count:
            others[file.categories[index][1]] += count
    wanted = np.flatnonzero(usable)
    wanted = wanted[np.argsort(file.rows[wanted], kind="stable")]
    images = make_records(
        paths,
        sizes,
        file.rows[wanted],
        boxes[wanted],
        labels[wanted],
        file.difficult[wanted],
        ids=file.image_ids,
        area=file.area[wanted].astype(np.float32),
        crowd=file.crowd[wanted],
    )
    notes += [*odd_boxes(corners, limits, spot, from_extent=True), *spellings(chosen.names)]
    return DetectionData(
        name, chosen.names, chosen.ids, images, dropped, others, tuple(notes),
        file.image_numbers, file.category_numbers,
    )  # fmt: skip
