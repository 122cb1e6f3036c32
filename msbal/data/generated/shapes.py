"""Pictures of shapes: what the generated data set shows, drawn with NumPy alone.

Everything random is a call of ``Generator.random`` (NumPy keeps that stream stable), and a picture
depends on its own seed only, so that the same picture comes out on every machine, whatever else is
generated. Shapes are drawn by signed distance: p is ``[H, W, 2]`` (x, y) in a shape's own frame, where
its half extent is 1.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CLASSES = ("disc", "square", "triangle", "star", "ring", "cross")
SMALLEST = 8.0  # pixels, the least extent of an object
_LARGEST_SHARE = 0.9  # of the picture's side
_MOST_OBJECTS = 9
_LEAST_VISIBLE = 0.6  # of an object's pixels, after all others are drawn
_HUE_SPREAD = 0.06  # of the colour circle, either way: neighbouring classes nearly meet
_ODD_COLOUR = 0.15  # of the objects have any colour at all


@dataclass(frozen=True)
class DrawnObject:
    """One object of a picture.

    Attributes:
        label: index into `CLASSES`.
        box: x1, y1, x2, y2 of its extent inside the picture, right and bottom exclusive.
        area: its visible pixels.
    """

    label: int
    box: tuple[int, int, int, int]
    area: int


@dataclass(frozen=True)
class Picture:
    """An RGB image ``[S, S, 3]`` uint8 and the objects in it, largest first."""

    pixels: NDArray[np.uint8]
    objects: tuple[DrawnObject, ...]


class _Draw:
    """Random numbers, all from one stream of uniform ones."""

    def __init__(self, seed: tuple[int, ...]) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(self._generator.random())

    def log_uniform(self, low: float, high: float) -> float:
        return low * math.exp(math.log(high / low) * self.uniform())

    def below(self, count: int) -> int:
        return min(int(self.uniform() * count), count - 1)

    def chance(self, probability: float) -> bool:
        return self.uniform() < probability

    def field(self, *shape: int) -> Array:
        return self._generator.random(shape)


def draw_picture(seed: tuple[int, ...], size: int) -> Picture:
    """Draw one picture.

    Args:
        seed: any non-negative integers; the same ones give the same picture.
        size: pixels a side.
    """
    draw = _Draw(seed)
    canvas = _background(draw, size)
    for _ in range(3 + draw.below(6)):
        _distractor(draw, canvas)
    owner, labels, extents = _objects(draw, canvas)
    for _ in range(draw.below(4)):
        _line(draw, canvas)
    areas = np.bincount(owner[owner >= 0], minlength=len(labels)).tolist()
    drawn = tuple(
        DrawnObject(label, box, area) for label, box, area in zip(labels, extents, areas, strict=True)
    )
    return Picture(_develop(draw, canvas), drawn)


def _objects(
    draw: _Draw, canvas: Array
) -> tuple[NDArray[np.int64], list[int], list[tuple[int, int, int, int]]]:
    """Put the objects on the canvas, the largest at the bottom.

    Returns the index of the topmost object at each pixel (-1 for none), the labels and the extents.
    """
    size = canvas.shape[0]
    count = 1 + int(_MOST_OBJECTS * draw.uniform())
    # Log-uniform: every doubling of the extent, so every pyramid level, gets the same number.
    extents = sorted((draw.log_uniform(SMALLEST, _LARGEST_SHARE * size) for _ in range(count)), reverse=True)
    owner = np.full((size, size), -1, dtype=np.int64)
    whole: list[int] = []
    labels: list[int] = []
    boxes: list[tuple[int, int, int, int]] = []
    for extent in extents:
        label = draw.below(len(CLASSES))
        for _ in range(12):
            shape = _Shape.random(draw, CLASSES[label], extent, size)
            mask = shape.coverage >= 0.5
            pixels = int(mask.sum())
            # Mostly inside the picture, and nothing below it all but hidden.
            if pixels < 0.7 * shape.full_area:
                continue
            left = owner.copy()
            left[shape.window][mask] = -1
            remaining = np.bincount(left[left >= 0], minlength=len(labels))
            if any(
                seen < _LEAST_VISIBLE * all_ for seen, all_ in zip(remaining.tolist(), whole, strict=True)
            ):
                continue
            owner[shape.window][mask] = len(labels)
            whole.append(pixels)
            labels.append(label)
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            top, left_edge = shape.window[0].start, shape.window[1].start
            boxes.append(
                (
                    left_edge + int(columns[0]),
                    top + int(rows[0]),
                    left_edge + int(columns[-1]) + 1,
                    top + int(rows[-1]) + 1,
                )
            )
            hue = label / len(CLASSES) + draw.uniform(-_HUE_SPREAD, _HUE_SPREAD)
            if draw.chance(_ODD_COLOUR):
                hue = draw.uniform()
            _paint(draw, canvas, shape, _colour(draw, hue, 0.55, 1.0))
            break
    return owner, labels, boxes


@dataclass(frozen=True)
class _Shape:
    """A shape in its place.

    Attributes:
        window: the rows and columns that it may touch.
        local: ``[h, w, 2]`` its own coordinates there.
        coverage: ``[h, w]`` 0 to 1, how much of each pixel it covers.
        full_area: square pixels, also outside the picture.
        extent: pixels.
    """

    window: tuple[slice, slice]
    local: Array
    coverage: Array
    full_area: float
    extent: float

    @classmethod
    def random(cls, draw: _Draw, kind: str, extent: float, size: int) -> _Shape:
        aspect = draw.uniform(0.75, 1.33) if kind in {"disc", "square", "ring"} else 1.0
        half = np.array([extent / 2 * math.sqrt(aspect), extent / 2 / math.sqrt(aspect)])
        angle = draw.uniform(0, 2 * math.pi)
        margin = 0.3 * extent
        x, y = (draw.uniform(margin, size - margin) for _ in range(2))
        window = _window(x, y, 0.75 * extent + 2, size)
        local = _local(window, x, y, angle)
        distance, share = _distance(kind, local, half)
        return cls(window, local / half, np.clip(0.5 - distance, 0, 1), share * extent**2, extent)


def _window(x: float, y: float, reach: float, size: int) -> tuple[slice, slice]:
    low_x, low_y = max(0, math.floor(x - reach)), max(0, math.floor(y - reach))
    return (
        slice(min(low_y, size - 1), max(min(size, math.ceil(y + reach)), low_y + 1)),
        slice(min(low_x, size - 1), max(min(size, math.ceil(x + reach)), low_x + 1)),
    )


def _local(window: tuple[slice, slice], x: float, y: float, angle: float) -> Array:
    """Pixel centres of a window in a turned frame around (x, y), in pixels."""
    rows, columns = window
    dx = np.arange(columns.start, columns.stop) + 0.5 - x
    dy = (np.arange(rows.start, rows.stop) + 0.5 - y)[:, None]
    cos, sin = math.cos(angle), math.sin(angle)
    return np.stack([cos * dx + sin * dy, cos * dy - sin * dx], axis=-1)


def _distance(kind: str, p: Array, half: Array) -> tuple[Array, float]:
    """Signed distance in pixels (negative inside), and the area as a share of extent squared."""
    if kind in {"disc", "ring"}:
        # Exact for a circle, near enough for an ellipse this round.
        outer = (np.hypot(p[..., 0] / half[0], p[..., 1] / half[1]) - 1) * half.min()
        if kind == "disc":
            return outer, math.pi / 4
        hole = 0.55
        inner = (hole - np.hypot(p[..., 0] / half[0], p[..., 1] / half[1])) * half.min()
        return np.maximum(outer, inner), math.pi / 4 * (1 - hole**2)
    if kind == "square":
        side = half * math.sqrt(math.pi) / 2  # as large as the disc of this extent
        return np.maximum(np.abs(p[..., 0]) - side[0], np.abs(p[..., 1]) - side[1]), math.pi / 4
    corners = _CORNERS[kind] * half
    return _polygon(p, corners), _polygon_area(_CORNERS[kind]) / 4


def _ring_of_points(radii: list[float]) -> Array:
    angles = np.arange(len(radii)) * (2 * math.pi / len(radii)) - math.pi / 2
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=-1)


_ARM = 0.36  # half the width of a cross's arm
_CORNERS = {
    "triangle": _ring_of_points([1.1] * 3),
    "star": _ring_of_points([1.1, 0.46] * 5),
    "cross": np.array(
        [
            *((_ARM, 1), (_ARM, _ARM), (1, _ARM), (1, -_ARM), (_ARM, -_ARM), (_ARM, -1)),
            *((-_ARM, -1), (-_ARM, -_ARM), (-1, -_ARM), (-1, _ARM), (-_ARM, _ARM), (-_ARM, 1)),
        ]
    ),
}


def _polygon(p: Array, corners: Array) -> Array:
    """Signed distance to a simple polygon with corners ``[C, 2]``: nearest edge, even-odd rule."""
    nearest = np.full(p.shape[:2], np.inf)
    inside = np.zeros(p.shape[:2], dtype=np.bool_)
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        edge, offset = end - start, p - start
        along = np.clip((offset @ edge) / (edge @ edge), 0, 1)
        gap = offset - along[..., None] * edge
        nearest = np.minimum(nearest, (gap**2).sum(axis=-1))
        spans = (start[1] > p[..., 1]) != (end[1] > p[..., 1])
        if edge[1] != 0:
            inside ^= spans & (offset[..., 0] < edge[0] * offset[..., 1] / edge[1])
    distance: Array = np.where(inside, -1.0, 1.0) * np.sqrt(nearest)
    return distance


def _polygon_area(corners: Array) -> float:
    following = np.roll(corners, -1, axis=0)
    return abs(float((corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]).sum())) / 2


def _colour(draw: _Draw, hue: float, least_saturation: float, most_saturation: float) -> Array:
    saturation = draw.uniform(least_saturation, most_saturation)
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, draw.uniform(0.45, 1.0)))


def _paint(draw: _Draw, canvas: Array, shape: _Shape, colour: Array) -> None:
    """Lay a textured, shaded shape over the canvas."""
    shade = 1 + draw.uniform(-0.25, 0.25) * shape.local[..., 0] + _texture(draw, shape)
    paint = colour * np.clip(shade, 0.2, 1.6)[..., None]
    coverage = shape.coverage[..., None]
    canvas[shape.window] = canvas[shape.window] * (1 - coverage) + paint * coverage


def _texture(draw: _Draw, shape: _Shape) -> Array:
    """Stripes, a chequered pattern, dots or grain, as a change of lightness ``[h, w]``."""
    kind, strength = draw.below(5), draw.uniform(0.15, 0.4)
    # No finer than about four pixels a period, or it would only be noise.
    waves = math.pi * draw.uniform(1.0, max(1.1, min(6.0, shape.extent / 8)))
    x, y = shape.local[..., 0] * waves, shape.local[..., 1] * waves
    if kind == 0:
        change = np.sign(np.sin(x))
    elif kind == 1:
        change = np.sign(np.sin(x) * np.sin(y))
    elif kind == 2:
        change = np.where(np.cos(x) * np.cos(y) > 0.4, 1.0, -0.2)
    elif kind == 3:
        change = draw.field(*x.shape) - 0.5
    else:
        change = np.zeros_like(x)
    return np.asarray(strength * change)


def _background(draw: _Draw, size: int) -> Array:
    """Muted clouds of two colours, ``[S, S, 3]``, with a slope of light and sometimes a weave."""
    first, second = (_colour(draw, draw.uniform(), 0.05, 0.4) for _ in range(2))
    clouds = sum((_clouds(draw, size, cells) * share for cells, share in ((3, 0.5), (7, 0.3), (19, 0.2))))
    mixed = np.clip((np.asarray(clouds) - 0.5) * 2.2 + 0.5, 0, 1)[..., None]
    canvas: Array = first * mixed + second * (1 - mixed)
    across = _local((slice(0, size), slice(0, size)), size / 2, size / 2, draw.uniform(0, 2 * math.pi))
    canvas *= 1 + draw.uniform(0, 0.5) * across[..., :1] / size
    if draw.chance(0.4):
        period = draw.log_uniform(5, 40)
        canvas *= 1 + draw.uniform(0.03, 0.12) * np.sin(across[..., 1:] * (2 * math.pi / period))
    return canvas


def _clouds(draw: _Draw, size: int, cells: int) -> Array:
    """Smooth noise in 0..1: random values on a grid of `cells`, eased between its points."""
    at = np.linspace(0, cells, size, endpoint=False)
    low = at.astype(np.int64)
    share = at - low
    share = share * share * (3 - 2 * share)
    grid = draw.field(cells + 1, cells + 1)
    rows = grid[low] * (1 - share)[:, None] + grid[low + 1] * share[:, None]
    mixed: NDArray[np.float64] = rows[:, low] * (1 - share) + rows[:, low + 1] * share
    return mixed


def _distractor(draw: _Draw, canvas: Array) -> None:
    """A blob of no class, in the objects' own colours and textures."""
    size = canvas.shape[0]
    extent = draw.log_uniform(4, 0.5 * size)
    x, y = draw.uniform(0, size), draw.uniform(0, size)
    window = _window(x, y, 0.9 * extent + 2, size)
    local = _local(window, x, y, draw.uniform(0, 2 * math.pi))
    angle = np.arctan2(local[..., 1], local[..., 0])
    radius = np.full(angle.shape, 0.6)
    for lobes in (1, 2, 3, 5):
        radius += draw.uniform(-0.3, 0.3) / math.sqrt(lobes) * np.cos(lobes * angle + draw.uniform(0, 6.3))
    distance = np.hypot(local[..., 0], local[..., 1]) - np.maximum(radius, 0.1) * extent / 2
    # Some have a soft edge, like things out of focus.
    softness = 1.0 if draw.chance(0.6) else draw.uniform(2, 6)
    coverage = np.clip(0.5 - distance / softness, 0, 1) * draw.uniform(0.5, 1.0)
    shape = _Shape(window, local / (extent / 2), coverage, 0.0, extent)
    _paint(draw, canvas, shape, _colour(draw, draw.uniform(), 0.1, 0.6))


def _line(draw: _Draw, canvas: Array) -> None:
    """A thin line over everything, like a twig or a wire before the camera."""
    size = canvas.shape[0]
    x, y = draw.uniform(0, size), draw.uniform(0, size)
    length, width = draw.uniform(0.1, 0.5) * size, draw.uniform(0.6, 1.8)
    window = _window(x, y, length / 2 + 2, size)
    local = _local(window, x, y, draw.uniform(0, 2 * math.pi))
    distance = np.maximum(np.abs(local[..., 0]) - length / 2, np.abs(local[..., 1]) - width / 2)
    coverage = np.clip(0.5 - distance, 0, 1)[..., None]
    canvas[window] = canvas[window] * (1 - coverage) + _colour(draw, draw.uniform(), 0, 0.5) * coverage


def _develop(draw: _Draw, canvas: Array) -> NDArray[np.uint8]:
    """Exposure, contrast, a cast of colour and grain; then 8 bits."""
    exposure, contrast = draw.log_uniform(0.6, 1.4), draw.uniform(0.7, 1.15)
    cast = 1 + 0.12 * (draw.field(3) - 0.5)
    grain = draw.uniform(0.0, 0.05) * (draw.field(*canvas.shape) + draw.field(*canvas.shape) - 1)
    developed = ((canvas * exposure - 0.5) * contrast + 0.5) * cast + grain
    return np.rint(np.clip(developed, 0, 1) * 255).astype(np.uint8)
