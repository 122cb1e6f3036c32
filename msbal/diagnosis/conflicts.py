"""Which levels conflict, and whether the noise of batches could hide that others do.

Shapes: K levels, finest first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations

from msbal.diagnosis.judging import Verdict
from msbal.diagnosis.moments import MAX_BATCHES, Judged, Moments, listed
from msbal.records.diagnosis import CLEAR, Finding, GroupState, Spread

CONFLICT = -0.2
"""Two levels conflict below this cosine. At -0.2 the sum of two gradients of equal norm is a tenth shorter than if they
were unrelated; a smaller loss pays for no method against it."""


class Conflicts(Moments):
    """The conflicts of one group."""

    def found(self) -> tuple[list[Finding], list[Judged]]:
        """Return the pairs that conflict, in one finding, and those of which it is unclear.

        A level that learns only background has a direction, too, but next to no gradient that could be in the way.
        """
        opposed: dict[tuple[int, int], list[str]] = {}
        unclear: list[Judged] = []
        for when, state in self.moments:
            taught = [k for k, share in enumerate(state.share) if share.mean > 0 and self.learns(k)]
            pairs = list(combinations(taught, 2))
            for i, j in pairs:
                cosine = state.cosine[i][j]
                text = f"{_cosine(cosine)} {when}"
                verdict = self.verdict(cosine, CONFLICT, len(pairs), below=True)
                if verdict.holds:
                    opposed.setdefault((i, j), []).append(text)
                elif verdict.holds is None:
                    pair = f"{self.levels[i]} and {self.levels[j]} conflict, with a cosine of {text}"
                    unclear.append(Judged(verdict, text, pair))
        if not opposed:
            return [], unclear
        told = "; ".join(
            f"{self.levels[i]} against {self.levels[j]}, cosine {' and '.join(measured)}"
            for (i, j), measured in list(opposed.items())[:3]
        )
        told += f"; and {len(opposed) - 3} more pairs" * (len(opposed) > 3)
        text = (
            f"Levels conflict: {told}. Where one improves, the shared parameters get worse for the other (1: alike, 0: "
            "unrelated, -1: opposite)."
        )
        at = sorted({k for pair in opposed for k in pair})
        without = self.without_noise(list(opposed))
        if without:
            text += f" Of their gradients {self.signals(at)} is common to all batches, by the squared norm: without "
            text += f"the rest, {_lowest(without)}."
        else:
            text += " Too little of their gradients is common to all batches to tell more than that."
        section = {"strategy": "gramian", "weighting": "upgrad"}
        return [self.finding("conflict", at, text, section)], unclear

    def no_conflict(self, alive: Sequence[int]) -> Finding:
        """Say that no batch shows a conflict, and whether one could be hidden under the noise of batches."""
        size, lowest = self.diagnosis.batch_size, self.lowest_cosine(alive)
        text = f"No two levels pull against each other in batches of {size}: the lowest cosine is {lowest}. "
        pairs = list(combinations(alive, 2))
        told = self.without_noise(pairs)
        hidden: list[tuple[int, int]] = []
        unknown: dict[int, int] = {}
        for _, state in self.moments:
            for pair in pairs:
                cosine = self.signal_cosine(state, *pair)
                verdict = (
                    Verdict(None)
                    if cosine is None
                    else self.verdict(cosine, CONFLICT, len(pairs), below=True)
                )
                if verdict.holds:
                    hidden.append(pair)
                elif verdict.holds is None:
                    unknown |= {k: max(verdict.batches, unknown.get(k, 0)) for k in pair}
        if hidden:
            at, told = sorted({k for pair in hidden for k in pair}), self.without_noise(hidden)
            text += (
                f"But their means over many batches do: without the noise of batches {_lowest(told)}. Of their "
                f"gradients {self.signals(at)} is common to all batches, by the squared norm; larger batches have more."
            )
            return self.finding("hidden_conflict", at, text)
        if unknown:
            tell = self.diagnosis.tells
            little = [k for k in unknown if not all(tell(state, k) for _, state in self.moments)]
            at, only = sorted(little or unknown), "only " * bool(little)
            text = (
                f"Whether levels pull against each other cannot be told with batches of {size}: of the gradient of "
                f"{listed([self.levels[k] for k in at])} {only}{self.signals(at)} is common to all batches, by the "
                f"squared norm. The rest is noise, which draws cosines to 0; the lowest is {lowest}. "
            )
            return self.finding("noise", at, text + self.more_signal(at, unknown.values()))
        text += (
            f"Nor do they without the noise of batches: then {_lowest(told)}, and of the gradients "
            f"{self.signals(alive)} is common to all batches, by the squared norm. A method against conflicts has "
            "nothing to mend."
        )
        return self.finding("no_conflict", alive, text)

    def lowest_cosine(self, alive: Sequence[int]) -> str:
        found = [
            (state.cosine[i][j].mean, f"{self.levels[i]} and {self.levels[j]}, {when}")
            for when, state in self.moments
            for i, j in combinations(alive, 2)
            if math.isfinite(state.cosine[i][j].mean)
        ]
        cosine, where = min(found)
        return f"{cosine:.2f} ({where})"

    def signal_cosine(self, state: GroupState, i: int, j: int) -> Spread | None:
        return state.signal_cosine[i][j] if self.diagnosis.tells(state, i, j) else None

    def without_noise(self, pairs: Sequence[tuple[int, int]]) -> list[tuple[Spread, str]]:
        """Return the cosines of the expected gradients, the lowest first, as far as their signal tells them."""
        found = (
            (self.signal_cosine(state, i, j), f"{self.levels[i]} and {self.levels[j]}, {when}")
            for when, state in self.moments
            for i, j in pairs
        )
        return sorted((cosine, where) for cosine, where in found if cosine is not None)

    def signals(self, at: Sequence[int]) -> str:
        """Return from where to where these levels' signals are, at each moment."""
        told = []
        for when, state in self.moments:
            percents = [_percents(state.signal[k] or 0.0) for k in at]
            low, high = min(percents), max(percents)
            told.append(f"{low} to {high} % {when}" if low < high else f"{low} % {when}")
        return " and ".join(told)

    def more_signal(self, at: Sequence[int], open_: Iterable[int]) -> str:
        """Say how many batches would tell where these levels' gradients point, if the estimates are right."""
        parts = [state.signal[k] or 0.0 for _, state in self.moments for k in at]
        needed = [*open_]
        needed += [2 ** math.ceil(math.log2(CLEAR * (1 - part) / part)) for part in parts if 1e-6 < part < 1]
        enough = [number for number in needed if self.diagnosis.batches < number <= MAX_BATCHES]
        if not enough:
            return "A larger --batch-size has less of it."
        return f"Try --batches {max(enough)}, whose mean has less of it."


def _percents(part: float) -> int:
    """Return it in per cent; an estimate of a small part may be negative."""
    return round(100 * max(part, 0.0))


def _lowest(told: Sequence[tuple[Spread, str]]) -> str:
    cosine, where = told[0]
    return f"the lowest cosine is {_cosine(cosine)}, of {where}"


def _cosine(spread: Spread) -> str:
    return f"{spread.mean:.2f} ({max(spread.low, -1.0):.2f} to {min(spread.high, 1.0):.2f})"
