"""The images of a YOLO split, and the label file of each.

The rules are those of ultralytics: a split is a folder with all below it, or a text file that lists images; the labels
of ``images/a.jpg`` are in ``labels/a.txt``. As in darknet, they may also be beside the image. Paths from another
machine are matched by their ends.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from msbal.data.files import kind_of, listed, named, read_text
from msbal.data.folders import entries_of, file_names, is_folder, is_image, role_of
from msbal.errors import DataError, suggest_path

_LISTS = frozenset({"classes.txt", "train.txt", "val.txt", "test.txt"})
_IMAGE_PARTS = frozenset({"images", "jpegimages"})


def split_images(root: Path, entries: Sequence[Path]) -> list[Path]:
    """Return the images of a split, by folder and name or as listed.

    Args:
        root: what `entries` are relative to.
        entries: folders, and text files that list images.

    Raises:
        DataError: where an entry does not exist or names no image, or an image is named twice or is not there.
    """
    found: list[Path] = []
    for entry in entries:
        path = root / entry
        kind = kind_of(path)
        if kind == "nothing":
            what = "a folder of images, or a list of them (.txt)"
            raise DataError(named(path), "does not exist", what, suggest_path(path))
        images = _listed_images(path, root) if kind == "file" else list(_below(path))
        if not images:
            raise DataError(named(path), "has no images", "a folder of images, or a list of them (.txt)")
        found += images
    twice = [path for path, count in Counter(found).items() if count > 1]
    if twice:
        raise DataError(named(root), f"{named(twice[0])} is named more than once", "every image once")
    return found


def has_images(folder: Path) -> bool:
    """Tell whether a folder has images in it or below it."""
    return next(_below(folder), None) is not None


def label_files(images: Sequence[Path]) -> list[Path | None]:
    """Return the label file of each image; None where there is none."""
    by_folder: dict[Path, list[tuple[Path, frozenset[str]]]] = {}
    found = []
    for image in images:
        folder = image.parent
        if folder not in by_folder:
            by_folder[folder] = [(place, file_names(place)) for place in _label_places(folder)]
        name = f"{image.stem}.txt"
        found.append(next((place / name for place, names in by_folder[folder] if name in names), None))
    return found


def labels_without_image(images: Sequence[Path]) -> list[str]:
    """Return the names of label files that belong to no image, of this split or another."""
    found = []
    for folder in dict.fromkeys(image.parent for image in images):
        stems = {Path(name).stem for name in file_names(folder) if is_image(name)}
        names = [
            name for place in _label_places(folder) if place != folder for name in sorted(file_names(place))
        ]
        found += [name for name in names if name.endswith(".txt") and name[: -len(".txt")] not in stems]
    return [name for name in found if name not in _LISTS]


def candidates(entry: str, bases: Sequence[Path]) -> Iterator[Path]:
    """Yield where a path from a file may be: as written, and each of its ends, below each of `bases`.

    A part that names a split is never cut off: the end ``images`` of ``../valid/images`` could be another split's.
    """
    text = entry.replace("\\", "/")
    for base in bases:
        yield base / text
    parts = [part for part in text.split("/") if part not in ("", ".", "..")]
    for start in range(len(parts)):
        if start and role_of(parts[start - 1]) is not None:
            return
        for base in bases:
            yield base.joinpath(*parts[start:])


def _below(folder: Path) -> Iterator[Path]:
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(path) / name for name in sorted(names) if is_image(name))


def _listed_images(path: Path, root: Path) -> list[Path]:
    lines = read_text(path, "a text file that lists images").splitlines()
    places: dict[str, list[tuple[Path, frozenset[str]]]] = {}
    found, missing = [], []
    for line in filter(None, map(str.strip, lines)):
        head, _, tail = line.replace("\\", "/").rpartition("/")
        if head not in places:
            folders = dict.fromkeys(candidates(head, (path.parent, root)))
            places[head] = [(folder, file_names(folder)) for folder in folders]
        place = next((folder for folder, names in places[head] if tail in names), None)
        if place is None:
            missing.append(line)
        else:
            found.append(place / tail)
    if missing:
        count = len(missing) + len(found)
        problem = (
            f"{len(missing)} of the {count} images that it lists are missing: {listed(missing, len(missing))}"
        )
        raise DataError(named(path), problem, f"images below {named(root)}, or paths relative to it")
    return found


def _label_places(folder: Path) -> list[Path]:
    """Return the folders that may have the labels of the images in a folder, the preferred one first."""
    parts = folder.parts
    for index in reversed(range(len(parts))):
        if parts[index].lower() in _IMAGE_PARTS:
            above = Path(*parts[:index])
            names = [
                entry.name
                for entry in entries_of(above)
                if entry.name.lower() == "labels" and is_folder(entry)
            ]
            places = [(above / name).joinpath(*parts[index + 1 :]) for name in sorted(names, reverse=True)]
            return [*places, folder]
    return [folder, folder / "labels", folder.parent / "labels"]
