"""Drawings in SVG: across in per cent of the width, down in pixels.

Drawn so, a plot fills a wide screen, a telephone and a sheet of paper without a script, and its type keeps
its size. Colours come from the page's style sheet, by class, so that they follow light and dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LEFT, RIGHT = 1.5, 98.5
"""Per cent of the width between which the scale lies."""


@dataclass(frozen=True)
class Scale:
    """A linear scale across.

    Attributes:
        low, high: the values at the left and the right end.
        ticks: round values between them.
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Where a value lies, per cent of the width; beyond an end it stands at the end."""
        share = (value - self.low) / (self.high - self.low)
        return LEFT + (RIGHT - LEFT) * min(1.0, max(0.0, share))


def scale_of(values: Iterable[float], around: float | None = None, narrowest: float = 1e-3) -> Scale:
    """A scale that holds all values and ends a little beyond them.

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
    step = _round_step((high - low) / 6)
    first = math.ceil(low / step - 1e-9)
    ticks = [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]
    return Scale(low, high, tuple(ticks))


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))


def tick_text(value: float, scale: Scale) -> str:
    """As many decimals as the steps between ticks need."""
    steps = [b - a for a, b in zip(scale.ticks, scale.ticks[1:], strict=False)]
    step = min(steps, default=abs(value) or 1.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if not math.isclose(step * 10**decimals, round(step * 10**decimals), rel_tol=1e-6):
        decimals += 1
    return f"{value:.{decimals}f}"


def drawing(label: str, height: float, parts: Iterable[str]) -> str:
    """The whole plot; `label` says in words what it shows."""
    return (
        f'<svg class="drawing" role="img" aria-label="{html.escape(label)}" width="100%" height="{height:g}">'
        f"{''.join(parts)}</svg>"
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str, title: str = "", color: str = "") -> str:
    """From (x1 %, y1 px) to (x2 %, y2 px)."""
    where = f'x1="{x1:.3f}%" y1="{y1:.1f}" x2="{x2:.3f}%" y2="{y2:.1f}"'
    return _element("line", where, kind, title, color, "stroke")


def dot(x: float, y: float, radius: float, kind: str, title: str = "", color: str = "") -> str:
    """A circle at (x %, y px)."""
    return _element("circle", f'cx="{x:.3f}%" cy="{y:.1f}" r="{radius:g}"', kind, title, color, "fill")


def bar(x1: float, x2: float, y: float, height: float, kind: str, title: str = "", color: str = "") -> str:
    """A bar between two places across."""
    x1, x2 = min(x1, x2), max(x1, x2)
    where = f'x="{x1:.3f}%" y="{y:.1f}" width="{x2 - x1:.3f}%" height="{height:g}" rx="2"'
    return _element("rect", where, kind, title, color, "fill")


def mark(x: float, y: float, path: str, kind: str, title: str = "") -> str:
    """A shape of its own, in pixels around (x %, y px)."""
    inner = f'<path class="{kind}" d="{path}">{_title(title)}</path>'
    return f'<svg x="{x:.3f}%" y="{y:.1f}" width="1" height="1" overflow="visible">{inner}</svg>'


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """`words` are escaped."""
    shape = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.3f}%" y="{y:.1f}" text-anchor="{anchor}"{shape}>{html.escape(words)}</text>'


def axis(scale: Scale, top: float, bottom: float, zero: float | None = None) -> list[str]:
    """Lines at the ticks from `top` to `bottom` px, their values below; `zero` stands out."""
    parts = []
    for value in scale.ticks:
        x = scale.at(value)
        parts.append(line(x, top, x, bottom, "grid"))
        anchor = "start" if x < 4 else "end" if x > 96 else "middle"
        parts.append(text(x, bottom + 14, tick_text(value, scale), "tick", anchor))
    if zero is not None:
        parts.append(line(scale.at(zero), top, scale.at(zero), bottom, "zero"))
    return parts


def curves(
    runs: Sequence[tuple[str, str, Sequence[tuple[float, float]]]], box: tuple[float, float, float, float]
) -> str:
    """Lines and areas, stretched over all of the width between two heights; strokes keep their width.

    Args:
        runs: (class, colour, points) each; a class that begins with ``band`` is filled.
        box: left and right end of x, value at the bottom and at the top.
    """
    low_x, high_x, low_y, high_y = box
    parts = []
    for kind, color, points in runs:
        places = " ".join(
            f"{1000 * (x - low_x) / (high_x - low_x):.1f},{1000 * (high_y - y) / (high_y - low_y):.1f}"
            for x, y in points
        )
        shape = "polygon" if kind.startswith("band") else "polyline"
        paint = "fill" if shape == "polygon" else "stroke"
        parts.append(f'<{shape} class="{kind}" style="--own:{color};{paint}:var(--own)" points="{places}"/>')
    return "".join(parts)


def _element(name: str, where: str, kind: str, title: str, color: str, paint: str) -> str:
    own = f' style="{paint}:{color}"' if color else ""
    if not title:
        return f'<{name} class="{kind}" {where}{own}/>'
    return f'<{name} class="{kind}" {where}{own}>{_title(title)}</{name}>'


def _title(title: str) -> str:
    return f"<title>{html.escape(title)}</title>" if title else ""
