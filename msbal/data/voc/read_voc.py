"""Pascal VOC as data to train on: the XML files of a set, read and checked.

Source: the VOC2007 development kit. Its boxes are one-based and inclusive: a box from pixel 1 to pixel
10 becomes ``0 .. 10`` here (right edge exclusive), the same area that the kit's own code computes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from msbal.data.assembly import Boxes, assemble, choose_classes, class_name
from msbal.data.box_checks import are_fractions
from msbal.data.detection_data import DetectionData
from msbal.data.files import listed, named, printable, require_folder
from msbal.data.images.image_files import image_size
from msbal.data.voc.image_sets import EVERYTHING, members
from msbal.data.voc.voc_folder import VocFolder
from msbal.data.voc.xml_file import read_xml
from msbal.errors import DataError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
WHAT = "a VOC annotation file (XML with size and objects)"
_LARGEST_SIDE = 2**20


def read_voc(
    root: Path,
    sets: Sequence[tuple[str, str]],
    classes: Sequence[str] | None = None,
    name: str | None = None,
    *,
    partial: bool = False,
) -> DetectionData:
    """Read one split and check all of it.

    Args:
        root: the folder that the sets' folders are relative to (``VOCdevkit``).
        sets: ``(folder, set)`` pairs, e.g. ``[("VOC2007", "trainval"), ("VOC2012", "trainval")]``. The
            folder ``.`` is `root` itself; the set ``*`` is every XML file, by name, for data without
            ``ImageSets``, or all that belong to images in the folder. In a set file with a second column
            (``car_train.txt``), rows with -1 there are not in the set; they are in ``*_train``, the images of
            all such lists.
        classes: names in the order of their labels; None takes those found, sorted, which for VOC itself
            is the usual order of its 20 classes. Boxes of others are counted in
            `DetectionData.other_classes`.
        name: what to call the split; the sets by default.
        partial: let some of `classes` not occur, as long as one does; see `read_coco`.

    Category ids are the labels plus 1; image ids count from 1 in reading order. A box whose ``xmax`` is its
    ``xmin`` (or y) is left out and named in `DetectionData.dropped`; corners the wrong way round are exchanged.

    Raises:
        DataError: one line that names the file, the entry at fault and what should stand there.
    """
    require_folder(root, "the folder that holds the VOC folders")
    if not sets:
        raise DataError("sets", "is an empty list", "at least one set such as VOC2007/trainval")
    folders = {folder: VocFolder.at(root / folder, root) for folder in dict.fromkeys(f for f, _ in sets)}
    entries = [entry for folder, set_ in sets for entry in _entries(folders[folder], set_)]
    _refuse_missing(entries)
    parsed = [_parse(entry) for entry in entries]
    known = sorted({thing.name for _, things in parsed for thing in things})
    if not known and classes is None:
        raise DataError(named(root), "its annotations name zero objects", "at least one")
    chosen = choose_classes(known, classes, named(root), partial=partial)
    title = name or "+".join(f"{folder}/{set_}" for folder, set_ in sets)
    everything = [folders[folder] for folder, set_ in sets if set_ == EVERYTHING]
    sizes = np.array([size for size, _ in parsed], dtype=np.int64).reshape(-1, 2)
    boxes, flipped = _boxes(entries, [things for _, things in parsed], sizes, known)
    notes = [*_unannotated(everything), *_two_images(entries), *flipped]
    paths = [entry.image for entry in entries if entry.image is not None]
    return assemble(title, chosen, paths, sizes, boxes, notes)


@dataclass(frozen=True)
class _Entry:
    """One image of a set."""

    stem: str
    source: str
    annotation: Path | None
    images: list[Path]  # that it may be; the first is taken
    folder: VocFolder

    @property
    def image(self) -> Path | None:
        return self.images[0] if self.images else None


@dataclass(frozen=True)
class _Thing:
    """One object: corners as the file has them."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


def _entries(folder: VocFolder, set_: str) -> Iterator[_Entry]:
    names, source = members(folder, set_)
    for name in names:
        yield _Entry(name, source, folder.annotations.get(name), folder.images_of(name), folder)


def _refuse_missing(entries: Sequence[_Entry]) -> None:
    for kind, what in (("annotation", "an XML file"), ("image", "an image")):
        missing = [entry for entry in entries if getattr(entry, kind) is None]
        if missing:
            names = listed((entry.stem for entry in missing), len(missing))
            found = f"{len(missing)} of {len(entries)} listed images have no {kind}: {names}"
            folder = missing[0].folder
            place = folder.image_folder if kind == "image" else folder.annotation_folder
            raise DataError(
                missing[0].source,
                found,
                f"{what} of that name for each in {named(place)}",
                "add or delist them",
            )
    twice = [path for path, count in Counter(entry.annotation for entry in entries).items() if count > 1]
    if twice and twice[0] is not None:
        found = f"`{printable(twice[0].stem)}` of {named(twice[0].parent.parent)} is in two of the sets"
        raise DataError("sets", found, "sets that share no image (trainval holds train and val)")


def _parse(entry: _Entry) -> tuple[tuple[int, int], list[_Thing]]:
    """Return size and objects of one image."""
    assert entry.annotation is not None and entry.image is not None
    where = named(entry.annotation)
    root = read_xml(entry.annotation, WHAT)
    things = [_thing(node, index, where) for index, node in enumerate(root.iterfind("object"))]
    return _size(root, entry.image, where), things


def _size(root: Element, image: Path, where: str) -> tuple[int, int]:
    """Return width and height; the image file's where the XML has none, or zeros as some tools write."""
    node = root.find("size")
    if node is None:
        return image_size(image)
    sides = [0 if node.find(key) is None else int(_number(node, key, "size", where)) for key in _SIDES]
    if sides == [0, 0]:
        return image_size(image)
    if not all(0 < side <= _LARGEST_SIDE for side in sides):
        raise DataError(where, f"size is {sides[0]} x {sides[1]}", "a width and height in pixels")
    return sides[0], sides[1]


_SIDES = ("width", "height")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_FLAGS = {"": False, "0": False, "false": False, "unspecified": False, "1": True, "true": True}


def _thing(node: Element, index: int, where: str) -> _Thing:
    spot = f"object {index + 1}"
    name = class_name(node.findtext("name") or "")
    if not name:
        raise DataError(where, f"{spot} has no name", "the name of its class")
    box = node.find("bndbox")
    if box is None:
        rotated = node.find("robndbox") is not None
        found = "is a rotated box (robndbox)" if rotated else "has no bndbox"
        fix = "export upright boxes" if rotated else ""
        raise DataError(
            where, f"{spot} ({printable(name)}) {found}", f"a bndbox with {', '.join(_CORNERS)}", fix
        )
    x1, y1, x2, y2 = (_number(box, key, f"{spot} ({printable(name)}): bndbox", where) for key in _CORNERS)
    difficult = (node.findtext("difficult") or "").strip()
    if difficult.lower() not in _FLAGS:
        raise DataError(where, f"{spot}: difficult is `{printable(difficult)[:40]}`", "0 or 1")
    return _Thing(name, (x1, y1, x2, y2), _FLAGS[difficult.lower()])


def _number(parent: Element, key: str, spot: str, where: str) -> float:
    text = parent.findtext(key)
    if text is None:
        raise DataError(where, f"{spot} has no {key}", "a number")
    try:
        value = float(text)
    except ValueError as error:
        found = f"{spot}: {key} is `{printable(text.strip())[:40]}`"
        raise DataError(where, found, "a number") from error
    if spot == "size" and not math.isfinite(value):
        raise DataError(where, f"size: {key} is {value}", "a number")
    return value


def _boxes(
    entries: Sequence[_Entry],
    objects: Sequence[list[_Thing]],
    sizes: NDArray[np.int64],
    known: Sequence[str],
) -> tuple[Boxes, list[str]]:
    """Return all boxes, zero-based, and what to say about corners that were exchanged."""
    places = [(row, index) for row, things in enumerate(objects) for index in range(len(things))]
    things = [objects[row][index] for row, index in places]

    def spot(box: int) -> str:
        row, index = places[box]
        file = entries[row].annotation
        assert file is not None
        return f"{printable(file.name)}: object {index + 1} ({printable(things[box].name)})"

    rows = np.array([row for row, _ in places], dtype=np.int64)
    corners = np.array([thing.corners for thing in things], dtype=np.float64).reshape(-1, 4)
    notes = []
    flipped = _flipped(corners, sizes[rows], spot)
    if len(flipped):
        notes.append(
            f"{len(flipped)} of {len(things)} boxes have xmax below xmin, or ymax below ymin, which are taken for "
            f"each other, first {spot(int(flipped[0]))}"
        )
    low, high = np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])
    if are_fractions(np.concatenate([low, high], axis=1), sizes[rows]):
        found = "bndbox reaches no further than the first pixel, nor does any other"
        raise DataError(spot(0), found, "pixels", "are these fractions of the image?")
    # xmax == xmin would be one pixel wide in VOC's inclusive corners; in practice it is a click
    # without a drag, and everyone's converters drop it.
    flat = np.isfinite(corners).all(axis=1) & (high == low).any(axis=1)
    high[flat] = low[flat] - 1
    index_of = {name: index for index, name in enumerate(known)}
    boxes = Boxes(
        rows=rows,
        known=known,
        category=np.array([index_of[thing.name] for thing in things], dtype=np.int64),
        corners=np.concatenate([low - 1, high], axis=1),
        written=corners,
        difficult=np.array([thing.difficult for thing in things], dtype=np.bool_),
        name=spot,
    )
    return boxes, notes


def _flipped(
    corners: NDArray[np.float64], sizes: NDArray[np.int64], spot: Callable[[int], str]
) -> NDArray[np.int64]:
    """Return the boxes with corners the wrong way round, as some tools write boxes drawn from right to left.

    Raises:
        DataError: where all boxes of the split fit into their images as ``x, y, width, height``.
    """
    found = np.flatnonzero((corners[:, 2:] < corners[:, :2]).any(axis=1))
    # If these were corners, all boxes would be in the upper left quarter of their images.
    with np.errstate(invalid="ignore"):
        all_fit = bool((corners[:, :2] + corners[:, 2:] <= sizes + 1).all())
    if len(found) and all_fit:
        box = ", ".join(f"{value:g}" for value in corners[found[0]])
        raise DataError(
            spot(int(found[0])), f"bndbox is {box}, and all {len(corners)} boxes would fit as x, y, width and height",
            ", ".join(_CORNERS), "write corners, not sizes",
        )  # fmt: skip
    return found


def _unannotated(folders: Sequence[VocFolder]) -> Iterator[str]:
    """Yield a note on images without XML, where every image was asked for."""
    names = [image.name for folder in folders for image in folder.unannotated]
    if names:
        count = sum(len(folder.images) for folder in folders)
        yield f"{len(names)} of {count} images have no XML file and are left out: {listed(names, len(names))}"


def _two_images(entries: Sequence[_Entry]) -> Iterator[str]:
    """Yield a note where an XML file may belong to several images."""
    several = [entry.images for entry in entries if len(entry.images) > 1]
    if several:
        first = " and ".join(printable(image.name) for image in several[0][:2])
        yield f"{len(several)} of {len(entries)} XML files fit two images each, e.g. {first}: the first is taken"
