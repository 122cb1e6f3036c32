"""The lists of images that define the sets of a Pascal VOC folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from msbal.data.files import listed, named, printable, read_text
from msbal.data.folders import file_names, folders_below, role_of
from msbal.data.voc.voc_folder import VocFolder
from msbal.errors import DataError

EVERYTHING = "*"
ZERO = "lists zero images"
_PLACES = ("ImageSets/Main", "ImageSets", "Main")


@dataclass(frozen=True)
class SetList:
    """The content of a list.

    Attributes:
        names: its images, as stems of XML files where these exist.
        absent: images with -1 in a second column, as in ``car_train.txt``: not in the set.
        is_of_class: whether every line has a second column.
    """

    names: list[str]
    absent: list[str]
    is_of_class: bool


def members(folder: VocFolder, set_: str) -> tuple[list[str], str]:
    """Return the images of a set, and the file or folder that names them.

    Args:
        set_: the name of a list; ``*`` for every XML file; with a ``*`` in it (``*_train``) the images of all
            lists that are called so, those with -1 included: VOC's lists of a class name every image of the set.

    Raises:
        DataError: where there is no such list, or it cannot be used.
    """
    if set_ == EVERYTHING:
        return list(folder.annotations), named(folder.path)
    files = set_files(folder.path)
    found = [files[name] for name in files if name == set_ or ("*" in set_ and fnmatchcase(name, set_))]
    if not found:
        lists = (
            f"one of its sets: {listed(files, len(files), 10)}"
            if files
            else f"`{EVERYTHING}`: it has no sets"
        )
        raise DataError(named(folder.path), f"has no set `{printable(set_)}`", lists)
    read = [read_set(path, folder.find) for path in found]
    if "*" in set_:
        names = list(dict.fromkeys(name for one in read for name in (*one.names, *one.absent)))
    else:
        names = read[0].names
    if not names:
        raise DataError(named(found[0]), ZERO, "an image name a line")
    return names, named(found[0])


def set_files(folder: Path) -> dict[str, Path]:
    """Return the lists of a VOC folder by name.

    They are in ``ImageSets/Main``, ``ImageSets`` or ``Main``, or a ``train.txt`` or the like in the folder itself;
    where there are none of these, a ``train.txt`` or the like in any folder below.
    """
    found: dict[str, Path] = {}
    for place in (*_PLACES, "."):
        for file in sorted(file_names(folder / place)):
            name = file[: -len(".txt")]
            if file.endswith(".txt") and not file.startswith(".") and (place != "." or role_of(name)):
                found.setdefault(name, folder / place / file)
    for below in () if found else folders_below(folder, 2):
        for file in sorted(filter(_is_split, file_names(below))):
            found.setdefault(file[: -len(".txt")], below / file)
    return found


def _is_split(file: str) -> bool:
    """Tell whether a file is called ``train.txt`` or the like."""
    role = role_of(file) if file.endswith(".txt") else None
    return role is not None and role[1] == "*.txt"


def read_set(path: Path, find: Callable[[str], str | None] = lambda name: None) -> SetList:
    """Read a list of images.

    Args:
        path: the file.
        find: the stem of the XML file that a name means, None where there is none. A line that is a name as it
            stands has no second column, also where it ends like one (``photo 1``).

    Raises:
        DataError: where it is missing, not text, or lists nothing, or something twice.
    """
    lines = read_text(path, "a VOC set file (a text file of image names)").splitlines()
    rows = [_row(line.strip(), find) for line in lines if line.strip()]
    names = [name for name, column in rows if column != "-1"]
    if not rows:
        raise DataError(named(path), ZERO, "an image name a line")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(named(path), f"lists `{printable(twice[0])}` more than once", "every image once")
    absent = [name for name, column in rows if column == "-1"]
    return SetList(names, absent, all(column for _, column in rows))


def _row(line: str, find: Callable[[str], str | None]) -> tuple[str, str]:
    """Return the image of a line, and its second column where that is 1, 0 or -1, as in a class's list."""
    found = find(line)
    if found is not None:
        return found, ""
    # Names may hold spaces, so only a last column of -1, 0 or 1 is one.
    name, _, column = line.replace("\t", " ").rpartition(" ")
    if name and column in {"-1", "0", "1"}:
        found, name = find(name.strip()), name.strip()
        if found is not None:
            return found, column
    else:
        name, column = line, ""
    # Some name the XML file in a second column, or numbers of their own.
    first = find(line.split()[0])
    return (first, "") if first is not None else (name, column)
