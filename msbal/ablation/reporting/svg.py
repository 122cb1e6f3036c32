"""Drawings in SVG, with x in per cent of the width and y in pixels.

So a drawing fills a wide screen, a telephone and a sheet of paper, and its type keeps its size, without a
script. matplotlib's SVG shrinks its type with the drawing; plotly's needs a script of 5 MB in each page; and
both are optional here, while every ablation has its page. Colours come from the page's style sheet, by
class, so that they follow light and dark.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

AXIS = 38.0  # pixels below a drawing, for the values of its ticks and the name of its axis
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Scale:
    """A linear scale.

    Attributes:
        low, high: the values at its ends.
        ticks: round values between them.
        left, right: where its ends lie, per cent of the width.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    left: float = 1.5
    right: float = 98.5

    def at(self, value: float) -> float:
        """Return where a value lies, per cent of the width; beyond an end it stands at the end."""
        share = (value - self.low) / (self.high - self.low)
        return self.left + (self.right - self.left) * min(1.0, max(0.0, share))

    def text(self, tick: float) -> str:
        """Return a tick's value with as many decimals as the steps between ticks have."""
        steps = [b - a for a, b in zip(self.ticks, self.ticks[1:], strict=False)] or [tick]
        exponent = Decimal(f"{steps[0]:.6g}").normalize().as_tuple().exponent
        return f"{tick:.{max(0, -int(exponent))}f}"


def scale_of(values: Iterable[float], around: float | None = None, narrowest: float = 1e-3) -> Scale:
    """Return a scale that holds all values and ends a little beyond them.

    Args:
        around: a value that is to be on it, too.
        narrowest: the least width, where all values are one.
    """
    known = [v for v in values if math.isfinite(v)] + ([] if around is None else [around])
    low, high = min(known, default=0.0), max(known, default=1.0)
    if high - low < narrowest:
        low, high = low - narrowest / 2, high + narrowest / 2
    margin = 0.06 * (high - low)
    low, high = low - margin, high + margin
    return Scale(low, high, round_ticks(low, high))


def round_ticks(low: float, high: float) -> tuple[float, ...]:
    """Return about six round values from `low` to `high`."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(n * step, 12) for n in range(first, last + 1))


class Drawing:
    """One drawing: x are values on its scale, y are pixels from the top.

    Each shape has a class of the style sheet (`kind`) and a text that is shown under the pointer (`title`).

    Args:
        label: what it shows, in words.
        scale: across.
        height: pixels, including `AXIS`.
        axis: the name of the x axis, with its unit.
    """

    def __init__(self, label: str, scale: Scale, height: float, axis: str) -> None:
        self.scale = scale
        self.svg = ET.Element("svg", {"class": "drawing", "role": "img", "width": "100%"})
        self.svg.set("height", f"{height:g}")
        self.svg.set("aria-label", label)
        self.text(50, height - 4, axis, "tick", "middle")

    def __html__(self) -> str:
        """Return the markup, for templates."""
        return ET.tostring(self.svg, encoding="unicode")

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str, title: str = "") -> None:
        """Draw a line."""
        place = {"x1": self._across(x1), "y1": _px(y1), "x2": self._across(x2), "y2": _px(y2)}
        _shape(self.svg, "line", kind, title, **place)

    def dot(self, x: float, y: float, radius: float, kind: str, title: str = "") -> None:
        """Draw a circle."""
        _shape(self.svg, "circle", kind, title, cx=self._across(x), cy=_px(y), r=f"{radius:g}")

    def bar(
        self, x1: float, x2: float, y: float, height: float, kind: str, title: str = "", own: str = ""
    ) -> None:
        """Draw a bar around the height `y`; `own` is its own colour."""
        left, right = sorted((self.scale.at(x1), self.scale.at(x2)))
        place = {"x": f"{left:.3f}%", "y": _px(y - height / 2), "width": f"{right - left:.3f}%"}
        color = {"style": f"--own:{own}"} if own else {}
        _shape(self.svg, "rect", kind, title, **place, height=f"{height:g}", rx="2", **color)

    def mark(self, x: float, y: float, path: str, kind: str, title: str = "") -> None:
        """Draw a shape, in pixels around its place."""
        place = {"x": self._across(x), "y": _px(y), "width": "1", "height": "1", "overflow": "visible"}
        _shape(ET.SubElement(self.svg, "svg", place), "path", kind, title, d=path)

    def text(self, across: float, y: float, words: str, kind: str, anchor: str = "start") -> ET.Element:
        """Write `words` at so many per cent of the width."""
        place = {"x": f"{across:.3f}%", "y": _px(y), "text-anchor": anchor}
        written = _shape(self.svg, "text", kind, **place)
        written.text = words
        return written

    def tick(self, value: float, y: float, words: str) -> None:
        """Write a tick's value below the drawing, within its width."""
        across = self.scale.at(value)
        anchor = "start" if across < 4 else "end" if across > 95 else "middle"
        self.text(across, y + 14, words, "tick", anchor)

    def _across(self, value: float) -> str:
        return f"{self.scale.at(value):.3f}%"


def _shape(parent: ET.Element, tag: str, kind: str, title: str = "", **attributes: str) -> ET.Element:
    shape = ET.SubElement(parent, tag, {"class": kind, **attributes})
    if title:
        ET.SubElement(shape, "title").text = title
    return shape


def _px(value: float) -> str:
    return f"{value:.1f}"
