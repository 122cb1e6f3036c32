"""Numbers and lines as text: one format for each kind of figure, everywhere in the terminal."""

from __future__ import annotations

import itertools
import math
import sys
import unicodedata
from collections.abc import Sequence
from typing import IO

SPARKS = "▁▂▃▄▅▆▇█"


def figure(value: float | None) -> str:
    """A loss or any other figure, four significant digits, at most seven characters for 0 <= value."""
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


def scientific(value: float) -> str:
    """A variance: three significant digits and the exponent, ``1.23e-03``."""
    return f"{value:.2e}" if math.isfinite(value) else str(value)


def signed(value: float) -> str:
    """A ratio with its sign, at most six characters: ``+0.12``, ``-40.2``, ``-4e+03``."""
    if not math.isfinite(value):
        return f"{value:+}"
    size = abs(value)
    return (
        f"{value:+.{2 if size < 9.995 else 1 if size < 99.95 else 0}f}" if size < 999.5 else f"{value:+.0e}"
    )


def plain_number(value: float) -> str:
    """A setting as a person would write it: ``0.01``, ``1e-05``, ``1234``."""
    return f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """Seconds as ``0:04:12``, from a day on as ``1d 02:03:04``; ``-`` where unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}d {hours:02}:{minutes:02}:{rest:02}" if days else f"{hours}:{minutes:02}:{rest:02}"


def size_of(count: float) -> str:
    """Bytes in the largest binary unit that leaves at least one: ``6.2 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def one_line(text: str) -> str:
    """`text` on one line and without control characters, so that it can neither break a line up nor
    drive the terminal."""
    kept = "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) != "Cc")
    return " ".join(kept.split())


def sparkline(values: Sequence[float], width: int, marks: str = SPARKS) -> str:
    """The last `width` values as one character each, scaled between the smallest and the largest shown.

    Values that are not finite are blank; equal values lie in the middle.

    Args:
        values: in time order.
        width: characters at most; the line is shorter where there are fewer values.
        marks: characters from low to high.
    """
    shown = list(values)[-width:] if width > 0 else []
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return " " * len(shown)
    low, high = min(finite), max(finite)
    # Scaled before subtracting: high - low may be infinite for huge values.
    span = high / 2 - low / 2
    top = len(marks) - 1
    line = ""
    for value in shown:
        if not math.isfinite(value):
            line += " "
        elif span == 0:
            line += marks[top // 2]
        else:
            line += marks[min(top, int((value / 2 - low / 2) / span * len(marks)))]
    return line


def condensed(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values: each the mean of the finite ones in an equal stretch of `values`."""
    if width <= 0 or len(values) <= width:
        return list(values)
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    means = []
    for start, end in itertools.pairwise(edges):
        finite = [value for value in values[start:end] if math.isfinite(value)]
        means.append(sum(finite) / len(finite) if finite else math.nan)
    return means


def error_line(error: BaseException, file: IO[str] | None = None) -> None:
    """Print an error as one line, ``error: ...``, to stderr (or `file`).

    The label is red on a terminal that has colours. The line is never wrapped, so that it stays one
    line for whoever reads it from a pipe.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file or sys.stderr, highlight=False, soft_wrap=True)
    detail = one_line(str(error)) or type(error).__name__
    console.print(Text.assemble(("error:", "bold red"), " ", detail))
