"""Recognising how a folder of data is laid out, for a starter spec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msbal.data.files import listed, named, require_folder
from msbal.data.layout_coco import find_coco
from msbal.data.layout_voc import find_voc
from msbal.data.tree import entries_of, is_folder
from msbal.errors import DataError

HOLDOUT = 0.2  # of the images, where there is one split only


@dataclass(frozen=True)
class Layout:
    """What was recognised.

    Attributes:
        data: a spec's ``data:`` section, plain values; ``root`` is absolute, the other paths relative
            to it.
        summary: what was found, in words, on one line.
        notes: what else is there and was not taken.
    """

    data: dict[str, Any]
    summary: str
    notes: tuple[str, ...] = ()


def recognise(folder: Path, prefer: Literal["coco", "voc"] | None = None) -> Layout:
    """Find the data set in a folder.

    Known are COCO annotation files (``annotations/*.json`` with split names in their own or their
    folder's name, Roboflow's ``train/_annotations.coco.json``, a single file) with their images anywhere
    below the folder, and Pascal VOC (``VOCdevkit``, one ``VOC2007``, ``Annotations`` and ``JPEGImages``
    without ``ImageSets``, XML files beside the images). Where there is one split only, a fifth of it is
    to be held out.

    Args:
        folder: to look in, three levels deep.
        prefer: which to take where both are there; COCO if None.

    Raises:
        DataError: naming what was looked for and what is there instead.
    """
    require_folder(folder, "a folder with a data set")
    root = folder.absolute()
    finders: dict[str, Callable[[Path], tuple[dict[str, Any], str] | None]]
    finders = {"coco": find_coco, "voc": find_voc}
    order = ["voc", "coco"] if prefer == "voc" else ["coco", "voc"]
    found: list[tuple[dict[str, Any], str]] = []
    problems: list[DataError] = []
    for name in order:
        try:
            result = finders[name](root)
        except DataError as error:
            problems.append(error)
            continue
        if result is not None:
            found.append(result)
    if found:
        section, summary = found[0]
        if "val" not in section:
            section = {**section, "holdout": HOLDOUT}
            summary += f"; {HOLDOUT:.0%} of the images to be held out"
        return Layout(section, summary, tuple(f"also there: {other}" for _, other in found[1:]))
    if problems:
        raise problems[0]
    raise DataError(
        named(folder),
        f"holds no data set that msbal knows ({_content(root)})",
        "COCO (a JSON file with images, annotations and categories, e.g. annotations/instances_train.json, "
        "and its images) or Pascal VOC (Annotations/*.xml and JPEGImages/)",
        _hint(root),
    )


def _content(root: Path) -> str:
    names = sorted(entry.name + ("/" if is_folder(entry) else "") for entry in entries_of(root))
    return f"it holds {listed(names, len(names), 6)}" if names else "it is empty"


def _hint(root: Path) -> str:
    names = {entry.name for entry in entries_of(root)}
    if names & {"labels", "data.yaml", "data.yml", "classes.txt"}:
        return "this looks like YOLO's layout: export or convert it to COCO"
    return "name the folder above the images and the annotations"
