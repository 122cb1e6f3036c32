"""One line over several models or data sets: the mean difference of a treatment that each of them has.

An ablation whose baselines make groups, as the paper's Table 2 with six detectors, asks two questions: does RLO help
this detector, and does it help detectors? The second has the runs of all groups to go by.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from msbal.ablation.grid import Comparison, Treatment
from msbal.ablation.statistics.conclusion import Conclusion, Tested, Verdict, verdict
from msbal.ablation.statistics.intervals import Interval, around
from msbal.ablation.statistics.paired import beyond_zero, holm
from msbal.ablation.statistics.samples import EXACT, Paired
from msbal.ablation.statistics.words import by_inner, clause, digits_of, p_said
from msbal.metric_text import signed, span


@dataclass(frozen=True)
class OverGroups:
    """One treatment over all groups that have it. 0..1.

    Attributes:
        means: by comparison, the mean difference over its pairs.
        missing: the comparisons that have no two pairs, or none that show noise; they are left out.
        tested: of the mean over these groups, with the noise of the seeds alone, corrected for all treatments; None
            where fewer than two groups can be used, or no noise is seen.
        others: the 95 % interval for groups like these, of which these are a sample: Student's t over the groups'
            means, uncorrected. None for fewer than three groups.
        better_in: the number of groups whose mean difference is above zero.
        words: all of it in one or two sentences.
    """

    treatment: Treatment
    means: Mapping[Comparison, float]
    missing: tuple[Comparison, ...]
    tested: Tested | None
    verdict: Verdict
    others: Interval | None
    better_in: int
    words: str


def over_groups(
    treatments: tuple[Treatment, ...],
    conclusions: Mapping[Comparison, Conclusion],
    gain: float,
    looks: int = 1,
    level: float = 0.05,
) -> tuple[OverGroups, ...]:
    """Return the mean difference of each treatment over its groups.

    Args:
        looks: how often the results are looked at; Bonferroni counts each look.
    """
    looks = max(1, looks)
    pairs = {
        each: {
            comparison: conclusions[comparison].paired
            for comparison in each.comparisons
            if _usable(conclusions[comparison].paired)
        }
        for each in treatments
    }
    noise = {each: _noise(found) for each, found in pairs.items()}
    p_values = [_p(pairs[each], noise[each], looks) for each in treatments]
    return tuple(
        _over(each, pairs[each], noise[each], p, gain, len(treatments) * looks, level)
        for each, p in zip(treatments, holm(p_values), strict=True)
    )


def _usable(paired: Paired) -> bool:
    return paired.n >= 2 and paired.p is not None


def _noise(pairs: Mapping[Comparison, Paired]) -> tuple[float, float] | None:
    """Return the standard error of the mean over groups, and its degrees of freedom.

    Groups share no weights, so their noise is independent, and the variances add (Welch, "The generalization of
    Student's problem when several different population variances are involved", 1947). Runs of one seed do share their
    data order, however, in all groups: the error is at least that of the seeds' means over the groups.
    """
    found = [(paired.sd or 0.0) ** 2 / paired.n for paired in pairs.values()]
    if len(pairs) < 2 or sum(found) <= EXACT**2:
        return None
    degrees = sum(found) ** 2 / sum(
        v**2 / (paired.n - 1) for v, paired in zip(found, pairs.values(), strict=True)
    )
    variance = sum(found) / len(pairs) ** 2
    common = set.intersection(*(set(paired.differences) for paired in pairs.values()))
    if len(common) > 1:
        of_seeds = [
            statistics.fmean(paired.differences[seed] for paired in pairs.values()) for seed in common
        ]
        variance = max(variance, statistics.variance(of_seeds) / len(common))
    return math.sqrt(variance), degrees


def _mean(pairs: Mapping[Comparison, Paired]) -> float:
    return statistics.fmean(paired.mean or 0.0 for paired in pairs.values())


def _p(pairs: Mapping[Comparison, Paired], noise: tuple[float, float] | None, looks: int) -> float | None:
    if noise is None:
        return None
    error, degrees = noise
    return min(1.0, looks * float(2 * stats.t.sf(abs(_mean(pairs)) / error, degrees)))


def _over(
    treatment: Treatment,
    pairs: Mapping[Comparison, Paired],
    noise: tuple[float, float] | None,
    p: float | None,
    gain: float,
    tests: int,
    level: float,
) -> OverGroups:
    means = {each: paired.mean or 0.0 for each, paired in pairs.items()}
    missing = tuple(each for each in treatment.comparisons if each not in pairs)
    others = None
    if len(means) > 2 and np.ptp(list(means.values())) > EXACT:
        bounds = stats.ttest_1samp(list(means.values()), 0.0).confidence_interval(0.95)
        others = float(bounds.low), float(bounds.high)
    tested = None
    if noise is not None and p is not None:
        (error, degrees), mean = noise, _mean(pairs)

        def interval(tail: float) -> Interval:
            reach = float(stats.t.isf(tail / tests, degrees)) * error
            return around(mean, reach)

        sd = math.sqrt(statistics.fmean((paired.sd or 0.0) ** 2 for paired in pairs.values()))
        tested = beyond_zero(Tested(mean, sd, degrees, p, interval(level / 2), interval(level)), level)
    found = OverGroups(
        treatment, means, missing, tested,
        "unknown" if tested is None else verdict(tested, gain, level),
        others, sum(mean > EXACT for mean in means.values()), "",
    )  # fmt: skip
    return replace(found, words=_sentences(found, gain))


def _sentences(found: OverGroups, gain: float) -> str:
    treatment, tested, used = found.treatment, found.tested, len(found.means)
    name, of = treatment.name, treatment.over
    if tested is None:
        return (
            f"Over all {of}, nothing can be concluded about {name}: that takes two of them with two seeds each, and "
            "noise to measure by."
        )
    all_of = f"{used} of {len(treatment.comparisons)}" if found.missing else f"all {used}"
    inner, digits = by_inner(found, gain), digits_of(tested.interval)
    ends = span(*(tested.inner if inner else tested.interval), digits)
    text = (
        f"Over {all_of} {of}, {clause(found.verdict, '', gain, [name], 'the baselines')}. The mean difference is "
        f"{signed(tested.mean, digits)} points ({90 if inner else 95} % interval {ends}, {p_said(tested.p)}); {name} "
        f"is better in {found.better_in} of {used}."
    )
    if found.others is None:
        return text
    return f"{text} For other {of} like these the 95 % interval is {span(*found.others)}."
