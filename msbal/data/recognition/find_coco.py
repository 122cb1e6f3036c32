"""COCO annotation files below a folder, and their images."""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from msbal.data.coco.coco_columns import read_coco_file
from msbal.data.coco.coco_entries import WHAT
from msbal.data.coco.coco_json import read_json
from msbal.data.files import kind_of, listed, named, printable
from msbal.data.folders import entries_of, file_names, folders_below, role_of
from msbal.data.images.finding import locate
from msbal.data.recognition.proposal import Proposal, not_used, propose
from msbal.errors import DataError

_KEYS = (b'"images"', b'"annotations"', b'"categories"')
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
_URL = re.compile(rb'"coco_url"\s*:\s*("(?:[^"\\]|\\.)*")')
# COCO's files for other tasks, without boxes of all classes.
_OTHER_TASKS = ("captions_", "person_keypoints_", "image_info_", "stuff_", "panoptic_")
_MAX_FILES = 100


@dataclass(frozen=True)
class _File:
    """An annotation file.

    Attributes:
        role: ``train``, ``val``, ``test``, ``trainval``, or empty where no name says so.
        family: its path without the role; the splits of a data set share it.
        samples: a few of its file names.
    """

    path: Path
    role: str
    family: str
    samples: tuple[str, ...]


def find_coco(root: Path) -> Proposal | None:
    """Propose a ``data:`` section for the COCO files below `root`.

    Returns:
        None where there are none.

    Raises:
        DataError: where there are some, but not their images, or it is unclear which is which.
    """
    files, unlike = _files(root)
    if not files:
        return None
    train, val = _choose(root, files)
    for file in unlike:
        if val is None and file.role == "val" and file.family == train.family:
            # It is the split, so no images are held out instead: its reader says what is wrong with it.
            read_coco_file(file.path)
    splits = {"train": _split(root, train)}
    if val is not None:
        splits["val"] = _split(root, val)
    notes, more = [], {}
    without = _without_unused_first(train.path)
    if without is not None:
        first, more["classes"] = without
        notes.append(f"`{printable(first)}` is no class: it is the name of the project or of the background")
    taken = [section["annotations"] for section, _ in splits.values()]
    names = [file.path.relative_to(root).as_posix() for file in (*files, *unlike)]
    notes += not_used([name for name in names if name not in taken])
    notes += _alike(root, train, root / splits["train"][0]["images"])
    return propose(root, "coco", "COCO annotations", splits, notes, **more)


def _files(root: Path) -> tuple[list[_File], list[_File]]:
    """Return annotation files, and files named like splits of theirs that do not look like any."""
    paths = [
        folder / entry.name
        for folder in folders_below(root, 2)
        for entry in entries_of(folder)
        if entry.name.lower().endswith(".json")
    ]
    boxes = [path for path in paths if not path.name.startswith(_OTHER_TASKS)]
    # Without categories it is not COCO's, but the reader says best what is missing.
    for keys in (_KEYS, _KEYS[:2]):
        files: list[_File] = []
        unlike: list[_File] = []
        for path in (boxes or paths)[:_MAX_FILES]:
            samples = _samples(path, keys)
            is_one = samples is not None and (samples or keys == _KEYS)
            (files if is_one else unlike).append(_File(path, *_role(path.relative_to(root)), samples or ()))
        if files:
            families = {file.family for file in files if file.role}
            return files, [file for file in unlike if file.family in families]
    return [], []


def _samples(path: Path, keys: Sequence[bytes]) -> tuple[str, ...] | None:
    """Return some file names in an annotation file; None where it does not look like one.

    Searches the text, because parsing train2017 for three names takes ten seconds.
    """
    try:
        if kind_of(path) != "file":
            return None
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            encoding = json.detect_encoding(mapped[:4])
            text = mapped if encoding.startswith("utf-8") else mapped[:].decode(encoding).encode()
            if any(text.find(key) < 0 for key in keys):
                return None
            found = [match.group(1) for match in islice(_FILE_NAME.finditer(text), 3)]
            # LVIS has only addresses.
            found = found or [match.group(1) for match in islice(_URL.finditer(text), 3)]
        return tuple(str(json.loads(name)) for name in found)
    except (OSError, ValueError, DataError):  # an empty file cannot be mapped
        return None


def _role(path: Path) -> tuple[str, str]:
    own = role_of(path.stem)
    if own is not None:
        return own[0], (path.parent / own[1]).as_posix()
    above = role_of(path.parent.name)
    if above is not None:
        return above[0], (path.parent.parent / above[1] / path.name).as_posix()
    return "", path.as_posix()


def _choose(root: Path, files: list[_File]) -> tuple[_File, _File | None]:
    """Choose the file to train on and the file to evaluate on."""
    families: dict[str, dict[str, _File]] = {}
    for file in files:
        families.setdefault(file.family, {}).setdefault(file.role, file)

    def pair(roles: dict[str, _File]) -> tuple[_File | None, _File | None]:
        if "train" in roles:
            return roles["train"], roles.get("val") or roles.get("test")
        return roles.get("trainval"), roles.get("test")

    pairs = [(*pair(roles), family) for family, roles in families.items()]
    # Both splits before one; instances_* before others; then the last by name: 2017 before 2014.
    pairs.sort(key=lambda p: (p[0] is not None, p[1] is not None, "instances" in p[2], p[2]))
    train, val, _ = pairs[-1]
    if train is not None:
        return train, val
    if len(files) > 1:
        names = [file.path.relative_to(root).as_posix() for file in files]
        raise DataError(
            named(root),
            f"holds {len(files)} annotation files, none of them named for training: "
            f"{listed(names, len(names), 5)}",
            "`train` and `val` in the names of files or folders",
            "rename them, or name them in a spec of your own",
        )
    return files[0], None


def _split(root: Path, file: _File) -> tuple[dict[str, str], str]:
    """Return the section of a split, and a description of it."""
    annotations, images = (path.relative_to(root).as_posix() for path in (file.path, _images(root, file)))
    return {"annotations": annotations, "images": images}, f"{annotations} with images in {images}/"


def _images(root: Path, file: _File) -> Path:
    """Return the folder with most of a file's images; of several, the one named most like its split."""
    if not file.samples:
        read_coco_file(file.path)
        raise DataError(named(file.path), "lists zero images", WHAT)

    def rank(names: Sequence[str], folder: Path) -> tuple[int, int, bool, int]:
        hits = sum(path is not None for path in locate(folder, names))
        relative = folder.relative_to(root)
        roles = {role[0] for part in relative.parts if (role := role_of(part)) is not None}
        likeness = 0 if not roles else 1 if file.role in roles else -1
        return hits, likeness, folder == file.path.parent, -len(relative.parts)

    folders = list(folders_below(root, 3))
    # Images with addresses are in a folder of their split, as on COCO's server, or without it.
    on_server = [
        "/".join(name.rsplit("/", 2)[1:]) if name.startswith("http") else name for name in file.samples
    ]
    for names in (on_server, file.samples):
        best = max(folders, key=partial(rank, names))
        if rank(names, best)[0]:
            return best
    end = file.samples[0].replace("\\", "/").rpartition("/")[2]
    place = next((folder for folder in folders if end in file_names(folder)), None)
    raise DataError(
        named(root),
        f"no folder in it holds {printable(file.samples[0])}, the first image that "
        f"{named(file.path.relative_to(root))} lists",
        "the images of every annotation file",
        "" if place is None else f"{printable(end)} lies in {named(place.relative_to(root))}",
    )


def _alike(root: Path, file: _File, images: Path) -> list[str]:
    """Return a note where another folder that is named like no split has images of the same names."""
    taken = locate(images, file.samples)
    for folder in folders_below(root, 3):
        there = [os.path.join(folder, name) for name in file.samples]  # noqa: PTH118 - isfile swallows bad names
        if not all(map(os.path.isfile, there)) or any(map(role_of, folder.relative_to(root).parts)):
            continue
        if taken[0] is not None and not taken[0].samefile(there[0]):
            return [f"images of the same names are in {named(folder.relative_to(root))}/, too, and not used"]
    return []


def _without_unused_first(path: Path) -> tuple[str, list[str]] | None:
    """Return the first category where it is no class, and the classes without it; else None.

    Roboflow lists a project's name as an unused category above the others; labelme's converter lists ``_background_``.
    None, too, where the file cannot be read: its reader will say so.
    """
    try:
        if path.name != "_annotations.coco.json" and b"_background_" not in path.read_bytes():
            return None
        document = read_json(path, WHAT)
        categories, annotations = document["categories"], document["annotations"]
        used = {entry["category_id"] for entry in annotations}
        first, others = categories[0], categories[1:]
        above = {entry.get("supercategory") for entry in others}
        is_none = first["name"] == "_background_" or above == {first["name"]}
        if others and first["id"] not in used and is_none:
            return str(first["name"]), [str(entry["name"]) for entry in others]
    except (OSError, DataError, KeyError, IndexError, TypeError, AttributeError):
        pass
    return None
