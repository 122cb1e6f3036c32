"""Finding Pascal VOC folders and which of their image sets to train and to evaluate on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msbal.data.files import file_names
from msbal.data.tree import folders_below, role_of
from msbal.data.voc import EVERYTHING, annotation_folder, image_folder, read_set
from msbal.errors import DataError

_SETS = ("trainval", "train", "val", "test")


def find_voc(root: Path) -> tuple[dict[str, Any], str] | None:
    """The ``data:`` section for the VOC folders below `root`, and what was found in words.

    Returns:
        None where there are none.
    """
    folders = _folders(root)
    if not folders:
        return None
    train, val = _choose(root, folders)
    section: dict[str, Any] = {"format": "voc", "root": str(root), "train": {"sets": train}}
    words = f"Pascal VOC folders, train: {', '.join(train)}"
    if val:
        section["val"] = {"sets": val}
        words += f", val: {', '.join(val)}"
    return section, words


def _folders(root: Path) -> list[Path]:
    """Those with XML annotations and images, topmost first."""
    found: list[Path] = []
    for folder in folders_below(root, 2):
        if folder.name in {"Annotations", "annotations"} or any(other in folder.parents for other in found):
            continue
        try:
            annotation_folder(folder)
            image_folder(folder)
        except DataError:
            continue
        found.append(folder)
    return found


def _choose(root: Path, folders: list[Path]) -> tuple[list[str], list[str]]:
    """Sets to train on, sets to evaluate on; the second may be empty.

    As with VOC itself, trainval and test where both are there (2007 and 2012 joined: the test set of
    2012 is not public), else train and val. Without sets, folders named ``train`` and ``valid`` speak
    for themselves.
    """
    with_set = {set_: [f for f in folders if _has_set(f, set_)] for set_ in _SETS}

    def entries(set_: str) -> list[str]:
        return [_entry(root, folder, set_) for folder in with_set[set_]]

    for train, val in (("trainval", "test"), ("train", "val"), ("train", "test"), ("trainval", "val")):
        if with_set[train] and with_set[val]:
            return entries(train), entries(val)
    for train in ("trainval", "train"):
        if with_set[train]:
            return entries(train), []

    roles = {folder: role_of(folder.name) for folder in folders if folder != root}
    by_role: dict[str, list[str]] = {}
    for folder, role in roles.items():
        by_role.setdefault(role[0] if role else "", []).append(_entry(root, folder, EVERYTHING))
    if "train" in by_role:
        return by_role["train"], by_role.get("val") or by_role.get("test") or []
    return [_entry(root, folder, EVERYTHING) for folder in folders], []


def _entry(root: Path, folder: Path, set_: str) -> str:
    relative = folder.relative_to(root).as_posix()
    return set_ if relative == "." else f"{relative}/{set_}"


def _has_set(folder: Path, set_: str) -> bool:
    """Whether the set is there and its first image is annotated (VOC2012's test images are not)."""
    try:
        stems = read_set(folder / "ImageSets" / "Main" / f"{set_}.txt")
        return f"{Path(stems[0]).name}.xml" in file_names(annotation_folder(folder))
    except DataError:
        return False
