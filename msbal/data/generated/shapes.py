"""What the generated data set shows: coloured shapes of all sizes on a soft background.

An image depends on its own seed only, so that it is the same whatever else is generated. Outlines are polygons
``[C, 2]`` (x, y) in pixels; x1, y1, x2, y2 is a box, right and bottom exclusive.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.float64]

CLASSES = ("disc", "square", "triangle", "star")
_HUES = (0.58, 0.99, 0.41, 0.13)  # blue, red, green, yellow: the colours in which their boxes are drawn
_HUE_SPREAD = 0.03  # either way
_TURNS = (math.pi, 0.3, 0.4, math.pi)  # radians, either way: a square stays apart from a diamond
_SQUEEZE = 1.15  # an object's largest ratio of width to height, before it is turned
_MIN_EXTENT = 12.0  # pixels
_LARGEST_EXTENT = (0.4, 0.82)  # of the image's side: where an image's largest object lies
_MIN_OBJECTS, _MAX_OBJECTS = 6, 14  # as far as there is room
_TRIES = 20  # to find an object a place
_GAP = 2  # pixels between neighbours, and to the image's edges
_MIN_VISIBLE = 0.7  # of an object's pixels, once smaller ones lie on it
_MIN_PATTERNED = 24.0  # pixels: the extent from which an object has a pattern that can be seen
_FINE = 4  # edges are drawn this much larger, so that they come out smooth


@dataclass(frozen=True)
class DrawnObject:
    """One object of an image.

    Attributes:
        label: index into `CLASSES`.
        box: x1, y1, x2, y2 of the pixels that it covers at least half.
        area: its visible pixels.
    """

    label: int
    box: tuple[int, int, int, int]
    area: int


def draw_image(seed: Sequence[int], size: int) -> tuple[NDArray[np.uint8], list[DrawnObject]]:
    """Draw one image.

    Args:
        seed: any non-negative integers.
        size: width and height in pixels.

    Returns:
        RGB ``[size, size, 3]``, and the objects, largest first.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(tuple(seed))))
    canvas = _background(rng, size)
    objects = _objects(rng, canvas)
    grain = rng.uniform(0.0, 0.015) * rng.standard_normal((size, size, 1))
    return np.rint(np.clip(canvas + grain, 0, 1) * 255).astype(np.uint8), objects


def _background(rng: np.random.Generator, size: int) -> Array:
    """Paint a pale or a dark slope from one colour to another, ``[S, S, 3]``, with faint blots on it."""
    dark = rng.random() < 0.25
    low, high = (0.15, 0.35) if dark else (0.8, 1.0)
    hue = rng.random()
    first, second, blot = (
        _colour(rng, hue + rng.uniform(-0.12, 0.12), (0.05, 0.25), (low, high)) for _ in range(3)
    )
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    slope = (0.5 + 0.35 * (x * math.cos(angle) + y * math.sin(angle)))[..., None]
    canvas: Array = first * slope + second * (1 - slope)
    for _ in range(_below(rng, 5)):
        stamp = _place(rng, _blob(rng), _log_uniform(rng, 8, 0.8 * size), math.pi, size)
        _cover(canvas, stamp, blot, rng.uniform(0.2, 0.6))
    return canvas


def _objects(rng: np.random.Generator, canvas: Array) -> list[DrawnObject]:
    """Put the objects on the canvas, the largest first.

    A smaller one lies beside the others, or wholly on one of another class.
    """
    size = len(canvas)
    count = _MIN_OBJECTS + _below(rng, _MAX_OBJECTS - _MIN_OBJECTS + 1)
    # Log-uniform, so that every pyramid level has objects of its own. Without a largest one drawn first, nearly every
    # image would have one as large as itself, and no room for those of half its size.
    low, high = _LARGEST_EXTENT
    largest = _log_uniform(rng, low * size, high * size)
    extents = [largest, *(_log_uniform(rng, _MIN_EXTENT, largest) for _ in range(count - 1))]
    owner = np.full((size, size), -1)  # the topmost object of each pixel
    labels: list[int] = []
    boxes: list[tuple[int, int, int, int]] = []
    whole: list[int] = []  # pixels of each object
    for extent in sorted(extents, reverse=True):
        label = _below(rng, len(CLASSES))
        for _ in range(_TRIES):
            stamp = _place(rng, _OUTLINES[label], extent, _TURNS[label], size)
            mask = stamp.coverage >= 0.5
            x1, y1, x2, y2 = stamp.box
            around = np.unique(owner[max(0, y1 - _GAP) : y2 + _GAP, max(0, x1 - _GAP) : x2 + _GAP])
            if len(around) > 1 or (around[0] >= 0 and labels[around[0]] == label):
                continue
            if around[0] >= 0:
                left = (owner == around[0]).sum() - mask.sum()
                if left < _MIN_VISIBLE * whole[around[0]]:
                    continue
            owner[stamp.window][mask] = len(labels)
            whole.append(int(mask.sum()))
            labels.append(label)
            boxes.append(stamp.box)
            _paint(rng, canvas, stamp, label)
            break
    areas = np.bincount(owner[owner >= 0], minlength=len(labels)).tolist()
    return [DrawnObject(*known) for known in zip(labels, boxes, areas, strict=True)]


@dataclass(frozen=True)
class _Stamp:
    """An outline in its place, wholly inside the image.

    Attributes:
        box: x1, y1, x2, y2 of the pixels that it covers at least half; `window` as an index of the canvas.
        coverage: ``[h, w]``, 0 to 1, how much of each pixel there it covers.
        extent: pixels.
    """

    box: tuple[int, int, int, int]
    coverage: Array
    extent: float

    @property
    def window(self) -> tuple[slice, slice]:
        x1, y1, x2, y2 = self.box
        return slice(y1, y2), slice(x1, x2)


def _place(rng: np.random.Generator, outline: Array, extent: float, turn: float, size: int) -> _Stamp:
    """Squeeze, turn and move an outline, whose longer side becomes `extent` pixels."""
    squeeze = _log_uniform(rng, 1 / _SQUEEZE, _SQUEEZE)
    angle = rng.uniform(-turn, turn)
    sine, cosine = math.sin(angle), math.cos(angle)
    corners = outline * (squeeze, 1) @ np.array([[cosine, sine], [-sine, cosine]])
    corners -= corners.min(axis=0)
    corners *= extent / corners.max()
    sides = corners.max(axis=0)
    corner = np.array([rng.uniform(_GAP, size - side - _GAP) for side in sides])
    x1, y1 = (int(v) for v in np.floor(corner))
    width, height = (int(v) for v in np.minimum(np.ceil(corner + sides), size) - (x1, y1))
    image = Image.new("L", (width * _FINE, height * _FINE))
    points = (corners + corner - (x1, y1)) * _FINE - 0.5
    ImageDraw.Draw(image).polygon(list(map(tuple, points.tolist())), fill=255)
    coverage = np.asarray(image.reduce(_FINE), dtype=np.float64) / 255
    rows, columns = (np.flatnonzero((coverage >= 0.5).any(axis=axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    box = (x1 + int(left), y1 + int(top), x1 + int(right), y1 + int(bottom))
    return _Stamp(box, coverage[top:bottom, left:right], extent)


def _ring_of_points(radii: Sequence[float], start: float = -math.pi / 2) -> Array:
    angles = np.arange(len(radii)) * (2 * math.pi / len(radii)) + start
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=-1)


def _blob(rng: np.random.Generator) -> Array:
    """Return the outline of no class."""
    angles = np.arange(40) * (2 * math.pi / 40)
    radii = np.full(40, 0.6)
    for lobes in (1, 2, 3, 5):
        radii += rng.uniform(-0.3, 0.3) / math.sqrt(lobes) * np.cos(lobes * angles + rng.uniform(0, 6.3))
    return _ring_of_points(np.maximum(radii, 0.1).tolist())


_OUTLINES = (
    _ring_of_points([1.0] * 64),
    _ring_of_points([1.0] * 4, math.pi / 4),
    _ring_of_points([1.0] * 3),
    _ring_of_points([1.0, 0.48] * 5),
)


def _paint(rng: np.random.Generator, canvas: Array, stamp: _Stamp, label: int) -> None:
    """Paint an object: a shadow below it, light from above, and a gentle pattern on the larger ones."""
    hue = _HUES[label] + rng.uniform(-_HUE_SPREAD, _HUE_SPREAD)
    colour = _colour(rng, hue, (0.65, 0.85), (0.8, 0.95))
    height, width = stamp.coverage.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = 1 - 0.12 * (x + y)
    turn, waves = rng.uniform(-math.pi, math.pi), rng.uniform(2.5, 4.5) * math.pi
    across = np.cos(waves * (x * math.cos(turn) + y * math.sin(turn)))
    along = np.cos(waves * (y * math.cos(turn) - x * math.sin(turn)))
    patterns = (across > 0, across * along > 0.4, np.zeros_like(x))  # stripes, dots, none
    if stamp.extent >= _MIN_PATTERNED:
        light = light + 0.1 * patterns[_below(rng, 3)]
    _shade(canvas, stamp)
    _cover(canvas, stamp, np.clip(colour * light[..., None], 0, 1), 1.0)


def _shade(canvas: Array, stamp: _Stamp) -> None:
    """Darken the canvas a little where the object's shadow falls."""
    offset = max(1, round(0.04 * stamp.extent))
    x1, y1, x2, y2 = stamp.box
    top, left = max(0, y1 - offset), max(0, x1 - offset)
    part = canvas[top : y2 + 3 * offset, left : x2 + 3 * offset]
    image = Image.new("L", (part.shape[1], part.shape[0]))
    shape = Image.fromarray((stamp.coverage * 255).astype(np.uint8))
    image.paste(shape, (x1 - left + offset, y1 - top + offset))
    image = image.filter(ImageFilter.BoxBlur(offset))
    part *= 1 - 0.3 * np.asarray(image, dtype=np.float64)[..., None] / 255


def _cover(canvas: Array, stamp: _Stamp, paint: Array, opacity: float) -> None:
    coverage = opacity * stamp.coverage[..., None]
    canvas[stamp.window] = canvas[stamp.window] * (1 - coverage) + paint * coverage


def _colour(
    rng: np.random.Generator, hue: float, saturation: tuple[float, float], value: tuple[float, float]
) -> Array:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, rng.uniform(*saturation), rng.uniform(*value)))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return low * math.exp(math.log(high / low) * rng.random())


def _below(rng: np.random.Generator, count: int) -> int:
    return int(rng.random() * count)
