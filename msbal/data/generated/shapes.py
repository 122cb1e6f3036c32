"""What the generated data set shows: textured shapes of all sizes among blobs and lines.

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
from PIL import Image, ImageDraw

Array = NDArray[np.float64]

CLASSES = ("disc", "square", "triangle", "star", "ring", "cross")
_MIN_EXTENT = 8.0  # pixels
_MAX_EXTENT = 0.9  # of the image's side
_MAX_OBJECTS = 9
_MIN_INSIDE = 0.7  # of an object's pixels, inside the image
_MIN_VISIBLE = 0.6  # of an object's pixels, once all others are drawn
_HUE_SPREAD = 0.06  # of the colour circle, either way: neighbouring classes nearly meet
_ANY_HUE = 0.15  # of the objects
_HOLE = 0.55  # of a ring's radius
_FINE = 4  # edges are drawn this much larger, so that they come out smooth


@dataclass(frozen=True)
class DrawnObject:
    """One object of an image.

    Attributes:
        label: index into `CLASSES`.
        box: x1, y1, x2, y2 of its extent inside the image.
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
    for _ in range(_below(rng, 6) + 3):
        extent = _log_uniform(rng, 4, 0.5 * size)
        _paint(rng, canvas, _place(rng, _blob(rng), extent, size), _colour(rng, rng.random(), 0.1, 0.6))
    objects = _objects(rng, canvas)
    for _ in range(_below(rng, 4)):
        length, width = rng.uniform(0.1, 0.5) * size, rng.uniform(0.6, 1.8)
        line = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (1, width / length)
        _paint(rng, canvas, _place(rng, line, length, size), _colour(rng, rng.random(), 0.0, 0.5))
    return _develop(rng, canvas), objects


def _objects(rng: np.random.Generator, canvas: Array) -> list[DrawnObject]:
    """Put the objects on the canvas, the largest at the bottom."""
    size = len(canvas)
    count = 1 + _below(rng, _MAX_OBJECTS)
    # Log-uniform: every doubling of the extent, so every pyramid level, gets the same number.
    extents = sorted((_log_uniform(rng, _MIN_EXTENT, _MAX_EXTENT * size) for _ in range(count)), reverse=True)
    owner = np.full((size, size), -1)  # the topmost object of each pixel
    labels: list[int] = []
    stamps: list[_Stamp] = []
    whole: list[int] = []  # pixels of each object
    for extent in extents:
        label = _below(rng, len(CLASSES))
        for _ in range(12):
            stamp = _place(rng, _OUTLINES[CLASSES[label]], extent, size, _HOLE if label == _RING else 0.0)
            mask = stamp.coverage >= 0.5
            if mask.sum() < _MIN_INSIDE * stamp.area:
                continue
            trial = owner.copy()
            trial[stamp.window][mask] = len(labels)
            visible = np.bincount(trial[trial >= 0], minlength=len(labels) + 1)
            if (visible[:-1] < _MIN_VISIBLE * np.array(whole)).any():
                continue
            owner = trial
            whole.append(int(mask.sum()))
            labels.append(label)
            stamps.append(stamp)
            hue = label / len(CLASSES) + rng.uniform(-_HUE_SPREAD, _HUE_SPREAD)
            hue = rng.random() if rng.random() < _ANY_HUE else hue
            _paint(rng, canvas, stamp, _colour(rng, hue, 0.55, 1.0))
            break
    areas = np.bincount(owner[owner >= 0], minlength=len(labels)).tolist()
    return [DrawnObject(*known) for known in zip(labels, (stamp.box for stamp in stamps), areas, strict=True)]


@dataclass(frozen=True)
class _Stamp:
    """An outline in its place.

    Attributes:
        box: x1, y1, x2, y2 of what is inside the image; `window` as an index of the canvas.
        coverage: ``[h, w]``, 0 to 1, how much of each pixel there it covers.
        local: ``[2, h, w]``, x and y in the outline's own turned frame, where it reaches from -1 to 1.
        area: square pixels, also outside the image.
        extent: pixels.
    """

    box: tuple[int, int, int, int]
    coverage: Array
    local: Array
    area: float
    extent: float

    @property
    def window(self) -> tuple[slice, slice]:
        x1, y1, x2, y2 = self.box
        return slice(y1, y2), slice(x1, x2)


def _place(rng: np.random.Generator, outline: Array, extent: float, size: int, hole: float = 0.0) -> _Stamp:
    """Turn, squeeze and move an outline, whose corners are about 1 from its centre."""
    squeeze = math.sqrt(rng.uniform(0.75, 1.33))
    angle = rng.uniform(0, 2 * math.pi)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    frame = np.array([[squeeze], [1 / squeeze]]) * turn * extent / 2
    centre = np.array([rng.uniform(0.3 * extent, size - 0.3 * extent) for _ in range(2)])
    corners = outline @ frame + centre
    following = np.roll(corners, -1, axis=0)
    area = abs(float(np.sum(corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]))) / 2
    x1, y1 = (int(side) for side in np.clip(np.rint(corners.min(axis=0)), 0, size - 1))
    x2, y2 = (
        int(side) for side in np.clip(np.rint(corners.max(axis=0)), (x1 + 1, y1 + 1), max(size, x1 + 1))
    )
    image = Image.new("L", ((x2 - x1) * _FINE, (y2 - y1) * _FINE))
    draw = ImageDraw.Draw(image)
    for share, fill in ((1.0, 255), (hole, 0)):
        if share:
            inner = (corners - centre) * share + centre - (x1, y1)
            draw.polygon(list(map(tuple, (inner * _FINE - 0.5).tolist())), fill=fill)
    coverage = np.asarray(image.reduce(_FINE), dtype=np.float64) / 255
    pixels = np.mgrid[y1:y2, x1:x2][::-1] + 0.5 - centre[:, None, None]
    local = np.tensordot(np.linalg.inv(frame).T, pixels, axes=1)
    return _Stamp((x1, y1, x2, y2), coverage, local, area * (1 - hole**2), extent)


def _ring_of_points(radii: Sequence[float], start: float = -math.pi / 2) -> Array:
    angles = np.arange(len(radii)) * (2 * math.pi / len(radii)) + start
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=-1)


def _blob(rng: np.random.Generator) -> Array:
    """The outline of no class."""
    angles = np.arange(40) * (2 * math.pi / 40)
    radii = np.full(40, 0.6)
    for lobes in (1, 2, 3, 5):
        radii += rng.uniform(-0.3, 0.3) / math.sqrt(lobes) * np.cos(lobes * angles + rng.uniform(0, 6.3))
    return _ring_of_points(np.maximum(radii, 0.1).tolist())


_ARM = 0.36  # half the width of a cross's arm
_OUTLINES = {
    "disc": _ring_of_points([1.0] * 64),
    "square": _ring_of_points([math.sqrt(math.pi / 2)] * 4, math.pi / 4),  # as large as the disc
    "triangle": _ring_of_points([1.1] * 3),
    "star": _ring_of_points([1.1, 0.46] * 5),
    "ring": _ring_of_points([1.0] * 64),
    "cross": np.array([
        (_ARM, 1), (_ARM, _ARM), (1, _ARM), (1, -_ARM), (_ARM, -_ARM), (_ARM, -1),
        (-_ARM, -1), (-_ARM, -_ARM), (-1, -_ARM), (-1, _ARM), (-_ARM, _ARM), (-_ARM, 1),
    ]),
}  # fmt: skip
_RING = CLASSES.index("ring")


def _paint(rng: np.random.Generator, canvas: Array, stamp: _Stamp, colour: Array) -> None:
    """Cover the canvas with a shaded texture: stripes, a chequered pattern, dots, grain or none."""
    strength = rng.uniform(0.15, 0.4)
    # No finer than about four pixels a period, or it would only be noise.
    x, y = stamp.local * math.pi * rng.uniform(1.0, max(1.1, min(6.0, stamp.extent / 8)))
    textures = (
        np.sign(np.sin(x)), np.sign(np.sin(x) * np.sin(y)), np.where(np.cos(x) * np.cos(y) > 0.4, 1.0, -0.2),
        rng.random(x.shape) - 0.5, np.zeros_like(x),
    )  # fmt: skip
    light = 1 + rng.uniform(-0.25, 0.25) * stamp.local[0] + strength * textures[_below(rng, 5)]
    coverage = stamp.coverage[..., None]
    paint = colour * np.clip(light, 0.2, 1.6)[..., None]
    canvas[stamp.window] = canvas[stamp.window] * (1 - coverage) + paint * coverage


def _background(rng: np.random.Generator, size: int) -> Array:
    """Muted clouds of two colours, ``[S, S, 3]``, with a slope of light."""
    first, second = (_colour(rng, rng.random(), 0.05, 0.4) for _ in range(2))
    clouds = np.zeros((size, size))
    for cells, share in ((4, 0.5), (8, 0.3), (20, 0.2)):
        noise = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
        clouds += share * np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC))
    mixed = np.clip((clouds - 0.5) * 2.2 + 0.5, 0, 1)[..., None]
    canvas: Array = first * mixed + second * (1 - mixed)
    slope = np.linspace(-0.25, 0.25, size)[:, None, None] * rng.uniform(-1, 1)
    return canvas * (1 + slope + slope.swapaxes(0, 1) * rng.uniform(-1, 1))


def _develop(rng: np.random.Generator, canvas: Array) -> NDArray[np.uint8]:
    """Exposure, contrast, a cast of colour and grain; then 8 bits."""
    exposure, contrast = _log_uniform(rng, 0.6, 1.4), rng.uniform(0.7, 1.15)
    cast = 1 + 0.12 * (rng.random(3) - 0.5)
    grain = rng.uniform(0.0, 0.02) * rng.standard_normal(canvas.shape)
    developed = ((canvas * exposure - 0.5) * contrast + 0.5) * cast + grain
    return np.rint(np.clip(developed, 0, 1) * 255).astype(np.uint8)


def _colour(rng: np.random.Generator, hue: float, min_saturation: float, max_saturation: float) -> Array:
    saturation = rng.uniform(min_saturation, max_saturation)
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, rng.uniform(0.45, 1.0)))


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return low * math.exp(math.log(high / low) * rng.random())


def _below(rng: np.random.Generator, count: int) -> int:
    return int(rng.random() * count)
