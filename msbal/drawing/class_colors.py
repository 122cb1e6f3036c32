"""A colour for each class, told apart on photographs, and the colour of text on it."""

from __future__ import annotations

import colorsys

_FIRST = (
    "#1f9bff", "#ff5a36", "#22c55e", "#ffc21a", "#c084fc", "#00d0d0",
    "#ff7ac0", "#a3e635", "#ff9330", "#7c93ff", "#e8b98a", "#34d3a0",
)  # fmt: skip


def class_color(label: int) -> str:
    """Return the colour of a class: the first by hand, then hues by the golden ratio, which repeat none."""
    if label < len(_FIRST):
        return _FIRST[label]
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.45 + 0.3 * (label % 2), 0.95)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def ink_on(color: str) -> str:
    """Return black or white, whichever is easier to read on a colour."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else "white"
