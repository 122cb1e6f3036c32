"""An image with boxes and their labels.

Boxes are ``(x1, y1, x2, y2)`` in pixels of the original image and may reach over its edges. Labels are placed in the
order of their marks, each where it hides least of other labels and of small boxes; one without such a place is left
out, and its box stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from msbal.data import ImageRecord, read_pixels
from msbal.data.images.image_files import without_warnings
from msbal.drawing.class_colors import class_color, ink_on
from msbal.drawing.text import fit, score_text, width_of, write
from msbal.evaluation.detections import Detections

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

WRONG = "#ff3b30"
FONT_SIZE = 15
LINE = 3
CROSS = 10
BAND = 34  # the height of a note
DASH, GAP = 9, 6
HALO = "#00000070"
MAX_HIDDEN = 0.25  # of a label's area

Line = Literal["solid", "dashed", "thin"]


@dataclass(frozen=True)
class Mark:
    """A box and its label.

    Attributes:
        box: ``[4]``, x1, y1, x2, y2.
        color: of the line and behind the label.
        label: may be empty.
        line: ``thin`` is one pixel on a darker one, seen on any ground.
        cross: put a red cross before the label.
    """

    box: NDArray[np.float64]
    color: str
    label: str = ""
    line: Line = "solid"
    cross: bool = False


def pixels_of(image: ImageRecord) -> NDArray[np.uint8]:
    """Return an image as ``[H, W, 3]`` RGB.

    Raises:
        DataError: where it cannot be read.
    """
    with without_warnings():
        return read_pixels(image.path, image.width, image.height)


def box_name(class_name: str, crowd: bool, difficult: bool) -> str:
    """Return the label of an annotated box."""
    return class_name + (" (crowd)" if crowd else " (difficult)" if difficult else "")


def detection_mark(found: Detections, d: int, classes: Sequence[str], wrong: bool = False) -> Mark:
    """Return the mark of one detection, with its class and score."""
    label, score = found.label[d], found.score[d]
    text = f"{classes[label]} {score_text(score)}"
    return Mark(corners(found.box[d]), class_color(label), text, "dashed" if wrong else "solid", wrong)


def corners(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x1, y1, x2, y2 of COCO's x, y, width, height."""
    return np.concatenate([box[:2], box[:2] + box[2:]])


def marked(pixels: NDArray[np.uint8], marks: Sequence[Mark], room: tuple[int, int], note: str = "") -> Image:
    """Return an image with boxes, as large as fits in `room`, ``(width, height)``.

    Args:
        pixels: ``[H, W, 3]`` RGB.
        note: a line at the lower edge.
    """
    from PIL import Image as PillowImage
    from PIL import ImageDraw

    photograph = PillowImage.fromarray(pixels)
    scale = min(room[0] / photograph.width, room[1] / photograph.height)
    size = max(1, round(photograph.width * scale)), max(1, round(photograph.height * scale))
    image = photograph.resize(size, PillowImage.Resampling.BICUBIC)
    edge = np.array([*size, *size]) - 1
    boxes = np.clip(np.array([mark.box for mark in marks]).reshape(-1, 4) * scale, 0, edge)
    pen = ImageDraw.Draw(image, "RGBA")  # blends what is half transparent
    for mark, box in zip(marks, boxes.tolist(), strict=True):
        outline(pen, box, mark.color, mark.line)
    free = size[0], size[1] - BAND * bool(note)
    placed: list[NDArray[np.float64]] = []
    for mark, box in zip(marks, boxes, strict=True):
        if not mark.label:
            continue
        label = fit(pen, mark.label, max(80, 0.6 * size[0]), FONT_SIZE)
        indent = CROSS + 8 if mark.cross else 4
        width = width_of(pen, label, FONT_SIZE) + indent + 4
        place = _place(box, (width, FONT_SIZE + 4), free, np.array(placed).reshape(-1, 4), boxes)
        if place is None:
            continue
        placed.append(place)
        left, top, right, bottom = place.tolist()
        middle = (top + bottom) / 2
        pen.rectangle((left, top, right, bottom), fill=mark.color)
        write(pen, (left + indent, middle), label, FONT_SIZE, ink_on(mark.color))
        if mark.cross:
            cross(pen, left, middle)
    if note:
        pen.rectangle((0, image.height - BAND, image.width, image.height), fill="#000000b0")
        write(pen, (image.width / 2, image.height - BAND / 2), note, FONT_SIZE + 1, "white", "mm")
    return image


def outline(pen: ImageDraw, box: Sequence[float], color: str, line: Line) -> None:
    """Draw the line around a box."""
    x1, y1, x2, y2 = box
    if line == "solid":
        pen.rectangle((x1, y1, x2, y2), outline=color, width=LINE)
        return
    # A dark ground, on which both are seen on any image.
    pen.rectangle((x1, y1, x2, y2), outline=HALO, width=LINE)
    if line == "thin":
        pen.rectangle((x1 + 1, y1 + 1, max(x2 - 1, x1 + 1), max(y2 - 1, y1 + 1)), outline=color)
        return
    # Pillow draws no dashes.
    step, inset = DASH + GAP, LINE // 2
    for at in np.arange(x1, x2, step).tolist():
        for y in (y1 + inset, y2 - inset):
            pen.line((at, y, min(at + DASH, x2), y), fill=color, width=LINE)
    for at in np.arange(y1, y2, step).tolist():
        for x in (x1 + inset, x2 - inset):
            pen.line((x, at, x, min(at + DASH, y2)), fill=color, width=LINE)


def cross(pen: ImageDraw, left: float, middle: float) -> None:
    """Draw the white cross on red that stands before the label of what is wrong."""
    half = (FONT_SIZE + 4) / 2
    pen.rectangle((left, middle - half, left + CROSS + 4, middle + half), fill=WRONG)
    arm, center = CROSS / 2 - 1, left + CROSS / 2 + 2
    for way in (-arm, arm):
        pen.line((center - arm, middle - way, center + arm, middle + way), fill="white", width=2)


def _place(
    box: NDArray[np.float64],
    extent: tuple[float, float],
    size: tuple[int, int],
    placed: NDArray[np.float64],
    boxes: NDArray[np.float64],
) -> NDArray[np.float64] | None:
    """Return where a label goes, x1, y1, x2, y2: above, below or in its box, at either side; None if nowhere."""
    (x1, y1, x2, y2), (width, height) = box.tolist(), extent
    rows = (y1 - height - 1, y2 + 1, y1 + LINE, y2 - LINE - height)
    columns = (x1, x2 - width)
    places = np.array([(max(0.0, min(x, size[0] - width - 1)), y) for y in rows for x in columns])
    places = np.concatenate([places, places + extent], axis=1)
    places = places[(places[:, 1] >= 0) & (places[:, 3] < size[1])]
    if not len(places):
        return None
    area = width * height
    hidden = _shared(places, placed).sum(axis=1) / area
    # A label in a large box hides little of it, and one on a small box all.
    inside = _shared(places, boxes) / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), area)
    best = int((4 * hidden + inside.sum(axis=1)).argmin())
    return None if hidden[best] > MAX_HIDDEN else places[best]


def _shared(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area that each of N boxes shares with each of M, ``[N, M]``."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    area: NDArray[np.float64] = np.clip(high - low, 0, None).prod(axis=2)
    return area
