"""Pascal VOC folders below a folder, and the image sets to train and evaluate on."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msbal.data.files import named
from msbal.data.folders import role_of
from msbal.data.recognition.proposal import Proposal, not_used, propose
from msbal.data.voc.image_sets import EVERYTHING, ZERO, SetList, read_set, set_files
from msbal.data.voc.voc_folder import VocFolder, is_voc, xml_folders
from msbal.errors import DataError

_PAIRS = (("trainval", "test"), ("train", "val"), ("train", "test"), ("trainval", "val"))


def find_voc(root: Path) -> Proposal | None:
    """Propose a ``data:`` section for the VOC folders below `root`.

    Returns:
        None where there are none.

    Raises:
        DataError: where there are annotations and no images.
    """
    folders = _folders(root)
    if not folders:
        return None
    if len(folders) == 1:
        folders = _by_images(folders[0], root)
    sets = {folder.path: _sets(folder) for folder in folders}
    train, val = _choose(root, sets)
    chosen = {"train": train, "val": val} if val else {"train": train}
    splits = {key: ({"sets": names}, ", ".join(names)) for key, names in chosen.items()}
    notes = not_used(_unused(root, folders, sets, {*train, *val}))
    return propose(root, "voc", "Pascal VOC folders", splits, notes)


def _unused(
    root: Path, folders: Sequence[VocFolder], sets: Mapping[Path, _Sets], taken: Container[str]
) -> list[str]:
    found = []
    for path in (folder.path for folder in folders):
        names = [name for name in set_files(path) if not sets[path].covers(name)]
        if not names and not sets[path].by_role:
            names = [EVERYTHING]
        found += [entry for name in names if (entry := _entry(root, path, name)) not in taken]
    return found


@dataclass(frozen=True)
class _Sets:
    """The set of each role in a folder, and whether they are made of lists by class."""

    by_role: dict[str, str]
    by_class: bool

    def covers(self, name: str) -> bool:
        """Tell whether a list is one of those by class that make the sets."""
        return self.by_class and any(name.endswith(set_[1:]) for set_ in self.by_role.values())


def _folders(root: Path) -> list[VocFolder]:
    """Return the folders with XML annotations and images, topmost first."""
    known: dict[Path, VocFolder | None] = {}

    def at(path: Path) -> VocFolder | None:
        if path not in known:
            try:
                known[path] = VocFolder.at(path, root)
            except DataError:
                known[path] = None
        return known[path]

    def named_by(xml: Path) -> Path:
        """Return the nearest folder with sets, or with only these XML files and their images; else their own."""
        best = None
        for path in [xml, *(path for path in xml.parents if path.is_relative_to(root))]:
            folder = at(path)
            if folder is not None and any(_read(folder, one) for one in set_files(path).values()):
                return path
            if best is None and folder is not None and _is_whole(folder, xml):
                best = path
        return best or xml

    places = xml_folders(root, 3)
    found = [folder for path in dict.fromkeys(map(named_by, places)) if (folder := at(path)) is not None]
    voc = [place for place, names in places.items() if is_voc(place / names[0])]
    if voc and not found:
        raise DataError(
            named(root), f"has Pascal VOC annotations in {named(voc[0].relative_to(root))}, and none of their images",
            "images in JPEGImages, or anywhere below this folder",
        )  # fmt: skip
    return [folder for folder in found if voc or _is_illustrated(folder)]


def _is_whole(folder: VocFolder, xml: Path) -> bool:
    """Tell whether these are the XML files of a folder that has their images, too."""
    has_both = folder.annotation_folder == xml and folder.image_folder.is_relative_to(folder.path)
    return has_both and _is_illustrated(folder)


def _by_images(folder: VocFolder, root: Path) -> list[VocFolder]:
    """Divide a folder without sets by the folders of its images, where these are named like splits."""
    places = dict.fromkeys(image[0].parent for image in folder.images.values())
    if _sets(folder).by_role or "train" not in {_role(place.relative_to(root).parts) for place in places}:
        return [folder]
    return [folder] if len(places) == 1 else [VocFolder.at(place, root) for place in places]


def _is_illustrated(folder: VocFolder) -> bool:
    return any(map(folder.images_of, folder.annotations))


def _sets(folder: VocFolder) -> _Sets:
    """Find the role of each list in a folder.

    A list without a role in its name is all of the data if it is the only list. Lists by class (``car_train``) make a
    split where there is no other.
    """
    general: dict[str, dict[str, str]] = {}
    by_class: dict[str, str] = {}
    without: list[str] = []
    for name, path in set_files(folder.path).items():
        role = role_of(name)
        lines = _read(folder, path)
        if lines is None:
            continue
        if role is None:
            without.append(name)
        elif lines.is_of_class and role[1] != "*":
            cut = role[1].index("*")
            by_class.setdefault(role[0], EVERYTHING + name[max(0, cut - 1) :])
        else:
            general.setdefault(role[1], {})[role[0]] = name
    if general:
        # Prefer those named only by their role, then by name.
        best = min(general, key=lambda family: (not _is_split(general[family]), family != "*", family))
        return _Sets(general[best], False)
    if by_class:
        return _Sets(by_class, True)
    return _Sets({"train": without[0]} if len(without) == 1 else {}, False)


def _is_split(roles: dict[str, str]) -> bool:
    return any(train in roles and val in roles for train, val in _PAIRS)


def _read(folder: VocFolder, path: Path) -> SetList | None:
    """Read a list, unless it is empty or most of its images have no annotations, as VOC2012's test images.

    A list that cannot be read keeps its role: its reader says what is wrong with it.
    """
    try:
        lines = read_set(path, folder.find)
    except DataError as error:
        return None if error.found == ZERO else SetList([], [], False)
    names = [*lines.names, *lines.absent]
    known = sum(name in folder.annotations for name in names)
    return lines if 2 * known > len(names) else None


def _choose(root: Path, sets: dict[Path, _Sets]) -> tuple[list[str], list[str]]:
    """Choose sets to train on and sets to evaluate on; the second may be empty.

    As with VOC itself, trainval and test where both are there (2007 and 2012 joined: the test set of
    2012 is not public), else train and val. Without sets, folders named ``train`` and ``valid`` speak
    for themselves.
    """

    def entries(role: str) -> list[str]:
        return [_entry(root, path, s.by_role[role]) for path, s in sets.items() if role in s.by_role]

    for train, val in _PAIRS:
        if entries(train) and entries(val):
            return entries(train), entries(val)
    for train in ("trainval", "train"):
        if entries(train):
            return entries(train), []

    by_role: dict[str, list[str]] = {}
    for path in sets:
        role = _role(path.relative_to(root).parts)
        by_role.setdefault(role, []).append(_entry(root, path, EVERYTHING))
    if "train" in by_role:
        return by_role["train"], by_role.get("val") or by_role.get("test") or []
    return [_entry(root, path, EVERYTHING) for path in sets], []


def _role(parts: Sequence[str]) -> str:
    """Return the split that a folder of a path is named after, the last first."""
    return next((role[0] for role in map(role_of, reversed(parts)) if role is not None), "")


def _entry(root: Path, folder: Path, set_: str) -> str:
    relative = folder.relative_to(root).as_posix()
    return set_ if relative == "." else f"{relative}/{set_}"
