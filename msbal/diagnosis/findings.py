"""What a diagnosis comes to, in words that need no paper: who dominates, who starves, who conflicts, and what no weight
can mend.

A verdict is given where the interval over batches excludes its limit, and what it leaves open is said to be unclear,
with the number of batches that would tell.

Shapes: K levels, finest first; a moment is a state of the model, of which the first and the last are judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from msbal.diagnosis.conflicts import CONFLICT, Conflicts
from msbal.diagnosis.judging import Verdict
from msbal.diagnosis.moments import MAX_BATCHES, Judged, Moments, listed, part, percent, short
from msbal.records.diagnosis import Finding, GroupState, LevelDiagnosis, Spread

FACTOR = 2.0
"""A level dominates from so many times the mean of the other levels' gradient norms on, and starves at so small a part
of their median: less than a factor of 2 is less than what people leave open when they choose a learning rate."""

FEW_BOXES = 100
"""With fewer boxes the 95 % interval of a recall of one half reaches 10 points up and down."""

GAP = 0.1
"""Shares of the loss and of the gradient that differ by less are alike, whatever their ratio."""


def find(diagnosis: LevelDiagnosis) -> tuple[Finding, ...]:
    """Return what a person should know of each group: first what dominates, starves or conflicts, then the rest."""
    names = dict.fromkeys(group.group for state in diagnosis.states for group in state.groups)
    return tuple(finding for name in names for finding in _Findings(diagnosis, name).all())


def fixed_weights(diagnosis: LevelDiagnosis, group: str) -> tuple[float, ...] | None:
    """Return the weights ``[K]``, with the sum K, for equal gradient norms over all moments (geometric mean).

    A level without boxes, positives or a gradient keeps 1: it would get the largest weight of all, for nothing. None
    where fewer than two levels are left.
    """
    states = [each for state in diagnosis.states for each in state.groups if each.group == group]
    boxes = diagnosis.boxes.get(group) or [1] * len(states[0].levels)
    counted = all(each.positives is not None for each in states)
    known = np.array(
        [(boxes[k] > 0 or counted) and all(_learns(each, k) for each in states) for k in range(len(boxes))]
    )
    if known.sum() < 2:
        return None
    weights = np.ones(len(known))
    raw = np.exp(np.log([each.equal_norms for each in states]).mean(axis=0))[known]
    weights[known] = raw / raw.mean()
    return tuple(float(f"{weight:.3g}") for weight in weights)


class _Findings(Moments):
    """What there is to say of one group."""

    def all(self) -> Iterator[Finding]:
        first = list(self.imbalance())
        yield from first
        yield from self.loss_and_gradient()
        yield from self.changes(uneven=any(finding.kind in ("dominates", "starves") for finding in first))
        yield from self.what_no_weight_mends()

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
        unclear: list[Judged] = []
        # A level that dominates does not starve, however noisy the others are.
        large: set[tuple[int, str]] = set()
        for kind, judged in (("dominates", self.dominates), ("starves", self.starves)):
            if kind == "starves" and len(alive) < 3:
                continue  # of two levels, one starves where the other dominates
            for k in alive:
                if kind == "starves" and not self.learns(k):
                    continue
                each = {when: judged(when, state, k) for when, state in self.moments}
                somewhere = any(one.verdict.holds for one in each.values())
                if somewhere:
                    found.append(self.imbalanced(kind, k, list(each.values())))
                if kind == "dominates":
                    large |= {(k, when) for when, one in each.items() if one.verdict.holds}
                unclear += [
                    one
                    for when, one in each.items()
                    if one.verdict.holds is None and not (somewhere and one.verdict.likely)
                    if kind == "dominates" or (k, when) not in large
                ]
        uneven = bool(found)
        if uneven:
            found.append(self.equal_norms())
        of_pairs = Conflicts(self.diagnosis, self.name)
        conflicts, open_pairs = of_pairs.found()
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
            yield of_pairs.no_conflict(taught)

    def imbalanced(self, kind: str, k: int, judged: Sequence[Judged]) -> Finding:
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

    def dominates(self, when: str, state: GroupState, k: int) -> Judged:
        others, share = self.others(state, k), state.share[k]
        if not others or not share.mean > 0:
            return Judged(Verdict(False), f"no gradient beside others {when}", "")
        rest, count = sum(each.mean for each in others), len(others)
        # Where a share s has FACTOR times the mean of the others, which have the rest of what they all share.
        limit = FACTOR * (share.mean + rest) / (count + FACTOR)
        times = f"{short(count * share.mean / max(rest, 1e-9))} times the mean of the other levels"
        return self.judged(f"{self.levels[k]} dominates", share, when, times, share, limit, 1 + count)

    def starves(self, when: str, state: GroupState, k: int) -> Judged:
        """Compare a level with the median of the others, since one that dominates makes all others look small."""
        others, share = self.others(state, k), state.share[k]
        if len(others) < 2 or not share.mean > 0:
            return Judged(Verdict(False), f"no gradient beside others {when}", "")
        middle = float(np.median([each.mean for each in others]))
        around = float(np.median([max(each.high - each.mean, each.mean - each.low) for each in others]))
        reach = max(share.high - share.mean, share.mean - share.low)
        ratio = share.mean / middle
        half = ratio * math.hypot(reach / share.mean, around / middle)
        spread = Spread(ratio, ratio - half, ratio + half)
        times = f"{short(ratio)} times the median of the other levels"
        question = f"{self.levels[k]} starves"
        return self.judged(question, share, when, times, spread, 1 / FACTOR, 1 + len(others), below=True)

    def judged(
        self, question: str, share: Spread, when: str, times: str, spread: Spread, limit: float, looks: int,
        *, below: bool = False,
    ) -> Judged:  # fmt: skip
        text = f"{percent(share)} of the gradient {when}, {times}"
        return Judged(self.verdict(spread, limit, looks, below=below), text, f"{question}, with {text}")

    def equal_norms(self) -> Finding:
        told = "; ".join(
            ", ".join(f"{n} {short(w)}" for n, w in zip(self.levels, state.equal_norms, strict=True)) + f" {when}"
            for when, state in self.moments
        )  # fmt: skip
        text = (
            f"For gradients of equal norm the weights would have to be {told}. That is a question for an ablation, no "
            "recommendation: a small gradient may be all that a level needs."
        )
        if empty := [level for k, level in enumerate(self.levels) if self.empty(k)]:
            text += f" Leave {listed(empty)}, without boxes, at 1."
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

    def unclear(self, judged: Sequence[Judged], factors: str) -> Finding:
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
        text = f"The levels' gradients lie within a factor of {factors}. " if factors else ""
        text += (
            f"Unclear with {number} batches: {told}. The limits are twice the mean, half the median and a cosine of "
            f"{CONFLICT:g}. {fix}."
        )
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
                    shares = f"{part(loss)} of the loss and {part(gradient)} of the gradient"
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
                told = f"{self.levels[k]} has {part(before)} {first_when} and {part(after)} {last_when}"
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


def _learns(state: GroupState, k: int) -> bool:
    return state.share[k].mean > 0 and (state.positives is None or state.positives[k].mean > 0)
