"""A group of levels at the moments of a diagnosis that are judged, and how numbers are told.

Shapes: K levels, finest first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from msbal.diagnosis.judging import Verdict, judge, widened
from msbal.engine import available
from msbal.records.diagnosis import Finding, GroupState, LevelDiagnosis, Spread

MAX_BATCHES = 256
"""More are not asked for."""


@dataclass(frozen=True)
class Judged:
    """A verdict on some levels at a moment.

    Attributes:
        text: what was measured, with its interval, and when.
        question: what it answers: whether a level dominates.
    """

    verdict: Verdict
    text: str
    question: str


@dataclass(frozen=True)
class Moments:
    """One group of levels, at the first and at the last moment."""

    diagnosis: LevelDiagnosis
    name: str

    @cached_property
    def moments(self) -> list[tuple[str, GroupState]]:
        return [
            (state.when, each)
            for state in self.diagnosis.moments
            for each in state.groups
            if each.group == self.name
        ]

    @property
    def last(self) -> GroupState:
        return self.moments[-1][1]

    @property
    def levels(self) -> tuple[str, ...]:
        return self.last.levels

    @property
    def boxes(self) -> tuple[int, ...] | None:
        return self.diagnosis.boxes.get(self.name)

    def empty(self, k: int) -> bool:
        """Tell whether a level has no boxes to learn from: a box of another level may have positive samples on it."""
        known = [state.positives for _, state in self.moments]
        positive = any(each is not None and each[k].mean > 0 for each in known)
        return self.boxes is not None and self.boxes[k] == 0 and not positive

    def learns(self, k: int) -> bool:
        """Tell whether a level has anything but background to learn from: the others are not compared with it."""
        known = [state.positives for _, state in self.moments]
        return not self.empty(k) and any(each is None or each[k].mean > 0 for each in known)

    def others(self, state: GroupState, k: int) -> list[Spread]:
        """Return the shares of the levels that a level is compared with."""
        shares = enumerate(state.share)
        return [share for j, share in shares if j != k and share.mean > 0 and self.learns(j)]

    def finding(self, kind: str, at: Sequence[int], text: str, *strategies: dict[str, Any]) -> Finding:
        usable = tuple(section for section in strategies if installed(section))
        return Finding(kind, self.name, tuple(self.levels[k] for k in at), text, usable)

    def said(self, at: Sequence[int]) -> str:
        return f"{listed([self.levels[k] for k in at])} {'has' if len(at) == 1 else 'have'}"

    def verdict(self, spread: Spread, limit: float, looks: int, *, below: bool = False) -> Verdict:
        """Judge one of `looks` means of a moment."""
        return judge(spread, limit, self.diagnosis.batches, looks * len(self.moments), below=below)

    def widened(self, share: Spread) -> Spread:
        return widened(share, self.diagnosis.batches, len(self.levels))


def installed(section: dict[str, Any]) -> bool:
    """Tell whether the strategy of a ``balance:`` section is there, with all that it needs."""
    options: dict[str, Any] = {key: value for key, value in section.items() if key != "strategy"}
    make: Callable[..., Any] | None = available().get(section["strategy"])
    try:
        return make is not None and make(**options) is not None
    except (ImportError, TypeError, ValueError):
        return False


def percent(spread: Spread) -> str:
    low, high = max(spread.low, 0.0), min(spread.high, 1.0)
    return f"{short(100 * spread.mean)} % ({short(100 * low)} to {short(100 * high)})"


def part(spread: Spread) -> str:
    return f"{short(100 * spread.mean)} %"


def short(number: float) -> str:
    """Return two significant digits, and never an exponent."""
    if number > 1e6:
        return "more than a million"
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}" if number >= 1 else f"{number:.2g}"


def listed(names: Sequence[str]) -> str:
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last
