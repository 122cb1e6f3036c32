"""Holding images out for evaluation where a data set has one split only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from msbal.data.detection_data import DetectionData, subset
from msbal.errors import DataError


def hold_out(data: DetectionData, share: float) -> tuple[DetectionData, DetectionData]:
    """Split `data` into what to train on and what is held out; both keep its order.

    The images whose names have the smallest SHA-256 are held out, so that the same ones are in every
    run and on every machine, and adding images moves few of the others.

    Args:
        data: at least two images.
        share: of the images to hold out, above 0 and below 1; at least one is, and one is not.

    Raises:
        DataError: where there are fewer than two images.
    """
    count = len(data)
    if count < 2:
        raise DataError("data.holdout", f"{data.name} has {count} image", "two or more to hold one out")
    held = min(max(round(share * count), 1), count - 1)
    by_hash = sorted(range(count), key=lambda i: (_hash(data.images[i].path.name), i))
    val = sorted(by_hash[:held])
    train = sorted(by_hash[held:])
    # What is to be said of the whole is said once.
    return _part(data, train, "train"), replace(_part(data, val, "held out"), notes=(), other_classes={})


def _part(data: DetectionData, indices: Sequence[int], suffix: str) -> DetectionData:
    part = subset(data, indices)
    kept = set(indices)
    dropped = tuple(box for box in data.dropped if box.row in kept)
    return replace(part, name=f"{data.name} ({suffix})", dropped=dropped)


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
