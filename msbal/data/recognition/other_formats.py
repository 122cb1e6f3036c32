"""Formats that are recognised but not read, and what to export instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from msbal.data.folders import entries_of, folders_below, is_folder

_HEAD = 2**20  # bytes of a file that are looked at
_MAX_FILES = 200
_EXPORT = "export as COCO, Pascal VOC or YOLO"
# Suffix, what is in the file's first bytes, what it is, what to do.
_KINDS = [
    (".xml", rb"<annotations[\s>].*<(?:image|track)\s", "CVAT's own XML", "export as COCO 1.0 or Pascal VOC 1.1"),
    (".json", rb'"shapes".*"imagePath"|"imagePath".*"shapes"', "labelme's own JSON (one file an image)",
     "convert it with `labelme2coco` or labelme's examples/bbox_detection/labelme2voc.py"),
    (".json", rb'"_via_\w+"|"regions".*"shape_attributes"', "VIA's own JSON", "export as COCO"),
    (".json", rb'"(?:rectanglelabels|completed_by|lead_time)"', "Label Studio's own JSON",
     "export as COCO with images, Pascal VOC or YOLO with images"),
    (".json", rb'"annotations?".*"coordinates"', "CreateML's JSON", _EXPORT),
    (".json", rb'"classTitle"', "Supervisely's own JSON", _EXPORT),
    (".json", rb'"box2d"', "BDD100K's own JSON", "convert it to COCO"),
    (".json", rb'"segments_info"', "COCO's panoptic annotations", "use instances_*.json, which has boxes"),
    (".csv", rb"(?i)xmin|class|label", "a table of boxes (CSV)", _EXPORT),
    (".tfrecord", rb"", "TFRecord files", _EXPORT),
    (".tfrecords", rb"", "TFRecord files", _EXPORT),
    (".record", rb"", "TFRecord files", _EXPORT),
    (".zip", rb"PK", "an archive", "unpack it and name the folder"),
]  # fmt: skip


def known_by_sight(root: Path) -> tuple[str, str] | None:
    """Return what a folder has in a format that is not read, with the file's name, and what to do; else None."""
    for index, path in enumerate(_files(root)):
        if index == _MAX_FILES:
            break
        matching = [kind for kind in _KINDS if path.name.lower().endswith(kind[0])]
        head = _head(path) if matching else b""
        for _, pattern, what, remedy in matching:
            if re.search(pattern, head, re.DOTALL):
                return f"{what}, {path.relative_to(root).as_posix()}", remedy
    return None


def _files(root: Path) -> Iterator[Path]:
    suffixes = tuple({kind[0] for kind in _KINDS})
    for folder in folders_below(root, 2):
        for entry in entries_of(folder):
            if entry.name.lower().endswith(suffixes) and not is_folder(entry):
                yield folder / entry.name


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD).replace(b"\0", b"")
    except OSError:
        return b""
