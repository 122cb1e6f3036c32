"""What lies where in a Pascal VOC folder: its XML files and their images.

The development kit has ``Annotations`` and ``JPEGImages``; others who write its format call them otherwise, so XML
files are looked for everywhere below a folder, and their images are those that are named like them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from msbal.data.files import IMAGE_SUFFIXES, file_names, listed, named, printable, require_folder
from msbal.data.tree import folders_below, role_of
from msbal.errors import DataError

_IMAGE_FOLDERS = frozenset({"jpegimages", "images", "image", "img", "imgs", "data"})
# They hold images of the same names as those that are annotated.
_BESIDE_THE_POINT = re.compile(r"mask|segm|trimap|thumb|depth|visuali", re.IGNORECASE)
_VOC_ROOT = re.compile(rb"<(?:\w+:)?annotation[\s>]")


@dataclass(frozen=True)
class VocFolder:
    """A folder of XML files and their images, listed once.

    Attributes:
        path: as a spec names it.
        annotations: XML files by stem, in the order of their names.
        images: names of images by stem; the first counts (``.jpg`` before ``.png``).
        image_folder: where these lie.
        unannotated: names of images without XML.
    """

    path: Path
    annotations: dict[str, Path]
    images: dict[str, list[str]]
    image_folder: Path
    unannotated: tuple[str, ...]

    @classmethod
    def at(cls, path: Path, root: Path) -> VocFolder:
        """List a folder.

        Args:
            root: where none of the images lie in `path`, they are looked for below this folder.

        Raises:
            DataError: where there are no XML files, or no images.
        """
        require_folder(path, "a VOC folder (with Annotations and JPEGImages)")
        folder = annotation_folder(path)
        annotations = {_stem(name): folder / name for name in sorted(file_names(folder)) if is_xml(name)}
        stems = {plain_stem(stem) for stem in annotations}
        there = image_folder(folder, stems, folders_below(path, 2))
        if there is None or not stems & stems_of(there, is_image):
            there = image_folder(folder, stems, folders_below(root, 3)) or there
        if there is None:
            raise DataError(named(path), "has no images", "a folder JPEGImages with at least one")
        images: dict[str, list[str]] = {}
        for name in sorted(file_names(there)):
            if is_image(name):
                images.setdefault(_stem(name), []).append(name)
        if path not in (there, *there.parents):  # they may be those of other XML files, too
            stems |= {plain_stem(stem) for other in xml_folders(root, 3) for stem in stems_of(other, is_xml)}
        unannotated = tuple(names[0] for stem, names in images.items() if stem not in stems)
        return cls(path, annotations, images, there, unannotated)

    def find(self, name: str) -> str | None:
        """The stem of the XML file that is meant by `name`, which may have a suffix and folders before it."""
        base = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
        plain = plain_stem(base)
        known = (name, base, plain, *self.images.get(plain, ()))
        return next((stem for stem in known if stem in self.annotations), None)

    def image_of(self, stem: str) -> Path | None:
        """The image of an XML file; ``photo.jpg.xml`` is that of ``photo.jpg``."""
        names = self.images.get(stem) or self.images.get(plain_stem(stem)) or []
        name = stem if stem in names else next(iter(names), None)
        return None if name is None else self.image_folder / name


def annotation_folder(path: Path) -> Path:
    """Where a VOC folder keeps its XML files; the folder itself where they lie in it.

    Raises:
        DataError: where there are none, or they lie in several folders.
    """
    found = xml_folders(path, 2)
    if not found:
        raise DataError(named(path), "has no XML annotations", "a folder Annotations with at least one")
    own = [folder for folder in found if folder.parent == path and folder.name.lower() == "annotations"]
    if len(found) > 1 and len(own) != 1:
        names = [folder.relative_to(path).as_posix() for folder in found]
        raise DataError(
            named(path), f"has XML annotations in {len(names)} folders: {listed(names, len(names))}",
            f"a set for each folder, such as `{printable(names[-1])}/*`",
        )  # fmt: skip
    return (own or found)[0]


def xml_folders(root: Path, depth: int) -> list[Path]:
    """The folders in which XML files lie; where some of these are VOC's, those alone."""
    first = {
        folder: min(filter(is_xml, file_names(folder)), default="") for folder in folders_below(root, depth)
    }
    found = [folder for folder, name in first.items() if name]
    return [folder for folder in found if is_voc(folder / first[folder])] or found


def image_folder(annotations: Path, stems: Set[str], folders: Iterable[Path]) -> Path | None:
    """The one of `folders` with most of the images that are named like XML files; None where none has images.

    Of several it is one called like a folder of images, like the XML files' split, or the nearest.
    """

    def rank(folder: Path) -> tuple[bool, int, bool, bool, bool, int]:
        roles = role_of(annotations.name), role_of(folder.name)
        return (
            not _BESIDE_THE_POINT.search(folder.name),
            len(stems & stems_of(folder, is_image)),
            folder.name.lower() in _IMAGE_FOLDERS or folder.parent.name.lower() in _IMAGE_FOLDERS,
            roles[0] is not None and roles[1] is not None and roles[0][0] == roles[1][0],
            folder == annotations,
            -len(folder.parts),
        )

    return max(
        (folder for folder in folders if any(map(is_image, file_names(folder)))), key=rank, default=None
    )


def stems_of(folder: Path, wanted: Callable[[str], bool]) -> frozenset[str]:
    """Names without suffix of the files in `folder` that are `wanted`."""
    return frozenset(_stem(name) for name in file_names(folder) if wanted(name))


def plain_stem(name: str) -> str:
    """A name without the suffix of an image or of XML."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a Path a name costs a second over 118,000
    return stem if suffix.lower() in IMAGE_SUFFIXES | {".xml"} else name


def is_xml(name: str) -> bool:
    """Whether a file is XML by its name."""
    # macOS leaves "._name.jpg" beside "name.jpg" on foreign disks.
    return not name.startswith(".") and name.lower().endswith(".xml")


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122


def is_voc(path: Path) -> bool:
    """Whether an XML file begins like VOC's."""
    try:
        with path.open("rb") as file:
            return _VOC_ROOT.search(file.read(1024).replace(b"\0", b"")) is not None
    except OSError:
        return False
