"""Text in images: fonts, and lines that fit."""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

# The font that Pillow brings has ASCII and little more. It looks for these where the system keeps its fonts.
_WIDER = (
    "NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc", "Arial Unicode.ttf", "arialuni.ttf", "DejaVuSans.ttf",
    "Arial.ttf", "arial.ttf",
)  # fmt: skip
_PILLOWS_OWN = str.maketrans("", "", "…·")  # beyond ASCII


def font_for(text: str, size: int) -> Any:
    """Return a font that has the characters of `text`, where one is installed."""
    return _font(size, not text.translate(_PILLOWS_OWN).isascii())


@cache
def _font(size: int, wide: bool) -> Any:
    from PIL import ImageFont

    for name in _WIDER if wide else ():
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def width_of(pen: ImageDraw, text: str, size: int) -> float:
    """Return the width of a text in pixels."""
    return pen.textlength(text, font=font_for(text, size))


def write(
    pen: ImageDraw, place: tuple[float, float], text: str, size: int, color: str, anchor: str = "lm"
) -> None:
    """Write a text beside or around a place, as Pillow's `anchor` says."""
    pen.text(place, text, fill=color, font=font_for(text, size), anchor=anchor)


def fit(pen: ImageDraw, text: str, width: float, size: int) -> str:
    """Return `text`, with its middle left out where it is too wide."""

    def shortened(kept: int) -> str:
        half = kept // 2
        return text if kept == len(text) else f"{text[: kept - half]}…{text[len(text) - half :]}"

    if width_of(pen, text, size) <= width:
        return text
    fitting = bisect_right(range(len(text)), width, key=lambda kept: width_of(pen, shortened(kept), size))
    return shortened(max(1, fitting - 1))


def wrap(pen: ImageDraw, text: str, width: float, size: int) -> list[str]:
    """Return `text` as lines no wider than `width`, where its words allow."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width_of(pen, longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def score_text(score: float) -> str:
    """Return a score with two decimals, or two digits where it is small."""
    return f"{score:.2f}" if score >= 0.1 or score <= 0 else f"{score:.2g}"
