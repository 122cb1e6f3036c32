"""Reading Pascal VOC folders: ``Annotations/*.xml``, ``ImageSets/Main/*.txt``, ``JPEGImages``.

Source: the VOC2007 development kit. Its boxes are one-based and inclusive: a box from pixel 1 to pixel
10 becomes ``0 .. 10`` here (right edge exclusive), the same area that the kit's own code computes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from msbal.data.boxes import box_area, clip_boxes, describe
from msbal.data.coco import check_class_list
from msbal.data.files import IMAGE_SUFFIXES, file_names, listed, named, printable, read_bytes, require_folder
from msbal.data.model import DetectionData, DroppedBox, ImageRecord
from msbal.data.pictures import image_size
from msbal.data.xmlfile import read_xml
from msbal.errors import DataError, suggest

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
WHAT = "a VOC annotation file (XML with size and objects)"
ANNOTATION_FOLDERS = ("Annotations", "annotations")
IMAGE_FOLDERS = ("JPEGImages", "images", "Images")
EVERYTHING = "*"
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
            folder ``.`` is `root` itself; the set ``*`` is every file in ``Annotations``, by name, for
            data without ``ImageSets``. In a set file with a second column (``car_train.txt``), rows
            with -1 there are not in the set.
        classes: names in the order of their labels; None takes those found, sorted, which for VOC itself
            is the usual order of its 20 classes. Boxes of others are counted in
            `DetectionData.other_classes`.
        name: what to call the split; the sets by default.
        partial: let some of `classes` not occur, as long as one does; see `read_coco`.

    Category ids are the labels plus 1; image ids count from 1 in reading order. A box whose ``xmax`` is
    not above its ``xmin`` (or y) is left out and named in `DetectionData.dropped`.

    Raises:
        DataError: one line that names the file, the entry at fault and what should stand there.
    """
    require_folder(root, "the folder that holds the VOC folders")
    if not sets:
        raise DataError("sets", "is an empty list", "at least one set such as VOC2007/trainval")
    entries = [entry for folder, set_ in sets for entry in _entries(root, folder, set_)]
    _refuse_missing(entries)
    parsed = [_parse(entry) for entry in entries]
    found = sorted({thing.name for _, things in parsed for thing in things})
    chosen = _choose(found, classes, named(root), partial)
    title = name or "+".join(f"{folder}/{set_}" for folder, set_ in sets)
    return _assemble(title, entries, parsed, chosen)


def found_classes(root: Path, sets: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The class names that `read_voc` takes by default.

    Raises:
        DataError: as `read_voc` does.
    """
    return read_voc(root, sets).classes


@dataclass(frozen=True)
class _Entry:
    """One line of a set file."""

    stem: str
    source: str
    annotation: Path | None
    image: Path | None
    folder: Path


@dataclass(frozen=True)
class _Thing:
    """One object: corners as the file has them."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


@dataclass
class _Folder:
    """What lies in one VOC folder, listed once.

    Attributes:
        annotations: stem to file, likewise `images`.
    """

    path: Path
    annotations: dict[str, Path] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def at(cls, path: Path) -> _Folder:
        require_folder(path, "a VOC folder (with Annotations and JPEGImages)")
        folder = cls(path)
        annotations, images = annotation_folder(path), image_folder(path)
        for file in sorted(file_names(annotations)):
            if _is_visible(file, {".xml"}):
                folder.annotations[Path(file).stem] = annotations / file
        # Reversed, so that of two files of one stem the first by name counts (.jpg before .png).
        for file in sorted(file_names(images), reverse=True):
            if _is_visible(file, IMAGE_SUFFIXES):
                folder.images[Path(file).stem] = images / file
        return folder


def annotation_folder(folder: Path) -> Path:
    """Where a VOC folder keeps its XML files; the folder itself where they lie in it.

    Raises:
        DataError: where there are none.
    """
    return _part(folder, ANNOTATION_FOLDERS, {".xml"}, "XML annotations")


def image_folder(folder: Path) -> Path:
    """Where a VOC folder keeps its images; the folder itself where they lie in it.

    Raises:
        DataError: where there are none.
    """
    return _part(folder, IMAGE_FOLDERS, IMAGE_SUFFIXES, "images")


def _part(folder: Path, names: Sequence[str], suffixes: Container[str], what: str) -> Path:
    for candidate in (*(folder / name for name in names), folder):
        if any(_is_visible(file, suffixes) for file in file_names(candidate)):
            return candidate
    raise DataError(named(folder), f"has no {what}", f"a folder {names[0]} with at least one")


def _is_visible(file: str, suffixes: Container[str]) -> bool:
    # macOS leaves "._name.jpg" beside "name.jpg" on foreign disks.
    return not file.startswith(".") and Path(file).suffix.lower() in suffixes


def _entries(root: Path, folder_name: str, set_: str) -> Iterator[_Entry]:
    folder = _Folder.at(root / folder_name)
    if set_ == EVERYTHING:
        stems, source = list(folder.annotations), named(folder.path)
    else:
        path = folder.path / "ImageSets" / "Main" / f"{set_}.txt"
        stems, source = read_set(path, folder.annotations), named(path)
    for stem in stems:
        bare = stem if stem in folder.annotations else _without_image_suffix(stem)
        yield _Entry(bare, source, folder.annotations.get(bare), folder.images.get(bare), folder.path)


def read_set(path: Path, known: Container[str] = ()) -> list[str]:
    """The image names that a set file lists.

    Args:
        path: the file.
        known: names that exist; a line that is one of them is a name as it stands, also where it ends
            in something that looks like a second column (``photo 1``).

    Raises:
        DataError: where it is missing, not text, or lists nothing.
    """
    raw = read_bytes(path, "a VOC set file (a text file of image names)")
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(named(path), f"is not text: {error.reason} at byte {error.start}") from error
    stems = []
    for line in lines:
        columns = line.rsplit(maxsplit=1)
        # Names may hold spaces, so only a last column of -1, 0 or 1 is one.
        if line.strip() not in known and len(columns) == 2 and columns[1] in {"-1", "0", "1"}:
            if columns[1] != "-1":
                stems.append(columns[0].strip())
        elif columns:
            stems.append(line.strip())
    if not stems:
        raise DataError(named(path), "lists zero images", "an image name a line")
    twice = [stem for stem, count in Counter(stems).items() if count > 1]
    if twice:
        raise DataError(named(path), f"lists `{printable(twice[0])}` more than once", "every image once")
    return stems


def _without_image_suffix(stem: str) -> str:
    path = Path(stem)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES | {".xml"} else stem


def _refuse_missing(entries: Sequence[_Entry]) -> None:
    for kind, what in (("annotation", "an XML file in Annotations"), ("image", "a file in JPEGImages")):
        missing = [entry for entry in entries if getattr(entry, kind) is None]
        if missing:
            names = listed((entry.stem for entry in missing), len(missing))
            found = f"{len(missing)} of {len(entries)} listed images have no {kind}: {names}"
            raise DataError(missing[0].source, found, f"{what} for each")
    twice = [path for path, count in Counter(entry.annotation for entry in entries).items() if count > 1]
    if twice and twice[0] is not None:
        found = f"`{printable(twice[0].stem)}` of {named(twice[0].parent.parent)} is in two of the sets"
        raise DataError("sets", found, "sets that share no image (trainval holds train and val)")


def _parse(entry: _Entry) -> tuple[tuple[int, int], list[_Thing]]:
    """Size and objects of one image."""
    assert entry.annotation is not None and entry.image is not None
    where = named(entry.annotation)
    root = read_xml(entry.annotation, WHAT)
    things = [_thing(node, index, where) for index, node in enumerate(root.iterfind("object"))]
    return _size(root, entry.image, where), things


def _size(root: Element, image: Path, where: str) -> tuple[int, int]:
    """Width and height; from the image itself where the XML has none, or zeros as some tools write."""
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


def _thing(node: Element, index: int, where: str) -> _Thing:
    spot = f"object {index + 1}"
    name = (node.findtext("name") or "").strip()
    if not name:
        raise DataError(where, f"{spot} has no name", "the name of its class")
    box = node.find("bndbox")
    if box is None:
        raise DataError(where, f"{spot} ({printable(name)}) has no bndbox", ", ".join(_CORNERS))
    x1, y1, x2, y2 = (_number(box, key, f"{spot} ({printable(name)}): bndbox", where) for key in _CORNERS)
    difficult = (node.findtext("difficult") or "0").strip()
    if difficult not in {"0", "1", ""}:
        raise DataError(where, f"{spot}: difficult is `{printable(difficult)[:40]}`", "0 or 1")
    return _Thing(name, (x1, y1, x2, y2), difficult == "1")


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


def _choose(found: list[str], classes: Sequence[str] | None, where: str, partial: bool) -> tuple[str, ...]:
    if classes is None:
        if not found:
            raise DataError(where, "its annotations name zero objects", "at least one")
        return tuple(found)
    check_class_list(classes)
    absent = [category for category in classes if category not in found]
    if absent and (not partial or len(absent) == len(classes)):
        raise DataError(
            "classes",
            f"`{printable(absent[0])}` occurs nowhere in {where}"
            + (f" (nor do {len(absent) - 1} more of the {len(classes)} names)" if len(absent) > 1 else ""),
            fix=suggest(absent[0], found[:100]),
        )
    return tuple(classes)


def _assemble(
    name: str,
    entries: Sequence[_Entry],
    parsed: Sequence[tuple[tuple[int, int], list[_Thing]]],
    classes: tuple[str, ...],
) -> DetectionData:
    label_of = {category: label for label, category in enumerate(classes)}
    images, dropped = [], []
    others: Counter[str] = Counter()
    for number, (entry, (size, things)) in enumerate(zip(entries, parsed, strict=True), start=1):
        assert entry.annotation is not None and entry.image is not None
        wanted = [(index, thing) for index, thing in enumerate(things) if thing.name in label_of]
        others.update(thing.name for thing in things if thing.name not in label_of)
        corners = np.array([thing.corners for _, thing in wanted], dtype=np.float64).reshape(-1, 4)
        # xmax == xmin would be one pixel wide in VOC's inclusive corners; in practice it is a click
        # without a drag, and everyone's converters drop it.
        zero_based = corners - np.array([1.0, 1.0, 0.0, 0.0])
        flat = np.isfinite(corners).all(axis=1) & ~(corners[:, 2:] > corners[:, :2]).all(axis=1)
        zero_based[flat, 2:] = zero_based[flat, :2]
        boxes, reasons = clip_boxes(zero_based, np.full((len(wanted), 2), size))
        for row, reason in sorted(reasons.items()):
            index, thing = wanted[row]
            spot = f"object {index + 1} ({printable(thing.name)})"
            file = printable(entry.annotation.name)
            dropped.append(
                DroppedBox(printable(entry.image.name), f"{file}: {spot}", describe(thing.corners, reason))
            )
        kept = [row for row in range(len(wanted)) if row not in reasons]
        boxes = boxes[kept]
        images.append(
            ImageRecord(
                id=number,
                path=entry.image,
                width=size[0],
                height=size[1],
                boxes=boxes,
                labels=np.array([label_of[wanted[row][1].name] for row in kept], dtype=np.int64),
                area=box_area(boxes),
                crowd=np.zeros(len(kept), dtype=np.bool_),
                difficult=np.array([wanted[row][1].difficult for row in kept], dtype=np.bool_),
            )
        )
    ids = tuple(range(1, len(classes) + 1))
    return DetectionData(name, classes, ids, tuple(images), tuple(dropped), others)
