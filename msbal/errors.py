"""The errors that a user sees, each on one line, and their exit codes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

MAX_ENTRIES = 1000  # of a folder, among which a wrong path is looked for
MIN_LIKENESS = 0.6  # from 0 to 1, at which one name is taken to mean another


class MsbalError(Exception):
    """An error that the command line prints as one line, without a traceback.

    Args:
        where: the key or file at fault, e.g. ``balance.interval`` or ``annotations/train.json``.
        found: what is there.
        expected: what should be there.
        fix: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, where: str, found: str, expected: str = "", fix: str = "") -> None:
        self.where, self.found, self.expected, self.fix = where, found, expected, fix
        parts = [f"{where}: {found}"]
        if expected:
            parts.append(f"expected {expected}")
        if fix:
            parts.append(fix)
        super().__init__("; ".join(_fitted(" ".join(part.split())) for part in parts))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.where, self.found, self.expected, self.fix)


def _fitted(text: str, limit: int = 600) -> str:
    """Return `text` without its middle where it is too long for a line, such as a value from a damaged file."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}"


class RunError(MsbalError):
    """The run failed after it had begun."""

    exit_code = 1


class SpecError(MsbalError):
    """The spec, the data it names or the call itself is wrong."""

    exit_code = 2


class DataError(SpecError):
    """A data set cannot be used as it is."""


class BackendError(MsbalError):
    """A backend is missing or broken."""

    exit_code = 3


def raise_of_worker(error: RuntimeError) -> None:
    """Raise the `MsbalError` that ended a worker of torch's ``DataLoader``; a no-op where another error did.

    torch raises an error whose class takes more than a text as a RuntimeError with the worker's traceback, whose last
    line is the class and the text.

    Raises:
        MsbalError: with its class and text in the worker.
    """
    caught = re.match(r"Caught (\w+) in ", str(error))
    kinds = {kind.__name__: kind for kind in (RunError, SpecError, DataError, BackendError)}
    kind = kinds.get(caught.group(1)) if caught else None
    if kind is not None:
        text = str(error).rstrip().rpartition("\n")[2].removeprefix(f"{kind.__module__}.{kind.__name__}: ")
        where, _, found = text.partition(": ")
        raise kind(where, found) from error


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean `x`? known: a, b, x`` for a name that is not among `known`."""
    names = sorted(set(known))
    near = nearest(name, names)
    hint = f"did you mean `{near}`? " if near else ""
    return f"{hint}known: {', '.join(names) or 'none'}"


def suggest_path(path: Path) -> str:
    """Return ``did you mean `data`?`` for a missing path, or say up to which folder it exists."""
    missing = path = path.absolute()
    try:
        while not path.exists() and path != path.parent:
            missing, path = path, path.parent
        near = nearest(missing.name, (entry.name for entry in islice(os.scandir(path), MAX_ENTRIES)))
    except OSError:  # a name too long, a folder that may not be read
        return ""
    return f"did you mean `{as_typed(path / near)}`?" if near else f"the path exists up to {path}"


def as_typed(path: Path | str) -> str:
    """Return a path as one would type it: relative to the working folder where that is shorter."""
    try:
        return min(os.path.relpath(path), str(path), key=len)
    except ValueError:  # another drive
        return str(path)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that this one most likely means, if any: it may be mistyped, cut short or longer."""
    alike = {other: _likeness(name, other) for other in known}
    found = max(alike, key=alike.__getitem__, default=None)
    return found if found is not None and alike[found] >= MIN_LIKENESS else None


def _likeness(name: str, other: str) -> float:
    """Return 1 for names that differ in case and punctuation only, less for each letter, 0 for nothing alike."""
    a, b = (re.sub(r"[\W_]", "", text).casefold() for text in (name, other))
    if not a or not b:
        return float(name == other)
    short, long = sorted((a, b), key=len)
    alike = 1 - _edits(a, b) / len(long)
    if len(short) >= 3 and (long.startswith(short) or (len(short) >= 4 and long.endswith(short))):
        return max(alike, 0.7 + 0.3 * alike)
    return alike


def _edits(a: str, b: str) -> float:
    """Return how many letters to insert, delete, replace or swap; a swap, the likeliest slip, costs less."""
    before: list[float] = []
    row = [float(j) for j in range(len(b) + 1)]
    for i, letter in enumerate(a, start=1):
        older, before, row = before, row, [float(i)]
        for j, other in enumerate(b, start=1):
            least = min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and a[i - 2 : i] == other + b[j - 2]:
                least = min(least, older[j - 2] + 0.8)
            row.append(least)
    return row[-1]
