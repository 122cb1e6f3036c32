"""COCO annotation files as data to train on: images are found, boxes clipped to them, and every mistake is named.

Category ids are kept; labels are indices into the classes.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msbal.data.assembly import Boxes, assemble, choose_classes
from msbal.data.box_checks import are_fractions
from msbal.data.coco.coco_columns import CocoFile, read_coco_file
from msbal.data.detection_data import DetectionData
from msbal.data.files import listed, named, printable, require_folder
from msbal.data.images.finding import elsewhere, find_images
from msbal.data.images.image_files import image_size, without_warnings
from msbal.errors import DataError


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
    file = read_coco_file(annotations)
    id_of = _ids_by_name(file)
    chosen = choose_classes(list(id_of), classes, file.where, "category", partial=partial)
    paths, of_files = _files(file, images, annotations)
    sizes, of_sizes = _sizes(file, paths)
    if are_fractions(file.corners, sizes[file.rows]):
        found = "no box reaches beyond the first pixel of its image"
        raise DataError(file.where, found, "pixels", "are these fractions of the image?")
    boxes = Boxes(
        rows=file.rows,
        known=[name for _, name in file.categories],
        category=file.category,
        corners=file.corners,
        written=file.boxes,
        difficult=file.difficult,
        name=file.annotation,
        image_names=file.file_names,
        are_extents=True,
        area=file.area,
        crowd=file.crowd,
    )
    free = itertools.count(max(id_of.values()) + 1)
    data = assemble(
        name or annotations.stem,
        chosen,
        paths,
        sizes,
        boxes,
        [*file.notes, *of_files, *of_sizes],
        image_ids=file.image_ids,
        category_ids=[id_of[name] if name in id_of else next(free) for name in chosen],
    )
    return replace(data, image_numbers=file.image_numbers, category_numbers=file.category_numbers)


def read_categories(annotations: Path) -> tuple[str, ...]:
    """Return the class names that `read_coco` takes from a file by default.

    Raises:
        DataError: as `read_coco` does.
    """
    return tuple(_ids_by_name(read_coco_file(annotations)))


def _ids_by_name(file: CocoFile) -> dict[str, int]:
    """Return the category id of each name, in the file's order.

    Of two categories with one name, the one with annotations counts: Roboflow exports a project's name as an unused
    category 0, and a class may be called the same.
    """
    used = {file.categories[index][0] for index in np.unique(file.category).tolist()}
    by_name: dict[str, list[int]] = {}
    for id_, name in file.categories:
        by_name.setdefault(name, []).append(id_)
    kept = set()
    for name, ids in by_name.items():
        in_use = [id_ for id_ in ids if id_ in used]
        if len(in_use) > 1:
            found = f"categories {in_use[0]} and {in_use[1]} are both named `{printable(name)}`"
            expected = "a name of its own for every category (blanks around it do not count)"
            raise DataError(file.where, found, expected)
        kept.add((in_use or ids)[0])
    return {name: id_ for id_, name in file.categories if id_ in kept}


def _files(file: CocoFile, images: Path, annotations: Path) -> tuple[list[Path], list[str]]:
    """Return the file of every image, and what to say about them."""
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
    """Return width and height ``[I, 2]``, from the image file where not given, and what to say about them."""
    unknown = np.flatnonzero((file.sizes == 0).any(axis=1)).tolist()
    if not unknown:
        return file.sizes, []
    sizes = file.sizes.copy()
    with without_warnings():
        for row in unknown:
            sizes[row] = image_size(paths[row])
    return sizes, [f"{len(unknown)} of {len(paths)} images have no `width` and `height`: read from the files"]
