"""What a conclusion says, in words: the verdict first, then its numbers, then what would answer an open question."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from msbal.ablation.grid import Comparison
from msbal.ablation.plan import listed
from msbal.ablation.statistics.conclusion import Conclusion, Verdict
from msbal.ablation.statistics.intervals import Interval
from msbal.ablation.statistics.shared import OWN_FROM
from msbal.metric_text import full_name, in_points, signed, span

if TYPE_CHECKING:
    from msbal.ablation.statistics.conclude import Study
    from msbal.ablation.statistics.detectors import OverGroups

Tone = Literal["better", "worse", "equal", "open", "unknown"]
"""What a verdict comes to, for a colour or a sign. `equal`: any difference is smaller than the gain."""

Scope = Literal["", "on these images only", "on these images"]
"""What a verdict holds for, where that is less than all images of the same kind."""

_TONES: dict[Verdict, Tone] = {
    "better by at least the gain": "better",
    "better": "better",
    "better by less than the gain": "equal",
    "no difference as large as the gain": "equal",
    "worse by less than the gain": "equal",
    "worse": "worse",
    "worse by at least the gain": "worse",
    "no gain": "open",
    "cannot tell yet": "open",
    "the same": "equal",
    "unknown": "unknown",
}
_WITHIN: tuple[Verdict, ...] = (
    "better by less than the gain",
    "no difference as large as the gain",
    "worse by less than the gain",
)
"""Verdicts that rule out any difference as large as the gain."""


BY_INNER = (
    "That a difference is smaller than the gain is read from the 90 % interval: two tests at 5 %, one at each "
    "end."
)


def tone(verdict: Verdict) -> Tone:
    """Return what a verdict comes to."""
    return _TONES[verdict]


def name_of(comparison: Comparison, baselines: Mapping[str, str]) -> str:
    """Return the arm, if it is compared to its baseline, or ``rlo vs rlw``."""
    arm, to = comparison
    return arm if baselines.get(arm) == to else f"{arm} vs {to}"


def verdict_text(verdict: Verdict, gain: float, scope: Scope = "") -> str:
    """Return a verdict for a table, with the gain in points, as ``better by at least 0.5``."""
    size = f"{100 * gain:g}"
    text = {
        "better by at least the gain": f"better by at least {size}",
        "better": "better",
        "better by less than the gain": f"better, but by less than {size}",
        "no difference as large as the gain": f"no difference of {size}",
        "worse by less than the gain": f"worse, but by less than {size}",
        "worse": "worse",
        "worse by at least the gain": f"worse by at least {size}",
        "no gain": f"no gain of {size}",
        "cannot tell yet": "cannot tell yet",
        "the same": "exactly the same",
        "unknown": "nothing to conclude",
    }[verdict]
    return f"{text}, {scope}" if scope else text


def scope_of(conclusion: Conclusion, gain: float) -> Scope:
    """Return whether a verdict that the seeds alone allow is more than seeds and images together do.

    That is a difference, where together there may be none; one of at least the gain, where it may be smaller; or no
    difference or gain as large, where there may be one.
    """
    images, said = conclusion.images, conclusion.verdict
    if images is None:
        return ""
    (low, high), gained = images.inner, said in ("better by at least the gain", "worse by at least the gain")
    if (said in _WITHIN and not -gain < low <= high < gain) or (said == "no gain" and high >= gain):
        return "on these images"
    if said.startswith(("better", "worse")) and images.holds_zero:
        return "on these images only"
    return "on these images" if gained and max(images.low, -images.high) < gain else ""


def sentence(conclusion: Conclusion, study: Study) -> str:
    """Return what may be said of one comparison: the verdict, its numbers, and what would answer an open question.

    Then come, where there are any, the noise of the images, the runs that are missing, and those far from the rest.
    """
    parts = [_verdict(conclusion, study)]
    if conclusion.tested is not None:
        parts += [_numbers(conclusion, study), _wanted(conclusion, study), _images(conclusion, study)]
    return " ".join(filter(None, [*parts, _missing(conclusion, study), _odd(conclusion)]))


def verdict_first(words: str) -> tuple[str, str]:
    """Return a conclusion's first sentence, which is its verdict, and the others."""
    verdict, stop, numbers = words.partition(". ")
    return verdict + stop.strip(), numbers


def question(study: Study, verb: str = "Planned") -> str:
    """Return what is asked, in one sentence, which begins with `verb`."""
    n, looks = len(study.seeds), study.looks
    seen = f"looked at after {listed(looks)}" if study.sequential else "looked at once"
    to: dict[str, list[str]] = {}
    for each in study.comparisons:
        to.setdefault(each.to, []).append(each.arm)
    m = len(study.comparisons)
    compared = f"{m} comparison{'s' * (m != 1)}"
    if 0 < len(to) <= 3:
        compared += f": {'; '.join(f'{listed(arms)} to {other}' for other, arms in to.items())}"
    return (
        f"{verb}: {full_name(study.metric)}, in which a difference of {in_points(study.gain)} matters; {n} "
        f"seed{'s' * (n != 1)}, {seen}; {compared}."
    )


def method_text(conclusions: Mapping[Comparison, Conclusion], study: Study) -> tuple[str, ...]:
    """Return how the verdicts were found, once for all of them."""
    tested = [each for each in conclusions.values() if each.tested is not None]
    if not tested:
        return ()
    m = len(study.comparisons)
    looks = listed(study.looks)
    together = f", corrected for {m} comparisons" if m > 1 else ""
    agrees = next((each.noise_agrees for each in tested if each.noise_agrees is not None), None)
    methods = {each.method for each in tested}
    notes = []
    if "shared" in methods:
        check = "" if agrees is None else f" (a check found none that differs, {p_said(agrees)})"
        notes.append(
            f"Differences are paired by seed, with the noise of all arms together{check} or the comparison's own where "
            f"that is larger; 95 % intervals and two-sided p are simultaneous, as Dunnett's are{together}."
        )
        if any(each.method == "shared" and each.paired.n >= OWN_FROM for each in tested):
            notes.append(
                f"From {OWN_FROM} seeds on, a difference must also show in the comparison's own t-test, uncorrected."
            )
        if own := [
            f"{each.comparison.arm} to {each.comparison.to}" for each in tested if each.method == "paired"
        ]:
            notes.append(f"Only with its own noise: {listed(own)}.")
        if odd := {arm: seeds for each in tested for arm, seeds in each.odd.items()}:
            notes.append(
                f"What lies far from the rest ({_runs(odd)}) makes this noise larger, in all comparisons."
            )
    elif "sequential" in methods:
        notes.append(
            f"Differences are paired by seed and looked at after {looks} seeds; 95 % intervals and two-sided p are "
            f"Student's t, at levels that keep the error of all looks at {100 * study.level:g} %{together}."
        )
    else:
        corrected = f"{together}: by Bonferroni and Holm" if together else ""
        notes.append(
            f"Differences are paired by seed; 95 % intervals and two-sided p are Student's t over the seeds{corrected}."
        )
        if agrees is not None:
            notes.append(
                f"Each comparison has its own noise, since that of the arms differs ({p_said(agrees)})."
            )
    if any(by_inner(each, study.gain) for each in tested):
        notes.append(BY_INNER)
    return tuple(notes)


def headline(
    conclusions: Mapping[Comparison, Conclusion],
    study: Study,
    baselines: Mapping[str, str],
    over: Sequence[OverGroups] = (),
) -> str:
    """Return all conclusions by name, in a sentence; what cannot be told yet is never called equal.

    Args:
        over: what is concluded over several groups.
    """
    if not conclusions:
        return "There is only the baseline: nothing is compared."
    if study.smoke:
        return "A smoke run: it shows whether everything works, and nothing can be concluded from it."
    several = len(study.groups) > 1
    to_baseline = [c for c in conclusions.values() if baselines.get(c.comparison.arm) == c.comparison.to]
    none = len(to_baseline) > 1 and all(c.verdict in (*_WITHIN, "the same") for c in to_baseline)
    clauses = []
    for found in over:
        used, groups = len(found.means), len(found.treatment.comparisons)
        of = "all" if found.tested is None else f"all {used}" if used == groups else f"{used} of {groups}"
        said = clause(found.verdict, "", study.gain, [found.treatment.name], "the baselines")
        clauses.append(f"over {of} {found.treatment.over}, {said}")
    if none:
        to = "its baseline" if several else to_baseline[0].comparison.to
        here = any(scope_of(each, study.gain) == "on these images" for each in to_baseline)
        said = f"no arm differs from {to} by {in_points(study.gain)} or more"
        clauses.append(f"on these images, {said}" if here else said)
    grouped: dict[tuple[Verdict, Scope, str], list[str]] = {}
    for each in conclusions.values():
        if none and each in to_baseline and each.verdict == "no difference as large as the gain":
            continue
        arm, to = each.comparison
        if several and baselines[arm] == to:
            to = ""
        grouped.setdefault((each.verdict, scope_of(each, study.gain), to), []).append(arm)
    # What is decided comes first.
    decided_first = sorted(grouped.items(), key=lambda each: each[0][0] in ("cannot tell yet", "unknown"))
    for (verdict, scope, to), arms in decided_first:
        to = to or ("its baseline" if len(arms) == 1 else "their baselines")
        clauses.append(clause(verdict, scope, study.gain, arms, to))
    return f"{full_name(study.metric)}: {'; '.join(clauses)}."


def _verdict(conclusion: Conclusion, study: Study) -> str:
    arm, to = conclusion.comparison
    gain = in_points(study.gain)
    said = clause(conclusion.verdict, scope_of(conclusion, study.gain), study.gain, [arm], to)
    if conclusion.verdict == "unknown":
        said = f"nothing can be concluded about {arm} and {to}: {_reason(conclusion, study)}"
    elif conclusion.verdict == "the same":
        metric, n = full_name(study.metric), conclusion.paired.n
        said = f"{arm} and {to} have exactly the same {metric} on each of {n} seeds, as if they were one run"
        said += ": check that they differ in the setting that you mean"
    elif conclusion.verdict == "no gain":
        said += ", but may lose as much"
    elif conclusion.verdict == "cannot tell yet" and conclusion.tested is not None:
        loss = "a loss of as much is ruled out" if by_inner(conclusion, study.gain) else "and so is a loss"
        said += f": a gain of {gain} is possible, {loss}"
    return (said if said.startswith(arm) else said[0].upper() + said[1:]) + "."


def _reason(conclusion: Conclusion, study: Study) -> str:
    metric, to = full_name(study.metric), conclusion.comparison.to
    difference = f"the difference in {metric} is {signed(conclusion.paired.mean)} points"
    return {
        None: "there is nothing to measure by",
        "smoke run": "this is a smoke run, which only shows whether everything works",
        "no look": f"the first look is after {min(study.looks, default=0)} seeds, which are not all finished",
        "no pair": _no_pair(conclusion, study),
        "one pair": f"{difference} on the only pair, and one pair cannot tell an effect from chance",
        "nothing learned": f"{metric} is 0 in every run of {to}, which has not learned enough to be compared with",
        "no noise": f"{difference} on each of {conclusion.paired.n} seeds, and without any spread there is no telling "
        "an effect from chance; more images to evaluate on would show some",
    }[conclusion.reason]


def _no_pair(conclusion: Conclusion, study: Study) -> str:
    if len(study.partial) == len(study.seeds) > 0:
        return "no seed has been run by every arm yet"
    if _undefined(conclusion, study):
        return f"no seed has a run of both in which {full_name(study.metric)} is defined"
    return f"no seed {'that every arm has run ' if study.partial else ''}has a finished run of both"


def clause(verdict: Verdict, scope: Scope, gain: float, arms: Sequence[str], to: str) -> str:
    """Return the verdict that some arms share."""
    names, size = listed(arms), in_points(gain)
    be, do, have, s = ("is", "does", "has", "s") if len(arms) == 1 else ("are", "do", "have", "")
    said = {
        "better by at least the gain": f"{names} {be} better than {to} by at least {size}",
        "better": f"{names} {be} better than {to}, though perhaps by less than {size}",
        "better by less than the gain": f"{names} {be} better than {to}, but by less than {size}",
        "no difference as large as the gain": f"{names} {do} not differ from {to} by {size} or more",
        "worse by less than the gain": f"{names} {be} worse than {to}, but by less than {size}",
        "worse": f"{names} {be} worse than {to}, though perhaps by less than {size}",
        "worse by at least the gain": f"{names} {be} worse than {to} by at least {size}",
        "no gain": f"{names} {do} not gain {size} over {to}",
        "cannot tell yet": f"it cannot be told yet whether {names} differ{s} from {to}",
        "the same": f"{names} {have} exactly the results of {to}",
        "unknown": f"nothing can be concluded about {names} against {to}",
    }[verdict]
    return f"{scope}, {said}" if scope else said


def _numbers(conclusion: Conclusion, study: Study) -> str:
    """Return the mean difference, with the interval that the verdict is read from."""
    tested, paired = conclusion.tested, conclusion.paired
    assert tested is not None
    inner = by_inner(conclusion, study.gain)
    counted = [f"{len(study.comparisons)} comparisons"] if len(study.comparisons) > 1 else []
    counted += [f"{len(study.looks)} looks"] if tested.look is not None else []
    corrected = f"; corrected for {' and '.join(counted)}" if counted else ""
    digits = digits_of(tested.interval)
    ends = span(*(tested.inner if inner else tested.interval), digits)
    return (
        f"The mean difference in {full_name(study.metric)} is {signed(tested.mean, digits)} points "
        f"({90 if inner else 95} % interval {ends}, {p_said(tested.p)}{corrected}); "
        f"{conclusion.comparison.arm} is better on {conclusion.better_on} of {paired.n} seeds."
    )


def _wanted(conclusion: Conclusion, study: Study) -> str:
    """Return how many seeds would answer a question that is open."""
    if tone(conclusion.verdict) != "open" or (study.sequential and conclusion.verdict == "no gain"):
        return ""
    done = conclusion.paired.n
    look = conclusion.tested.look if conclusion.tested is not None else None
    if look is not None and (later := [each for each in study.looks if each > look]):
        return f"The next look is after {later[0]} seeds."
    needed, ends = conclusion.seeds_needed, conclusion.needed_range
    if needed is None:
        return "With so much noise, more than 10,000 seeds would be needed to tell."
    rough = ""
    if ends is not None and ends != (needed, needed):
        low, high = ends
        some = f"from {low:,} to {high:,}" if low and high else f"at least {low:,}" if low else "unknown"
        rough = f" ({some}: {done} seeds show the noise only roughly)"
    return f"To tell with a probability of 80 %, about {needed:,} seeds are needed{rough}."


def _images(conclusion: Conclusion, study: Study) -> str:
    """Return what other images could change, and where the variance comes from."""
    images = conclusion.images
    if images is None:
        return ""
    scope, size = scope_of(conclusion, study.gain), in_points(study.gain)
    inner = by_inner(conclusion, study.gain) and scope != "on these images only"
    ends = images.inner if inner else (images.low, images.high)
    interval = f"over seeds and images the {90 if inner else 95} % interval is {span(*ends)}"
    if scope:
        may = f"a difference of {size}" if conclusion.verdict in _WITHIN else f"less than {size}"
        may = f"a gain of {size}" if conclusion.verdict == "no gain" else may
        may = "no difference" if scope == "on these images only" else may
        interval = f"other images of the same kind may show {may}: {interval}"
    seeds = round(100 * images.seeds)
    of_seeds = (
        f"of this difference's variance {seeds} % comes from the seeds, {100 - seeds} % from the images"
    )
    return f"{interval[0].upper()}{interval[1:]}; {of_seeds}."


def _missing(conclusion: Conclusion, study: Study) -> str:
    """Return which seeds are left out, and why."""
    if conclusion.reason in ("smoke run", "no look"):
        return ""
    left = [f"{_seeds(seeds)}, where {arm} failed" for arm, seeds in conclusion.crashed.items()]
    told = {seed for seeds in conclusion.crashed.values() for seed in seeds}
    if undefined := _undefined(conclusion, study):
        left.append(f"{_seeds(undefined)}, where {full_name(study.metric)} is undefined")
        told |= set(undefined)
    if conclusion.tested is not None and conclusion.tested.look is not None:
        told |= set(study.seeds[conclusion.tested.look :])  # later than the look that decided
    for arm in conclusion.comparison:
        alone = [s for s in conclusion.unpaired if s in study.summaries[arm].values and s not in told]
        left += [f"{_seeds(alone)}, which only {arm} has finished"] if alone else []
    return f"Left out: {'; '.join(left)}." if left else ""


def _undefined(conclusion: Conclusion, study: Study) -> list[int]:
    """Return the seeds of which a run of either arm is finished and has no such metric."""
    if study.unfinished is None:
        return []
    look = None if conclusion.tested is None else conclusion.tested.look
    counted = [seed for seed in study.seeds[:look] if seed not in study.partial]
    accounted = {
        arm: {
            *study.summaries[arm].values, *study.unfinished.get(arm, ()), *(study.crashed or {}).get(arm, ()),
        }
        for arm in conclusion.comparison
    }  # fmt: skip
    return [seed for seed in counted if any(seed not in of_arm for of_arm in accounted.values())]


def _odd(conclusion: Conclusion) -> str:
    """Return which runs are far from the rest, and the mean without them."""
    if not conclusion.odd:
        return ""
    without = conclusion.mean_without_odd
    it = "it" if sum(map(len, conclusion.odd.values())) == 1 else "them"
    rest = "" if without is None else f"; without {it} the mean difference is {signed(without)} points"
    return f"Far from the rest: {_runs(conclusion.odd)}{rest}."


def _runs(seeds_of: Mapping[str, Sequence[int]]) -> str:
    """Return ``seed 2 of rlo and seeds 0 and 1 of rlw``."""
    return listed([f"{_seeds(seeds)} of {arm}" for arm, seeds in seeds_of.items()])


def by_inner(found: Conclusion | OverGroups, gain: float) -> bool:
    """Return whether the verdict rules out a gain or a loss, which is read from the inner interval."""
    if found.verdict == "cannot tell yet":
        return found.tested is not None and found.tested.inner[0] > -gain
    return found.verdict in (*_WITHIN, "no gain")


def digits_of(interval: Interval) -> int:
    """Return how many decimals show an interval in points: two, or more where that would be 0.00."""
    largest = 100 * max(map(abs, interval))
    return min(6, max(2, 1 - math.floor(math.log10(largest)))) if largest > 0 else 2


def p_text(p: float) -> str:
    """Return ``0.021``, or ``< 0.001``; with more digits where two do not say on which side of 0.05 it is."""
    digits = next((n for n in range(2, 8) if f"{p:.{n}g}" != "0.05"), 2)
    return "< 0.001" if p < 0.001 else f"{p:.{digits}g}"


def p_said(p: float) -> str:
    """Return ``p = 0.021``, or ``p < 0.001``."""
    return f"p {p_text(p)}" if p < 0.001 else f"p = {p_text(p)}"


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {listed(seeds)}"
