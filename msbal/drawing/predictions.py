"""Detections in images that nobody has annotated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from msbal.data import DetectionData
from msbal.data.files import printable
from msbal.data.images.image_check import spread
from msbal.drawing.marked_image import detection_mark, marked, pixels_of
from msbal.drawing.sheet import Tile, class_entries, sheet
from msbal.evaluation.detections import Detections

if TYPE_CHECKING:
    from PIL.Image import Image

MIN_SIDE, MAX_SIDE = 640, 1280  # pixels of an image alone
_TILE, _COLUMNS, _TILES = (520, 460), 3, 12


class DrawnPredictions:
    """Drawings of detections that reach a threshold.

    Attributes:
        shown: those detections, of each image the best-scored first.
    """

    def __init__(self, data: DetectionData, found: Detections, threshold: float) -> None:
        self.shown = found.reaching(threshold)
        self._data, self._threshold = data, threshold
        self._classes = [printable(name) for name in data.classes]

    def image(self, index: int, room: tuple[int, int] | None = None) -> Image:
        """Return one image with its detections, at about its own size."""
        record, shown = self._data.images[index], self.shown
        found = np.flatnonzero(shown.image == index).tolist()
        marks = [detection_mark(shown, d, self._classes) for d in found]
        side = int(np.clip(max(record.width, record.height), MIN_SIDE, MAX_SIDE))
        note = "" if marks else f"no detection above {self._threshold:g}"
        return marked(pixels_of(record), marks, room or (side, side), note)

    def sheet(self, title: str, lines: Sequence[str]) -> Image:
        """Return some of the images on one, spread evenly."""
        chosen = spread(len(self._data), _TILES)
        tiles = [Tile(self.image(i, _TILE), printable(self._data.images[i].path.name)) for i in chosen]
        labels = set(self.shown.label[np.isin(self.shown.image, chosen)].tolist())
        return sheet(printable(title), lines, tiles, _COLUMNS, class_entries(labels, self._classes))
