"""Walking a folder of data without getting lost in it, reading split names, and what comes of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MOST_FOLDERS = 500
_ROLES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "minival": "val",
    "eval": "val", "evaluation": "val", "holdout": "val",
    "test": "test", "testing": "test",
    "trainval": "trainval", "trainset": "train", "valset": "val", "testset": "test",
}  # fmt: skip
_WORD = re.compile(r"[A-Za-z]+")


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


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, hidden things left out, by name; empty where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError:
        return []


def folders_below(root: Path, depth: int) -> Iterator[Path]:
    """`root` and the folders down to `depth` below it, nearest first, each once; at most 500."""
    level = [root]
    seen: set[str] = set()
    for _ in range(depth + 1):
        following: list[Path] = []
        for folder in level:
            # A link may lead back up.
            real = os.path.realpath(folder)
            if real in seen:
                continue
            if len(seen) >= _MOST_FOLDERS:
                return
            seen.add(real)
            yield folder
            following += [folder / entry.name for entry in entries_of(folder) if is_folder(entry)]
        level = following


def role_of(name: str) -> tuple[str, str] | None:
    """The split that a name speaks of (``train``, ``val``, ``test``, ``trainval``), and the name without it.

    ``instances_train2017`` gives ``("train", "instances_*2017")``.
    """
    for word in _WORD.finditer(name):
        role = _ROLES.get(word.group().lower())
        if role is not None:
            return role, f"{name[: word.start()]}*{name[word.end() :]}"
    return None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False
