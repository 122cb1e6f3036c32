"""A YOLO data set in a folder: the file that names the classes, and the images of each split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msbal.data.files import kind_of, listed, named, printable
from msbal.data.folders import entries_of, file_names, folders_below, is_folder, is_image, role_of
from msbal.data.recognition.proposal import Proposal, not_used, propose
from msbal.data.yolo.class_names import read_config, read_names
from msbal.data.yolo.label_files import candidates, has_images, label_files
from msbal.errors import DataError

_LISTS_OF_NAMES = ("classes.txt", "obj.names", "predefined_classes.txt", "_darknet.labels")


def find_yolo(root: Path) -> Proposal | None:
    """Propose a ``data:`` section for a YOLO data set in `root`.

    It follows a ``data.yaml`` or darknet's ``obj.data``; without one, the names of folders or lists of images.

    Returns:
        None where there is none.

    Raises:
        DataError: where there is one, but not what it names.
    """
    configs = _configs(root)
    if configs:
        path, config = configs[0]
        others = [note for other, _ in configs[1:] for note in not_used([other.relative_to(root).as_posix()])]
        return _from_config(root, path, config, others)
    return _from_folders(root)


def _configs(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return files that say where the splits are, those with the usual names first."""
    found = []
    for folder in folders_below(root, 1):
        for name in sorted(
            file_names(folder), key=lambda name: (name != "data.yaml", name != "dataset.yaml", name)
        ):
            path = folder / name
            try:
                if name.lower().endswith((".yaml", ".yml")):
                    config = read_config(path)
                    names = name
                elif name.endswith(".data"):
                    config = _darknet_config(path)
                    names = config.get("names", "")
                else:
                    continue
            except DataError:
                if name in ("data.yaml", "dataset.yaml"):
                    raise
                continue
            if ("names" in config or "nc" in config) and any(role_of(key) for key in config):
                place = next((p for p in candidates(names, (folder, root)) if p.is_file()), path)
                found.append((path, {**config, "names": place}))
    return found


def _darknet_config(path: Path) -> dict[str, Any]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.partition("=") for line in lines)
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def _from_config(root: Path, path: Path, config: dict[str, Any], notes: list[str]) -> Proposal:
    bases = [path.parent, root]
    if isinstance(config.get("path"), str):
        bases = [place for place in candidates(config["path"], bases) if place.is_dir()][:1] + bases
    splits: dict[str, list[Path]] = {}
    for key, value in config.items():
        role = role_of(key)
        entries = [value] if isinstance(value, str) else value
        if role is None or role[0] in splits or not isinstance(entries, list) or not any(entries):
            continue
        places = [_existing(str(entry), bases) for entry in entries]
        missing = [str(entry) for entry, place in zip(entries, places, strict=True) if place is None]
        if not missing:
            splits[role[0]] = [place for place in places if place is not None]
        elif role[0] == "train":
            raise DataError(
                f"{named(path)}: {key}", f"`{printable(missing[0])}` is not there, or without images",
                f"a folder of images or a list of them, below {named(root)}",
            )  # fmt: skip
        else:
            notes.append(
                f"{key} of {printable(path.name)} (`{printable(missing[0])}`) is not there, or without images"
            )
    if "train" not in splits:
        raise DataError(named(path), "names no images to train on", "`train: images/train` or the like")
    return _proposal(root, config["names"], splits, notes)


def _existing(entry: str, bases: Sequence[Path]) -> Path | None:
    """Return the folder of images, or the list of images, that an entry means."""
    for place in candidates(entry, bases):
        if kind_of(place) == "file" or (kind_of(place) == "folder" and has_images(place)):
            return Path(os.path.normpath(place))
    return None


def _from_folders(root: Path) -> Proposal | None:
    """Propose a section from names of folders and lists alone."""
    labelled: list[Path] = []
    for folder in folders_below(root, 3):
        if not any(above in folder.parents for above in labelled) and _is_labelled(folder):
            labelled.append(folder)
    if not labelled:
        _refuse_labels_alone(root)
        return None
    names = [
        folder / n for folder in folders_below(root, 2) for n in _LISTS_OF_NAMES if n in file_names(folder)
    ]
    if not names:
        raise DataError(
            named(root), f"has YOLO labels of the images in {named(labelled[0])}, and nothing that names the classes",
            "classes.txt with a name a line, or data.yaml with `names`",
        )  # fmt: skip
    splits: dict[str, list[Path]] = {}
    for entry in entries_of(root):
        role = role_of(Path(entry.name).stem)
        if entry.name.endswith(".txt") and not is_folder(entry) and role is not None:
            splits.setdefault(role[0], []).append(root / entry.name)
    if "train" not in splits:
        splits = {}
        for folder in labelled:
            roles = [role[0] for part in reversed(folder.relative_to(root).parts) if (role := role_of(part))]
            splits.setdefault(roles[0] if roles else "", []).append(folder)
    if "train" not in splits:
        splits = {"train": labelled}
    return _proposal(root, _agreed(names), splits, [])


def _agreed(lists: Sequence[Path]) -> Path:
    """Return the longest of several lists of names; tools leave one in every folder that they write.

    Raises:
        DataError: where a number means one class in one list and another in the next.
    """
    names = {path: list(read_names(path).names.values()) for path in lists}
    longest = max(lists, key=lambda path: len(names[path]))
    for path in lists:
        if names[path] != names[longest][: len(names[path])]:
            raise DataError(
                named(path), f"names other classes ({listed(names[path], len(names[path]))}) than {named(longest)} "
                f"({listed(names[longest], len(names[longest]))})", "one order of the classes for all labels",
                "renumber the labels of one of them",
            )  # fmt: skip
    return longest


def _refuse_labels_alone(root: Path) -> None:
    for folder in folders_below(root, 2):
        files = [folder / name for name in sorted(file_names(folder)) if name.endswith(".txt")]
        if folder.name.lower() == "labels" and _are_labels(files):
            raise DataError(
                named(root), f"has YOLO labels ({folder.relative_to(root).as_posix()}/) and none of their images",
                f"images/{printable(files[0].stem)}.jpg or the like (exporters offer YOLO with images)",
            )  # fmt: skip


def _is_labelled(folder: Path) -> bool:
    """Tell whether a folder has images with YOLO's labels."""
    images = [folder / name for name in sorted(file_names(folder)) if is_image(name)]
    return _are_labels([file for file in label_files(images) if file is not None])


def _are_labels(files: Sequence[Path]) -> bool:
    lines = [line for file in files[:5] for line in file.read_bytes().splitlines()]
    try:
        return bool(lines) and all(len([float(value) for value in line.split()]) >= 5 for line in lines)
    except ValueError:
        return False


def _proposal(root: Path, names: Path, roles: dict[str, list[Path]], notes: list[str]) -> Proposal:
    def written(paths: Sequence[Path]) -> list[str]:
        return [
            path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path) for path in paths
        ]

    chosen = {"train": roles["train"], "val": roles.get("val") or roles.get("test") or []}
    splits = {
        key: ({"images": written(paths)}, ", ".join(written(paths))) for key, paths in chosen.items() if paths
    }
    unused = [path for paths in roles.values() if paths not in chosen.values() for path in paths]
    (classes,) = written([names])
    notes = [*notes, *not_used(written(unused))]
    return propose(root, "yolo", f"YOLO labels, classes from {classes}", splits, notes, names=classes)
