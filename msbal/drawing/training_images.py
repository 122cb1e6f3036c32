"""Training images with their annotated boxes, to see at a glance whether boxes and classes are right."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from msbal.data import DetectionData
from msbal.data.files import printable
from msbal.data.images.image_check import spread
from msbal.drawing.class_colors import class_color
from msbal.drawing.marked_image import Mark, box_name, marked, pixels_of
from msbal.drawing.sheet import Tile, class_entries, sheet

if TYPE_CHECKING:
    from PIL.Image import Image

TILE, COLUMNS = (400, 360), 4


def training_sheet(data: DetectionData, count: int = 8, seconds: float = 0.5) -> Image:
    """Return images of a split with their boxes and class names.

    Args:
        count: how many images, chosen so that they show many classes.
        seconds: no further image is begun after this time, since large photographs take long to decode.

    Raises:
        DataError: where one cannot be read.
    """
    end = time.monotonic() + seconds
    tiles: list[Tile] = []
    labels: set[int] = set()
    classes = [printable(name) for name in data.classes]
    for index in _varied(data, count):
        if tiles and time.monotonic() > end:
            break
        image = data.images[index]
        columns = zip(image.boxes, image.labels.tolist(), image.crowd, image.difficult, strict=True)
        marks = [
            Mark(box.astype(np.float64), class_color(label), box_name(classes[label], crowd, difficult))
            for box, label, crowd, difficult in columns
        ]
        labels.update(image.labels.tolist())
        tiles.append(Tile(marked(pixels_of(image), marks, TILE), printable(image.path.name)))
    title = f"Training data: {printable(data.name)}"
    counts = f"{len(data):,} images, {data.box_count:,} boxes, {len(classes):,} classes."
    return sheet(title, [f"{counts} Boxes as annotated."], tiles, COLUMNS, class_entries(labels, classes))


def _varied(data: DetectionData, count: int) -> list[int]:
    """Return images that show many classes between them and are not crowded; at most a thousand are looked at."""
    candidates = [index for index in spread(len(data)) if len(data.images[index].boxes)]
    usual = 2 * np.median([len(data.images[index].boxes) for index in candidates] or [0])
    candidates = [index for index in candidates if len(data.images[index].boxes) <= usual]
    # Folders are often sorted by class.
    candidates = np.random.default_rng(0).permutation(candidates).tolist()
    chosen: list[int] = []
    seen: set[int] = set()
    while candidates and len(chosen) < count:
        best = max(candidates, key=lambda index: len(set(data.images[index].labels.tolist()) - seen))
        candidates.remove(best)
        chosen.append(best)
        seen.update(data.images[best].labels.tolist())
    return chosen
