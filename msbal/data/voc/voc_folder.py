"""The XML files of a Pascal VOC folder, and their images.

The development kit has ``Annotations`` and ``JPEGImages``; other tools use other names. So XML files are looked for
everywhere below a folder, and matched with images by name.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from pathlib import Path

from msbal.data.files import listed, named, printable, require_folder
from msbal.data.folders import (
    entries_of,
    file_names,
    folders_below,
    is_image,
    is_xml,
    plain_stem,
)
from msbal.errors import DataError

_IMAGE_FOLDERS = frozenset({"jpegimages", "images", "image", "img", "imgs", "data"})
# Folders of images with the same names as the annotated ones.
_BESIDE_THE_POINT = re.compile(r"mask|segm|trimap|thumb|depth|visuali", re.IGNORECASE)
_VOC_ROOT = re.compile(rb"<(?:\w+:)?annotation[\s>]")


_Tree = dict[Path, list[str]]  # the names of files of one kind, by their folder


@dataclass(frozen=True)
class VocFolder:
    """A folder of XML files and their images, listed once.

    The keys of both are paths below `annotation_folder` and `image_folder` without suffix: ``photo``, or
    ``garden/photo`` where these have folders.

    Attributes:
        path: as a spec names it.
        annotations: the XML files, in the order of their names.
        images: the first of each counts (``.jpg`` before ``.png``).
        unannotated: images without XML.
    """

    path: Path
    annotations: dict[str, Path]
    annotation_folder: Path
    images: dict[str, list[Path]]
    image_folder: Path
    unannotated: tuple[Path, ...]

    @classmethod
    def at(cls, path: Path, root: Path) -> VocFolder:
        """List a folder.

        Args:
            root: where none of the images lie in `path`, or none of the XML files, they are looked for below
                this folder.

        Raises:
            DataError: where there are no XML files or no images, or it is unclear which belong together.
        """
        require_folder(path, "a VOC folder (with Annotations and JPEGImages)")
        if root != path and not xml_folders(path, 3):
            return cls.at(root, root)._part(path)
        folder, xml = _annotations(path)
        annotations = {stem: files[0] for stem, files in _by_stem(folder, xml).items()}
        stems = {plain_stem(stem) for stem in annotations}
        images, there = _images(folder, stems, path)
        if not stems & images.keys():
            images, there = _images(folder, stems, root, _tree(root, 3, is_image))
        if len(xml) > 1 and not stems & images.keys():
            names = [one.relative_to(path).as_posix() for one in xml]
            raise DataError(
                named(path), f"has XML annotations in {len(names)} folders: {listed(names, len(names))}",
                f"a set for each folder, such as `{printable(names[-1])}/*`",
            )  # fmt: skip
        if not images:
            raise DataError(named(path), "has no images", "a folder JPEGImages with at least one")
        if not there.is_relative_to(path):  # they may be those of other XML files, too
            stems |= {plain_stem(_stem(name)) for names in xml_folders(root, 3).values() for name in names}
        unannotated = tuple(files[0] for stem, files in images.items() if not {stem, _end(stem)} & stems)
        return cls(path, annotations, folder, images, there, unannotated)

    def _part(self, path: Path) -> VocFolder:
        """Return the part with the images in one folder."""
        images = {
            stem: inside
            for stem, files in self.images.items()
            if (inside := [file for file in files if file.is_relative_to(path)])
        }
        if not images:
            raise DataError(named(path), "has no XML annotations", "a folder Annotations with at least one")
        part = replace(self, path=path, images=images, image_folder=path)
        annotations = {stem: file for stem, file in self.annotations.items() if part.images_of(stem)}
        unannotated = tuple(file for file in self.unannotated if file.is_relative_to(path))
        return replace(part, annotations=annotations, unannotated=unannotated)

    def find(self, name: str) -> str | None:
        """Return the key of the XML file that `name` means, which may have a suffix and further folders before it."""
        parts = [part for part in _composed(name).replace("\\", "/").split("/") if part not in ("", ".")]
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            plain = plain_stem(end)
            known = (end, plain, *(f"{plain}{image.suffix}" for image in self.images.get(plain, ())))
            found = next((stem for stem in known if stem in self.annotations), None)
            if found is not None:
                return found
        return None

    def images_of(self, stem: str) -> list[Path]:
        """Return the images that an XML file may belong to; ``photo.jpg.xml`` belongs to ``photo.jpg``."""
        found = self.images.get(stem) or self.images.get(plain_stem(stem)) or []
        return [image for image in found if image.name == _end(stem)] or found


def xml_folders(root: Path, depth: int) -> _Tree:
    """Return the folders with XML files and their names; only those with VOC's where there are any."""
    found = _tree(root, depth, is_xml)
    return {folder: names for folder, names in found.items() if is_voc(folder / names[0])} or found


def _annotations(path: Path) -> tuple[Path, _Tree]:
    """Return the folder of the XML files, Annotations where there is one, and the files in it."""
    found = xml_folders(path, 3)
    if not found:
        raise DataError(named(path), "has no XML annotations", "a folder Annotations with at least one")
    for entry in entries_of(path):
        own = path / entry.name
        below = {folder: names for folder, names in found.items() if folder.is_relative_to(own)}
        if entry.name.lower() == "annotations" and below:
            return (next(iter(below)) if len(below) == 1 else own), below
    return (next(iter(found)) if len(found) == 1 else path), found


def _images(
    annotations: Path, stems: Set[str], root: Path, otherwise: _Tree | None = None
) -> tuple[dict[str, list[Path]], Path]:
    """Return the images of the folder below `root` that has most images named like XML files, and that folder.

    Of several, prefer one named like a folder of images, then one named like the XML files' folder, then the nearest.
    """
    tree = _tree(root, 3, is_image)
    shown = {folder: names for folder, names in tree.items() if not _BESIDE_THE_POINT.search(folder.name)}
    shown = shown or otherwise or {}
    above = {parent for folder in shown for parent in folder.parents if parent.is_relative_to(root)}
    hits = {folder: len(stems & _by_stem(folder, shown).keys()) for folder in sorted({*shown, *above})}

    def rank(folder: Path) -> tuple[int, bool, bool, bool, int]:
        is_named = folder.name.lower() in _IMAGE_FOLDERS or folder.parent.name.lower() in _IMAGE_FOLDERS
        return (
            hits[folder],
            is_named,
            folder.name == annotations.name,
            folder == annotations,
            -len(folder.parts),
        )

    best = max(hits, key=rank, default=root)
    images = _by_stem(best, shown)
    if hits.get(best, 0) < len(stems) and best != root:
        # The XML files are in one folder, the images in one for each split.
        counted = Counter(map(_end, wider := _by_stem(best.parent, shown)))
        unique = {_end(stem): files for stem, files in wider.items() if counted[_end(stem)] == 1}
        if len(stems & unique.keys()) > hits[best]:
            return unique, best.parent
    return images, best


def _tree(root: Path, depth: int, wanted: Callable[[str], bool]) -> _Tree:
    found = ((folder, sorted(filter(wanted, file_names(folder)))) for folder in folders_below(root, depth))
    return {folder: names for folder, names in found if names}


def _by_stem(base: Path, tree: _Tree) -> dict[str, list[Path]]:
    """Return the files in and below a folder by relative path without suffix."""
    found: dict[str, list[Path]] = {}
    for folder, names in tree.items():
        if folder.is_relative_to(base):
            prefix = "" if folder == base else f"{folder.relative_to(base).as_posix()}/"
            for name in names:
                found.setdefault(prefix + _stem(name), []).append(folder / name)
    return found


def _end(stem: str) -> str:
    return stem.rpartition("/")[2]


def _stem(name: str) -> str:
    return _composed(os.path.splitext(name)[0])  # noqa: PTH122


def _composed(name: str) -> str:
    """Compose accented letters: macOS decomposes them in file names, lists do not."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def is_voc(path: Path) -> bool:
    """Tell whether an XML file begins like VOC's."""
    try:
        with path.open("rb") as file:
            return _VOC_ROOT.search(file.read(1024).replace(b"\0", b"")) is not None
    except OSError:
        return False
