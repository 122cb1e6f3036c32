"""What to tell a user about a data set before it is used: what is left out, and what looks odd."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence

import numpy as np

from msbal.data.detection_data import DetectionData, ImageRecord
from msbal.data.files import listed, printable


def remarks(data: DetectionData, elsewhere: str = "") -> list[str]:
    """Return sentences about one split, each with its name.

    Args:
        elsewhere: how a sentence about boxes that are left out ends, where more happens to them.
    """
    found = [_dropped(data) + elsewhere] if data.dropped else []
    found += [_other_classes(data) + elsewhere] if data.other_classes else []
    return [*found, *(f"{printable(data.name)}: {note}" for note in data.notes)]


def _dropped(data: DetectionData) -> str:
    first, count = data.dropped[0], len(data.dropped)
    return (
        f"{printable(data.name)}: {count} of {_all(data)} boxes {_are(count)} left out, the first "
        f"{first.annotation} of {first.image}: {first.reason}"
    )


def _other_classes(data: DetectionData) -> str:
    return (
        f"{printable(data.name)}: {data.skipped} of {_all(data)} boxes {_are(data.skipped)} left out, of classes that "
        f"are not among those trained: {classes_meant(data.other_classes, data.classes)}"
    )


def shared_images(train: DetectionData, val: DetectionData | None) -> list[str]:
    """Return a sentence where images are both trained and evaluated on; else nothing.

    Two images are the same if their file is, or its name, its size and all of its annotations.
    """
    if val is None:
        return []
    trained, by_name = set(_places(train)), {image.path.name: image for image in train.images}
    shared = [
        image.path.name
        for image, place in zip(val.images, _places(val), strict=True)
        if place in trained or _same(image, by_name.get(image.path.name))
    ]
    if not shared:
        return []
    return [
        f"{len(shared)} of {len(val)} images of {printable(val.name)} are trained on, too, the first "
        f"{printable(shared[0])}: metrics on them say little about other images"
    ]


def _places(data: DetectionData) -> list[tuple[str, str]]:
    """Return folder and name of each image, links to folders resolved."""
    real: dict[str, str] = {}
    split = [os.path.split(str(image.path)) for image in data.images]
    return [(real.get(head) or real.setdefault(head, os.path.realpath(head)), tail) for head, tail in split]


def _same(image: ImageRecord, other: ImageRecord | None) -> bool:
    if other is None or not len(image.boxes):
        return False
    alike = np.array_equal(image.boxes, other.boxes) and np.array_equal(image.labels, other.labels)
    try:
        # One box around all of it is annotated in many images, and exporters number them from 1 in each split.
        return alike and image.path.stat().st_size == other.path.stat().st_size
    except OSError:
        return False


def classes_meant(counts: Mapping[str, int], classes: Sequence[str]) -> str:
    """Write counts of boxes by foreign class, each with the class that may be meant: '`Lamp` (6, is it `lamp`?)'."""
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    names = [f"`{name}` ({count}{_meant(name, classes)})" for name, count in by_count[:5]]
    return listed(names, len(by_count), 5)


def _meant(name: str, classes: Sequence[str]) -> str:
    """', is it `lamp`?', for a name that is nearly one of the classes."""
    known = nearest(name, classes)
    return "" if known is None else f", is it `{printable(known)}`?"


def nearest(name: str, classes: Sequence[str]) -> str | None:
    """Return the class whose name is most like this one, if one is much like it."""
    plain = {" ".join(known.split()).casefold(): known for known in reversed(classes)}
    near = difflib.get_close_matches(" ".join(name.split()).casefold(), plain, n=1, cutoff=0.6)
    return plain[near[0]] if near else None


def spellings(classes: Sequence[str]) -> list[str]:
    """Return a sentence for each set of classes whose names differ only in upper and lower case."""
    by_name: dict[str, list[str]] = {}
    for name in classes:
        by_name.setdefault(name.casefold(), []).append(f"`{printable(name)}`")
    return [
        f"{' and '.join(names)} are different classes here" for names in by_name.values() if len(names) > 1
    ]


def _all(data: DetectionData) -> int:
    return data.box_count + len(data.dropped) + data.skipped


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
