"""The images that an annotation file names, found however its tool wrote their names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from urllib.parse import unquote, urlsplit

from msbal.data.files import named, printable
from msbal.data.folders import IMAGE_SUFFIXES, file_names, folders_below

_ELSEWHERE = re.compile(
    r"[A-Za-z]:[\\/]|[\\/]|\.\.[\\/]|\w[\w+.-]*://"
)  # how a path of another machine starts
_DECODED = "are written as in an address"
_BY_END = "are paths or addresses of elsewhere, and are found by their ends"
_BY_STEM = "lack the suffix that the files have, or write it in other letters"


def locate(root: Path, names: Sequence[str]) -> list[Path | None]:
    """Return the file under `root` that each of `names` means; None where there is none.

    Absolute names are taken as they are. A name without a file of exactly that name is looked for in this order:

    - in the other Unicode normal forms (macOS writes NFD), with backslashes as separators (tools on Windows), and
      decoded where it has ``%20`` and the like (Label Studio);
    - a path or address of another machine by its longest end that exists: ``C:\\data\\train\\a.jpg`` is
      ``train/a.jpg``, else ``a.jpg``;
    - with the suffix of the only image of this name, or the suffix in other letters (``a.JPG``).

    A file found in one of these ways for two names is used for neither.
    """
    return find_images(root, names)[0]


def find_images(root: Path, names: Sequence[str]) -> tuple[list[Path | None], list[str]]:
    """Return the files as `locate` does, and what to say about names that differ from the files'."""
    search = _Search(str(root))
    found = [search.exactly(name) for name in names]
    rule_of: dict[int, str] = {}
    for index, name in enumerate(names):
        if found[index] is None:
            found[index], rule_of[index] = search.otherwise(name)
    taken = Counter(str(found[index]) for index in rule_of)
    if taken:
        taken.update(str(path) for index, path in enumerate(found) if index not in rule_of)
    said: dict[str, list[int]] = {}
    for index, rule in rule_of.items():
        if not rule or found[index] is None:
            continue
        if taken[str(found[index])] > 1:
            found[index] = None
        else:
            said.setdefault(rule, []).append(index)
    notes = []
    for rule, rows in said.items():
        first = f"`{printable(names[rows[0]])}` is {printable(str(found[rows[0]]))}"
        notes.append(f"{len(rows)} of {len(names)} names of images {rule}: {first}")
    return found, notes


def elsewhere(missing: Sequence[str], is_all: bool, images: Path, annotations: Path) -> str:
    """Say where files of the missing names are instead, and what to set; empty where none is nearby.

    Args:
        is_all: whether every image is missing.
        images: the folder where they are missing.
        annotations: the file that names them; it is searched around both.
    """
    wanted = {_last(name).casefold(): name for name in missing}
    stems = {os.path.splitext(name)[0] for name in wanted}  # noqa: PTH122 - of a name, not a path
    home = annotations.absolute().parent
    around = [folders_below(images, 3), folders_below(home, 3)]
    around += [folders_below(home.parent, 2)] if home.parent != home.parent.parent else []
    best, hits = images, 0
    for folder in chain(*around):
        count = sum(name.casefold() in wanted for name in file_names(folder))
        if count > hits:
            best, hits = folder, count
        if hits == len(wanted):
            break
    if not hits:
        for name in sorted(file_names(images)):
            stem, suffix = os.path.splitext(name)  # noqa: PTH122
            if suffix.lower() in IMAGE_SUFFIXES and stem.casefold() in stems:
                return f"{printable(name)} is there: are the names meant with the suffix {printable(suffix)}?"
        return ""
    first = next(name for name in sorted(file_names(best)) if name.casefold() in wanted)
    if best == images:
        return f"{printable(first)} is there, and more than one name leads to it"
    if hits < len(wanted) or not is_all:
        return f"a file named {printable(first)} lies in {named(best)}"
    above = os.path.dirname(wanted[first.casefold()].replace("\\", "/"))  # noqa: PTH120
    folder = best
    if above and best.as_posix().endswith(f"/{above}"):
        folder = Path(best.as_posix().removesuffix(f"/{above}"))
    there = "files of all these names lie" if hits > 1 else f"a file named {printable(first)} lies"
    return f"{there} in {named(best)}: set the split's `images` to {named(folder)}"


@dataclass
class _Search:
    """A search that lists each folder once."""

    base: str
    _listings: dict[str, frozenset[str]] = field(default_factory=dict)
    _by_stem: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    def exactly(self, name: str) -> Path | None:
        full = os.path.join(self.base, name)  # noqa: PTH118 - a Path here costs seconds over 118,000 names
        head, tail = os.path.split(full)
        if head not in self._listings:
            self._listings[head] = file_names(head)
        if tail in self._listings[head]:
            return Path(full)
        # A file system may ignore case; the listing does not.
        return Path(full) if os.path.isfile(full) else None  # noqa: PTH113 - swallows bad names

    def otherwise(self, name: str) -> tuple[Path | None, str]:
        """Return the file, and what to say about the name: nothing for another normal form or separator."""
        forms = _forms(name)
        decoded = _forms(unquote(name)) if "%" in name else []
        ends = list(_ends(name)) if _ELSEWHERE.match(name) else []
        for rule, spellings in (("", forms), (_DECODED, decoded), (_BY_END, ends)):
            for spelling in spellings:
                found = self.exactly(spelling)
                if found is not None:
                    return found, rule
        for spelling in (*forms, *decoded, *ends):
            found = self._by_the_stem(spelling)
            if found is not None:
                return found, _BY_STEM
        return None, ""

    def _by_the_stem(self, name: str) -> Path | None:
        head, tail = os.path.split(os.path.join(self.base, name))  # noqa: PTH118
        if head not in self._by_stem:
            index: dict[str, set[str]] = {}
            for file in self._listings.get(head) or file_names(head):
                stem, suffix = os.path.splitext(file)  # noqa: PTH122
                if suffix.lower() in IMAGE_SUFFIXES:
                    for key in (stem, stem + suffix.lower()):
                        index.setdefault(key, set()).add(file)
            self._by_stem[head] = index
        stem, suffix = os.path.splitext(tail)  # noqa: PTH122
        candidates = self._by_stem[head].get(stem + suffix.lower(), set())
        return Path(head) / next(iter(candidates)) if len(candidates) == 1 else None


def _forms(name: str) -> list[str]:
    forms = {unicodedata.normalize(form, name) for form in ("NFC", "NFD")} | {name, name.strip()}
    return sorted(forms | {form.replace("\\", "/") for form in forms})


def _ends(name: str) -> Iterator[str]:
    """Yield ``a/b/c``, ``b/c``, ``c`` of a path or address, in all its spellings."""
    if "://" in name:
        try:
            name = urlsplit(name).path
        except ValueError:
            return
    for spelling in dict.fromkeys([*_forms(name), *_forms(unquote(name))]):
        parts = [part for part in spelling.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        yield from ("/".join(parts[start:]) for start in range(len(parts)))


def _last(name: str) -> str:
    return unicodedata.normalize("NFC", name).replace("\\", "/").rsplit("/", 1)[-1]
