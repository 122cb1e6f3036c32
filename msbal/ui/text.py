"""Numbers and lines as text: one format for each kind of number, everywhere in the terminal."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Sequence

SPARKS = "▁▂▃▄▅▆▇█"
_LOOK_ALIKES = str.maketrans(SPARKS + "━╾─·■□▲▼▶●±…", "_.-~+*^#" + "=---*o^v>o~~")


def number(value: float | None) -> str:
    """Return a loss with four significant digits; at most seven characters if it is not negative."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size < 1e-99:
        return "0"
    if size < 1e-4 or size >= 1e5:
        return f"{value:.1e}"
    return f"{value:.{min(4, max(0, 3 - math.floor(math.log10(size))))}f}"


def signed(value: float) -> str:
    """Return a ratio with its sign, in at most six characters: ``+0.12``, ``-40.2``, ``-4e+03``."""
    size = abs(value)
    if size >= 999.5 and math.isfinite(value):
        return f"{value:+.0e}"
    return f"{value:+.{2 if size < 9.995 else 1 if size < 99.95 else 0}f}"


def duration(seconds: float | None) -> str:
    """Return seconds as ``0:04:12``, from a day on as ``1d 02:03:04``; ``-`` if they are unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}d {hours:02}:{minutes:02}:{rest:02}" if days else f"{hours}:{minutes:02}:{rest:02}"


def size_of(count: float) -> str:
    """Return bytes in the largest binary unit that leaves at least one: ``6.2 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def one_line(text: str) -> str:
    """Return `text` without line breaks and control characters, which could drive the terminal."""
    kept = "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) != "Cc")
    return " ".join(kept.split())


def encodable(text: str, encoding: str) -> str:
    """Return `text` for a stream without Unicode: our marks by ASCII look-alikes, what it does not know by ``?``."""
    return text.translate(_LOOK_ALIKES).encode(encoding, "replace").decode(encoding)


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the last `width` values, one character each, scaled from the smallest shown to the largest.

    Values that are not finite are blank; equal values lie in the middle.
    """
    shown = list(values)[-width:] if width > 0 else []
    finite = [value for value in shown if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    # Halved before they are subtracted: high - low may be infinite.
    span, top = high / 2 - low / 2, len(SPARKS) - 1
    line = ""
    for value in shown:
        if not math.isfinite(value):
            line += " "
        else:
            share = (value / 2 - low / 2) / span if span else 0.5 - 1 / len(SPARKS)
            line += SPARKS[min(top, int(share * len(SPARKS)))]
    return line


def condensed(values: Sequence[float], width: int) -> list[float]:
    """Return at most `width` values: the mean of the finite ones in each of equal stretches of `values`."""
    if width <= 0 or len(values) <= width:
        return list(values)
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    means = []
    for start, end in itertools.pairwise(edges):
        finite = [value for value in values[start:end] if math.isfinite(value)]
        means.append(sum(finite) / len(finite) if finite else math.nan)
    return means
