"""Looking through folders: what is in them, and what the names say (an image, a split)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"})
_MAX_FOLDERS = 500
_ROLES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "minival": "val",
    "eval": "val", "evaluation": "val", "holdout": "val",
    "test": "test", "testing": "test",
    "trainval": "trainval", "trainset": "train", "valset": "val", "testset": "test",
}  # fmt: skip
_WORD = re.compile(r"[A-Za-z]+")


def file_names(folder: Path | str) -> frozenset[str]:
    """Return the names of the regular files in `folder` (links followed); nothing where it cannot be listed.

    One scan of the folder instead of a `stat` for each file: 118,000 images take a fraction of a second, over a
    network too.
    """
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if _is_file(entry))
    except (OSError, ValueError):
        return frozenset()


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a loop of links
        return False


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder by name, without hidden entries; nothing where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError:
        return []


def folders_below(root: Path, depth: int) -> Iterator[Path]:
    """Yield `root` and the folders down to `depth` below it, nearest first, each once; at most 500."""
    level = [root]
    seen: set[str] = set()
    for _ in range(depth + 1):
        following: list[Path] = []
        for folder in level:
            # A link may lead back up.
            real = os.path.realpath(folder)
            if real in seen:
                continue
            if len(seen) >= _MAX_FOLDERS:
                return
            seen.add(real)
            yield folder
            following += [folder / entry.name for entry in entries_of(folder) if is_folder(entry)]
        level = following


def role_of(name: str) -> tuple[str, str] | None:
    """Return the split that a name refers to (``train``, ``val``, ``test``, ``trainval``), and the name without it.

    ``instances_train2017`` gives ``("train", "instances_*2017")``.
    """
    for word in _WORD.finditer(name):
        role = _ROLES.get(word.group().lower())
        if role is not None:
            return role, f"{name[: word.start()]}*{name[word.end() :]}"
    return None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def plain_stem(name: str) -> str:
    """Return a name without the suffix of an image or of XML."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a Path a name costs a second over 118,000
    return stem if suffix.lower() in IMAGE_SUFFIXES | {".xml"} else name


def is_xml(name: str) -> bool:
    """Tell whether a file is XML by its name."""
    # macOS leaves "._name.jpg" beside "name.jpg" on foreign disks.
    return not name.startswith(".") and name.lower().endswith(".xml")


def is_image(name: str) -> bool:
    """Tell whether a file is an image by its name."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122
