"""What a diagnosis comes to, in words that need no paper: who dominates, who starves, who conflicts, and what no weight
can mend.

A verdict is given where the interval over batches excludes its limit, and what it leaves open is said to be unclear,
with the number of batches that would tell.

Shapes: K levels, finest first; a moment is a state of the model, of which the first and the last are judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from msbal.diagnosis.judging import Verdict, judge, widened
from msbal.engine import available
from msbal.records.diagnosis import CLEAR, Finding, GroupState, LevelDiagnosis, Spread

FACTOR = 2.0
"""A level dominates from so many times the mean of the other levels' gradient norms on, and starves at so small a part
of their median: less than a factor of 2 is less than what people leave open when they choose a learning rate."""

CONFLICT = -0.2
"""Two levels conflict below this cosine. At -0.2 the sum of two gradients of equal norm is a tenth shorter than if they
were unrelated; a smaller loss pays for no method against it."""

FEW_BOXES = 100
"""With fewer boxes the 95 % interval of a recall of one half reaches 10 points up and down."""

GAP = 0.1
"""Shares of the loss and of the gradient that differ by less are alike, whatever their ratio."""

MAX_BATCHES = 256
"""More are not asked for."""


def find(diagnosis: LevelDiagnosis) -> tuple[Finding, ...]:
    """Return what a person should know of each group: first what dominates, starves or conflicts, then the rest."""
    names = dict.fromkeys(group.group for state in diagnosis.states for group in state.groups)
    return tuple(finding for name in names for finding in _Group(diagnosis, name).findings())


def fixed_weights(diagnosis: LevelDiagnosis, group: str) -> tuple[float, ...] | None:
    """Return the weights ``[K]``, with the sum K, for equal gradient norms over all moments (geometric mean).

    A level without boxes, positives or a gradient keeps 1: it would get the largest weight of all, for nothing. None
    where fewer than two levels are left.
    """
    states = [each for state in diagnosis.states for each in state.groups if each.group == group]
    boxes = diagnosis.boxes.get(group) or [1] * len(states[0].levels)
    known = np.array([boxes[k] > 0 and all(_learns(each, k) for each in states) for k in range(len(boxes))])
    if known.sum() < 2:
        return None
    weights = np.ones(len(known))
    raw = np.exp(np.log([each.equal_norms for each in states]).mean(axis=0))[known]
    weights[known] = raw / raw.mean()
    return tuple(float(f"{weight:.3g}") for weight in weights)


@dataclass(frozen=True)
class _Judged:
    """A verdict on some levels at a moment.

    Attributes:
        text: what was measured, with its interval, and when.
        question: what it answers: whether a level dominates.
    """

    verdict: Verdict
    text: str
    question: str


@dataclass(frozen=True)
class _Group:
    """One group of levels, at the first and at the last moment."""

    diagnosis: LevelDiagnosis
    name: str

    @cached_property
    def moments(self) -> list[tuple[str, GroupState]]:
        found = [
            (state.when, each)
            for state in self.diagnosis.states
            for each in state.groups
            if each.group == self.name
        ]
        return found[:1] + found[1:][-1:]

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
        """Tell whether a level has no boxes to learn from."""
        return self.boxes is not None and self.boxes[k] == 0

    def learns(self, k: int) -> bool:
        """Tell whether a level has anything but background to learn from: the others are not compared with it."""
        known = [state.positives for _, state in self.moments]
        return not self.empty(k) and any(each is None or each[k].mean > 0 for each in known)

    def others(self, state: GroupState, k: int) -> list[Spread]:
        """Return the shares of the levels that a level is compared with."""
        shares = enumerate(state.share)
        return [share for j, share in shares if j != k and share.mean > 0 and self.learns(j)]

    def findings(self) -> Iterator[Finding]:
        first = list(self.imbalance())
        yield from first
        yield from self.loss_and_gradient()
        yield from self.changes(uneven=any(finding.kind in ("dominates", "starves") for finding in first))
        yield from self.what_no_weight_mends()

    def finding(self, kind: str, at: Sequence[int], text: str, *strategies: dict[str, Any]) -> Finding:
        usable = tuple(section for section in strategies if installed(section))
        return Finding(kind, self.name, tuple(self.levels[k] for k in at), text, usable)

    # Who dominates, starves and conflicts

    def imbalance(self) -> Iterator[Finding]:
        alive = [k for k, share in enumerate(self.last.share) if share.mean > 0]
        if all(math.isnan(norm.mean) for norm in self.last.norm.get("shared", ())):
            yield self.finding(
                "not_finite", range(len(self.levels)),
                f"In every batch losses or gradients are NaN or infinite {self.moments[-1][0]}: the training has "
                "diverged, which weights of levels do not mend. Lower the learning rate.",
            )  # fmt: skip
            return
        if len(alive) < 2:
            yield self.finding(
                "nothing_shared", range(len(self.levels)),
                "No parameter that is trained has a gradient from two levels: none can dominate another.",
            )  # fmt: skip
            return
        found: list[Finding] = []
        unclear: list[_Judged] = []
        for kind, judged in (("dominates", self.dominates), ("starves", self.starves)):
            if kind == "starves" and len(alive) < 3:
                continue  # of two levels, one starves where the other dominates
            for k in alive:
                each = [judged(when, state, k) for when, state in self.moments]
                if kind == "starves" and not self.learns(k):
                    continue
                somewhere = any(one.verdict.holds for one in each)
                if somewhere:
                    found.append(self.imbalanced(kind, k, each))
                unclear += [
                    one
                    for one in each
                    if one.verdict.holds is None and not (somewhere and one.verdict.likely)
                ]
        uneven = bool(found)
        if uneven:
            found.append(self.equal_norms())
        conflicts, open_pairs = self.conflicts()
        yield from (*found, *conflicts)
        unclear += open_pairs
        balanced = not uneven and not conflicts and not unclear and sum(map(self.learns, alive)) > 1
        if balanced:
            yield self.balanced(alive)
        if unclear:
            yield self.unclear(unclear, "" if uneven else self.factors(alive))
        taught = [k for k in alive if self.learns(k)]
        known = len(taught) > 1 and all(state.signal for _, state in self.moments)
        if (uneven or unclear or balanced) and not conflicts and not open_pairs and known:
            yield self.no_conflict(taught)

    def imbalanced(self, kind: str, k: int, judged: Sequence[_Judged]) -> Finding:
        level, when = self.levels[k], ""
        if len(judged) > 1:
            (first_when, _), (last_when, _) = self.moments
            # What is likely at one moment and holds at the other holds at both.
            first, last = (each.verdict.likely or each.verdict.holds for each in judged)
            if not last:
                when = f" {first_when}" + f", but no more {last_when}" * (last is False)
            elif not first:
                when = f" {last_when}" + f", though not {first_when}" * (first is False)
        measured = "; ".join(each.text for each in judged)
        more = "more" if kind == "dominates" else "less"
        text = (
            f"{level} {kind}{when}: it has {measured}. It decides {more} than its part of what the shared "
            "parameters learn."
        )
        if kind == "dominates" and self.empty(k):
            text += " It has no boxes, and teaches only what background is."
        return self.finding(kind, [k], text, {"strategy": "grad_norm"}, *self.others_for(kind, k))

    def others_for(self, kind: str, k: int) -> Iterator[dict[str, Any]]:
        """Yield what, beside `grad_norm`, is worth an ablation because level k dominates or starves."""
        weights = fixed_weights(self.diagnosis, self.name)
        if weights is not None and len(self.diagnosis.states[-1].groups) == 1:
            yield {"strategy": "fixed", "weights": list(weights)}
        positives = self.last.positives
        if positives is not None:
            counts = [each.mean for each in positives]
            others = float(np.mean([count for j, count in enumerate(counts) if j != k]))
            more, less = counts[k] >= FACTOR * others, counts[k] <= others / FACTOR
            if more if kind == "dominates" else less:
                yield {"strategy": "positives"}
        if kind == "starves" and self.loss_shares(self.last)[k].mean < 1 / len(self.levels) / FACTOR:
            yield {"strategy": "floor"}

    def dominates(self, when: str, state: GroupState, k: int) -> _Judged:
        others, share = self.others(state, k), state.share[k]
        if not others or not share.mean > 0:
            return _Judged(Verdict(False), f"no gradient beside others {when}", "")
        rest, count = sum(each.mean for each in others), len(others)
        # Where a share s has FACTOR times the mean of the others, which have the rest of what they all share.
        limit = FACTOR * (share.mean + rest) / (count + FACTOR)
        times = f"{_short(count * share.mean / max(rest, 1e-9))} times the mean of the other levels"
        return self.judged(f"{self.levels[k]} dominates", share, when, times, share, limit, 1 + count)

    def starves(self, when: str, state: GroupState, k: int) -> _Judged:
        """Compare a level with the median of the others, since one that dominates makes all others look small."""
        others, share = self.others(state, k), state.share[k]
        if len(others) < 2 or not share.mean > 0:
            return _Judged(Verdict(False), f"no gradient beside others {when}", "")
        middle = float(np.median([each.mean for each in others]))
        around = float(np.median([max(each.high - each.mean, each.mean - each.low) for each in others]))
        reach = max(share.high - share.mean, share.mean - share.low)
        ratio = share.mean / middle
        half = ratio * math.hypot(reach / share.mean, around / middle)
        spread = Spread(ratio, ratio - half, ratio + half)
        times = f"{_short(ratio)} times the median of the other levels"
        question = f"{self.levels[k]} starves"
        return self.judged(question, share, when, times, spread, 1 / FACTOR, 1 + len(others), below=True)

    def judged(
        self, question: str, share: Spread, when: str, times: str, spread: Spread, limit: float, looks: int,
        *, below: bool = False,
    ) -> _Judged:  # fmt: skip
        text = f"{_percent(share)} of the gradient {when}, {times}"
        return _Judged(self.verdict(spread, limit, looks, below=below), text, f"{question}, with {text}")

    def conflicts(self) -> tuple[list[Finding], list[_Judged]]:
        """Return the pairs that conflict, in one finding, and those of which it is unclear.

        A level that learns only background has a direction, too, but next to no gradient that could be in the way.
        """
        opposed: dict[tuple[int, int], list[str]] = {}
        unclear: list[_Judged] = []
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
                    unclear.append(_Judged(verdict, text, pair))
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

    def equal_norms(self) -> Finding:
        told = "; ".join(
            ", ".join(f"{n} {_short(w)}" for n, w in zip(self.levels, state.equal_norms, strict=True)) + f" {when}"
            for when, state in self.moments
        )  # fmt: skip
        text = (
            f"For gradients of equal norm the weights would have to be {told}. That is a question for an ablation, no "
            "recommendation: a small gradient may be all that a level needs."
        )
        if empty := [level for k, level in enumerate(self.levels) if self.empty(k)]:
            text += f" Leave {_listed(empty)}, without boxes, at 1."
        return self.finding("equal_norms", range(len(self.levels)), text)

    def factors(self, alive: Sequence[int]) -> str:
        """Return how many times the smallest norm of a level that learns the largest is, at each moment."""
        told = []
        for when, state in self.moments:
            shares = [state.share[k].mean for k in alive if self.learns(k) and state.share[k].mean > 0]
            told.append(f"{max(shares, default=1.0) / min(shares, default=1.0):.1f} {when}")
        return " and ".join(told)

    def balanced(self, alive: Sequence[int]) -> Finding:
        text = (
            f"Nothing to balance here: the levels' gradients lie within a factor of {self.factors(alive)}. None has "
            f"{FACTOR:g} times the mean of the others, and none less than half of their median."
        )
        return self.finding("balanced", alive, text)

    def no_conflict(self, alive: Sequence[int]) -> Finding:
        """Say that no batch shows a conflict, and whether one could be hidden under the noise of batches."""
        size, lowest = self.diagnosis.batch_size, self.lowest_cosine(alive)
        text = f"No two levels pull against each other in batches of {size}: the lowest cosine is {lowest}. "
        pairs = list(combinations(alive, 2))
        told = self.without_noise(pairs)
        hidden = [
            pair for pair in pairs if any(cosine < CONFLICT for cosine, _ in self.without_noise([pair]))
        ]
        unknown = [k for k in alive if not all(self.diagnosis.tells(state, k) for _, state in self.moments)]
        if hidden:
            at = sorted({k for pair in hidden for k in pair})
            text += (
                f"In the long run they may: without the noise of batches {_lowest(told)}. That has no interval. Of "
                f"their gradients {self.signals(at)} is common to all batches, by the squared norm; in larger batches "
                "it is more."
            )
            return self.finding("hidden_conflict", at, text)
        if unknown:
            text = (
                f"Whether levels pull against each other cannot be told with batches of {size}: of the gradient of "
                f"{_listed([self.levels[k] for k in unknown])} only {self.signals(unknown)} is common to all batches, "
                f"by the squared norm. The rest is noise, which draws cosines to 0; the lowest is {lowest}. "
            )
            return self.finding("noise", unknown, text + self.more_signal(unknown))
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

    def without_noise(self, pairs: Sequence[tuple[int, int]]) -> list[tuple[float, str]]:
        """Return the cosines of the expected gradients, the lowest first, as far as their signal tells them."""
        found = (
            (state.signal_cosine[i][j], f"{self.levels[i]} and {self.levels[j]}, {when}")
            for when, state in self.moments
            for i, j in pairs
            if self.diagnosis.tells(state, i, j)
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

    def more_signal(self, at: Sequence[int]) -> str:
        """Say how many batches would tell where these levels' gradients point, if the estimates are right."""
        parts = [state.signal[k] or 0.0 for _, state in self.moments for k in at]
        needed = [2 ** math.ceil(math.log2(CLEAR * (1 - part) / part)) for part in parts if part > 1e-6]
        enough = [number for number in needed if self.diagnosis.batches < number <= MAX_BATCHES]
        if not enough:
            return "A larger --batch-size has less of it."
        return f"Try --batches {max(enough)}, whose mean has less of it."

    def unclear(self, judged: Sequence[_Judged], factors: str) -> Finding:
        number, needed = self.diagnosis.batches, sorted(each.verdict.batches for each in judged)
        enough = [batches for batches in needed if batches <= MAX_BATCHES]
        fix = f"Try --batches {enough[-1] if enough else MAX_BATCHES}"
        fix += ", which may not tell either: it lies near the limit" * (not enough)
        if number < 2:
            return self.finding(
                "unclear", [], f"Unclear with 1 batch, which has no noise to measure by. {fix}."
            )
        nearest = sorted(judged, key=lambda each: -each.verdict.batches)
        told = "; ".join(f"whether {each.question}" for each in nearest[:3])
        told += f"; and {len(nearest) - 3} more" * (len(nearest) > 3)
        text = (
            f"Unclear with {number} batches: {told}. The limits are twice the mean, half the median and a cosine of "
            f"{CONFLICT:g}. {fix}."
        )
        if factors:
            text += f" As measured, the levels' gradients lie within a factor of {factors}."
        return self.finding("unclear", [], text)

    # What else is odd

    def loss_shares(self, state: GroupState) -> list[Spread]:
        """Return each level's share of the loss, with an interval that is never too narrow: ``[K]``."""
        terms = np.array([[tuple(spread) for spread in term] for term in state.loss.values()], dtype=float)
        mean, low, high = terms.sum(axis=0).T if len(terms) else np.full((3, len(state.levels)), np.nan)
        if not (mean >= 0).all() or not mean.sum() > 0:
            return [Spread(math.nan, math.nan, math.nan)] * len(state.levels)
        low = np.maximum(low, 0.0)
        at_least = low / np.maximum(low + high.sum() - high, 1e-300)
        at_most = high / np.maximum(high + low.sum() - low, 1e-300)
        return [Spread(*map(float, each)) for each in zip(mean / mean.sum(), at_least, at_most, strict=True)]

    def loss_and_gradient(self) -> Iterator[Finding]:
        odd: dict[int, tuple[float, str]] = {}
        for when, state in self.moments:
            for k, (loss, gradient) in enumerate(zip(self.loss_shares(state), state.share, strict=True)):
                wide, gap = self.widened(gradient), abs(loss.mean - gradient.mean)
                apart = loss.low > FACTOR * wide.high or wide.low > FACTOR * loss.high
                if gradient.mean > 0 and apart and gap >= max(GAP, odd.get(k, (0.0, ""))[0]):
                    shares = f"{_part(loss)} of the loss and {_part(gradient)} of the gradient"
                    odd[k] = gap, f"{self.levels[k]} has {shares} {when}"
        if odd:
            told = "; ".join(told for _, told in sorted(odd.values(), reverse=True)[:3])
            text = (
                f"The loss does not tell who moves the shared parameters: {told}. Strategies that go by the loss, as "
                "the paper's do, take other levels for large and small than the gradients show."
            )
            yield self.finding("loss_unlike_gradient", sorted(odd), text)

    def changes(self, *, uneven: bool) -> Iterator[Finding]:
        """Yield how shares change, which is a reason to decide anew in each interval where they are `uneven`."""
        if len(self.moments) < 2:
            return
        (first_when, first), (last_when, last) = self.moments
        moved: dict[int, tuple[float, str]] = {}
        for k, (before, after) in enumerate(zip(first.share, last.share, strict=True)):
            one, other = map(self.widened, (before, after))
            small, large = sorted((before.mean, after.mean))
            apart = one.high < other.low or other.high < one.low
            if self.learns(k) and apart and large >= FACTOR * small:
                told = f"{self.levels[k]} has {_part(before)} {first_when} and {_part(after)} {last_when}"
                moved[k] = large - small, told
        if moved:
            told = ", ".join(told for _, told in sorted(moved.values(), reverse=True)[:3])
            text = (
                f"The levels' shares of the gradient change while it trains: {told}. Constants "
                f"that fit {first_when} do not fit {last_when}."
            )
            strategies = ({"strategy": "grad_norm"}, {"strategy": "rlo"}) if uneven else ()
            yield self.finding("changes", sorted(moved), text, *strategies)

    # What no weight can mend

    def what_no_weight_mends(self) -> Iterator[Finding]:
        boxes, boxes_val = self.boxes, self.diagnosis.boxes_val.get(self.name)
        all_levels = range(len(self.levels))
        none = [k for k in all_levels if self.empty(k)]
        if none:
            text = (
                f"{self.said(none)} no box in the training set, so that all there is to learn is background. No weight "
                "changes that; another image size, or other anchors or size ranges of the levels, may."
            )
            yield self.finding("no_boxes", none, text)
        few = [k for k in all_levels if boxes_val and boxes_val[k] < FEW_BOXES and k not in none]
        if boxes_val and few:
            counts = ", ".join(f"{self.levels[k]} {boxes_val[k]}" for k in few)
            text = (
                f"Too few boxes in the validation set to measure a level's AP: {counts}. With {FEW_BOXES} it is "
                "uncertain by 10 points; a gain that balancing could give is smaller."
            )
            yield self.finding("few_boxes_val", few, text)
        states = [state for _, state in self.moments]
        without = [
            k
            for k in all_levels
            if k not in none and all(s.positives is not None and s.positives[k].mean == 0 for s in states)
        ]
        if without:
            number = self.diagnosis.batches
            own = ", ".join(f"{self.levels[k]} {boxes[k]:,}" for k in without) if boxes else ""
            text = (
                f"{self.said(without)} no positive sample in {number} batch{'es' * (number != 1)}"
                + f", although the training set has boxes of that size ({own})" * bool(own)
                + ". Either the batches missed them (try more --batches), or no anchor or point of the head fits them."
            )
            yield self.finding("no_positives", without, text)
        if any(share.mean > 0 for share in self.last.share):
            dead = [k for k in all_levels if all(not state.share[k].mean > 0 for state in states)]
            if dead:
                text = (
                    f"{self.said(dead)} no gradient on the parameters that levels share: the loss is 0, or what it "
                    "depends on is frozen. No weight changes that."
                )
                yield self.finding("no_gradient", dead, text)

    def said(self, at: Sequence[int]) -> str:
        return f"{_listed([self.levels[k] for k in at])} {'has' if len(at) == 1 else 'have'}"

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


def _learns(state: GroupState, k: int) -> bool:
    return state.share[k].mean > 0 and (state.positives is None or state.positives[k].mean > 0)


def _percent(spread: Spread) -> str:
    low, high = max(spread.low, 0.0), min(spread.high, 1.0)
    return f"{_short(100 * spread.mean)} % ({_short(100 * low)} to {_short(100 * high)})"


def _part(spread: Spread) -> str:
    return f"{_short(100 * spread.mean)} %"


def _percents(part: float) -> int:
    """Return it in per cent; an estimate of a small part may be negative."""
    return round(100 * max(part, 0.0))


def _lowest(told: Sequence[tuple[float, str]]) -> str:
    cosine, where = told[0]
    return f"the lowest cosine is {cosine:.2f} ({where})"


def _cosine(spread: Spread) -> str:
    return f"{spread.mean:.2f} ({max(spread.low, -1.0):.2f} to {min(spread.high, 1.0):.2f})"


def _short(number: float) -> str:
    """Return two significant digits, and never an exponent."""
    if number > 1e6:
        return "more than a million"
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}" if number >= 1 else f"{number:.2g}"


def _listed(names: Sequence[str]) -> str:
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last
