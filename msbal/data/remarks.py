"""What a person should know of a data set before it is used: what is left out of it, and what looks odd."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from msbal.data.files import listed, printable
from msbal.data.model import DetectionData


def remarks(data: DetectionData) -> list[str]:
    """Sentences about one split, each with its name; empty where there is nothing to say."""
    found = [_dropped(data)] if data.dropped else []
    found += [_other_classes(data)] if data.other_classes else []
    return [*found, *(f"{printable(data.name)}: {note}" for note in data.notes)]


def _dropped(data: DetectionData) -> str:
    first, count = data.dropped[0], len(data.dropped)
    return (
        f"{printable(data.name)}: {count} of {_all(data)} boxes {_are(count)} left out, the first "
        f"{first.annotation} of {first.image}: {first.reason}"
    )


def _other_classes(data: DetectionData) -> str:
    """Which classes' boxes are left out, each with the class that may be meant."""
    by_count = sorted(data.other_classes.items(), key=lambda item: (-item[1], item[0]))
    names = [f"`{name}` ({count}{_meant(name, data.classes)})" for name, count in by_count[:5]]
    return (
        f"{printable(data.name)}: {data.skipped} of {_all(data)} boxes {_are(data.skipped)} left out, of classes that "
        f"are not among those trained: {listed(names, len(by_count), 5)}"
    )


def _meant(name: str, classes: Sequence[str]) -> str:
    """', is it `lamp`?', for a name that is nearly one of the classes."""
    plain = {" ".join(known.split()).casefold(): known for known in reversed(classes)}
    near = difflib.get_close_matches(" ".join(name.split()).casefold(), plain, n=1, cutoff=0.6)
    return f", is it `{printable(plain[near[0]])}`?" if near else ""


def _all(data: DetectionData) -> int:
    return data.box_count + len(data.dropped) + data.skipped


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
