"""What is measured: a share of studies, with how sure it is, and what it must be."""

from __future__ import annotations

import math
from dataclasses import dataclass

SURE = 3.5
"""Standard errors; a share of a single setting strays farther by chance once in 4,000 times."""


@dataclass(frozen=True)
class Share:
    """A share of studies, or a mean over them.

    Attributes:
        error: its standard error.
        where: the setting that it was found in, the worst of several.
    """

    value: float
    error: float
    where: str = ""


def share(count: int, of: int, where: str = "") -> Share:
    """Return `count` of `of`; the error is never nothing, even where all or none are."""
    p = count / of
    around = (count + 1) / (of + 2)
    return Share(p, math.sqrt(around * (1 - around) / of), where)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        old, new: under the rules before and now; None where a rule did not exist.
        low, high: what the new one must lie within.
        percent: they are shares; else a plain number.
    """

    text: str
    old: Share | None
    new: Share
    low: float = -math.inf
    high: float = math.inf
    percent: bool = True

    def holds(self, found: Share) -> bool:
        """Return whether what was found may be chance if the truth is what it must be."""
        return self.low - SURE * found.error <= found.value <= self.high + SURE * found.error

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """What it is, then, now, and what it must be."""
        ends = [f"at least {self._text(self.low)}"] if math.isfinite(self.low) else []
        ends += [f"at most {self._text(self.high)}"] if math.isfinite(self.high) else []
        values = ["-" if found is None else self._text(found.value) for found in (self.old, self.new)]
        return (self.text, *values, ", ".join(ends) or "-")

    def _text(self, value: float) -> str:
        return f"{100 * value:.1f} %" if self.percent else f"{value:.3g}"
