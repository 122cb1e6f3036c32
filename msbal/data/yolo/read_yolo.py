"""YOLO as data to train on: a text file for each image, a box in each line (``class cx cy w h``), no image sizes.

Source: ultralytics' detection format, https://docs.ultralytics.com/datasets/detect, and darknet's before it. An
outline gives the box around it, as in ultralytics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from msbal.data.assembly import Boxes, assemble, choose_classes
from msbal.data.detection_data import DetectionData
from msbal.data.files import listed, named, printable, read_bytes, require_folder
from msbal.data.images.image_files import image_size, without_warnings
from msbal.data.yolo.class_names import YoloNames, read_names
from msbal.data.yolo.label_files import label_files, labels_without_image, split_images
from msbal.errors import DataError

_LARGEST_FRACTION = 2.0  # a box may reach this far beyond its image; larger numbers are pixels


def read_yolo(
    root: Path,
    names: Path,
    images: Sequence[Path],
    classes: Sequence[str] | None = None,
    name: str | None = None,
) -> DetectionData:
    """Read one split and check all of it.

    Args:
        root: the folder that the other paths are relative to.
        names: the file that names the classes: ``data.yaml``, ``classes.txt``, ``obj.names``.
        images: folders of images, and text files that list images; see `msbal.data.yolo.label_files`.
        classes: names in the order of their labels; None takes all, in the order of their numbers. Boxes of
            others are counted in `DetectionData.other_classes`.
        name: what to call the split; its `images` by default.

    Category ids are the labels plus 1; image ids count from 1 in reading order. An image without a label file has
    no boxes. Unusable boxes are left out and named in `DetectionData.dropped`.

    Raises:
        DataError: one line that names the file, the line at fault and what should stand there.
    """
    require_folder(root, "the folder of the data set")
    known = read_names(root / names)
    chosen = choose_classes(list(known.names.values()), classes, named(root / names))
    paths = split_images(root, images)
    files = label_files(paths)
    if not any(files):
        raise DataError(
            named(paths[0].parent), f"none of its {len(paths)} images has a label file",
            f"labels/{printable(paths[0].stem)}.txt in place of images/, or {printable(paths[0].stem)}.txt beside it",
        )  # fmt: skip
    lines = _Lines()
    for row, file in enumerate(files):
        if file is not None:
            _read_labels(file, row, known, lines)
    with without_warnings():
        sizes = np.array([image_size(path) for path in paths], dtype=np.int64).reshape(-1, 2)
    title = name or "+".join(path.as_posix() for path in images)
    rows = np.array(lines.rows, dtype=np.int64)
    corners = np.array(lines.corners, dtype=np.float64).reshape(-1, 4) * sizes[rows][:, [0, 1, 0, 1]]
    index_of = {number: index for index, number in enumerate(known.names)}
    boxes = Boxes(
        rows=rows,
        known=list(known.names.values()),
        category=np.array([index_of[number] for number in lines.numbers], dtype=np.int64),
        corners=corners,
        written=np.round(corners, 3),
        difficult=np.zeros(len(rows), dtype=np.bool_),
        name=lambda box: f"{printable(paths[rows[box]].stem)}.txt: line {lines.places[box]}",
    )
    return assemble(title, chosen, paths, sizes, boxes, _notes(paths, files, lines))


@dataclass
class _Lines:
    """The boxes of many label files by column; `places` is the line of each, for messages.

    Attributes:
        corners: in fractions of the image.
        confident: lines with a sixth column.
        repeated: lines that repeat one of the same file.
    """

    rows: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    corners: list[tuple[float, float, float, float]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    confident: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)


def _read_labels(file: Path, row: int, known: YoloNames, into: _Lines) -> None:
    seen: set[bytes] = set()
    for place, line in enumerate(
        read_bytes(file, "a YOLO label file").removeprefix(b"\xef\xbb\xbf").splitlines(), 1
    ):
        columns = line.split()
        if not columns:
            continue
        plain = b" ".join(columns)
        if plain in seen:
            into.repeated.append(f"{file.name}: line {place}")
            continue
        seen.add(plain)
        try:
            number, *values = map(float, columns)
            corners = _corners(values, known.is_pose)
            label = int(number)
        except (ValueError, OverflowError):
            corners, label, number = None, 0, 0.0
        if corners is None:
            found = f"line {place} is `{printable(plain[:60].decode(errors='replace'))}`"
            raise DataError(named(file), found, "`class cx cy w h`, or `class x1 y1 x2 y2 ...` of an outline")
        if label != number or label not in known.names:
            numbers = listed((f"{n} ({name})" for n, name in known.names.items()), len(known.names), 5)
            raise DataError(named(file), f"line {place} has class {number:g}", f"one of {numbers}")
        if max(corners) > _LARGEST_FRACTION or min(corners) < -_LARGEST_FRACTION:
            found = f"line {place} is `{printable(plain[:60].decode(errors='replace'))}`"
            raise DataError(
                named(file), found, "fractions of the image's width and height, 0 to 1; are these pixels?"
            )
        if len(values) == 5 and not known.is_pose:
            into.confident.append(f"{file.name}: line {place}")
        into.rows.append(row)
        into.numbers.append(label)
        into.corners.append(corners)
        into.places.append(place)


def _corners(values: list[float], is_pose: bool) -> tuple[float, float, float, float] | None:
    """Return the corners that a line without its class gives; None where it is no such line."""
    if len(values) in (4, 5) or (is_pose and len(values) > 4):
        x, y, w, h = values[:4]
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2
    if len(values) >= 6 and len(values) % 2 == 0:
        return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    return None


def _notes(paths: Sequence[Path], files: Sequence[Path | None], lines: _Lines) -> list[str]:
    notes = []
    without = [path.name for path, file in zip(paths, files, strict=True) if file is None]
    if without:
        notes.append(
            f"{len(without)} of {len(paths)} images have no label file, and count as images without boxes: "
            f"{listed(without, len(without))}"
        )
    orphans = labels_without_image(paths)
    if orphans:
        notes.append(
            f"no image is there for {len(orphans)} of the label files: {listed(orphans, len(orphans))}"
        )
    by_file: dict[Path, list[str]] = {}
    for path, file in zip(paths, files, strict=True):
        if file is not None:
            by_file.setdefault(file, []).append(path.name)
    shared = [names for names in by_file.values() if len(names) > 1]
    if shared:
        first = " and ".join(map(printable, shared[0][:2]))
        notes.append(
            f"{len(shared)} of {len(by_file)} label files are those of several images, e.g. of {first}"
        )
    count = len(lines.rows) + len(lines.repeated)
    if lines.repeated:
        notes.append(
            f"{len(lines.repeated)} of {count} lines repeat one before them and are left out: {_first(lines.repeated)}"
        )
    if lines.confident:
        notes.append(
            f"{len(lines.confident)} of {count} lines have a sixth column, which is not used: {_first(lines.confident)}"
        )
    return notes


def _first(places: Sequence[str]) -> str:
    return listed(places, len(places), 1)
