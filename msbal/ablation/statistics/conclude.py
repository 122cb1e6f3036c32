"""From metrics by arm and seed to a conclusion on every planned comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from msbal.ablation.grid import Comparison
from msbal.ablation.statistics.conclusion import Conclusion, Method, Reason, Tested, Verdict, verdict
from msbal.ablation.statistics.images import SeedsAndImages
from msbal.ablation.statistics.paired import paired_tests
from msbal.ablation.statistics.power import seeds_needed
from msbal.ablation.statistics.samples import EXACT, Paired, Summary, pair
from msbal.ablation.statistics.words import sentence


@dataclass(frozen=True)
class Study:
    """What is concluded from.

    Attributes:
        summaries: one metric, by arm.
        comparisons: all that are planned, finished or not.
        groups: the arms that share a baseline, itself first: their runs of one seed are a block.
        gain: the smallest difference that matters.
        looks: the numbers of seeds after which the results are looked at; one, unless the ablation is sequential.
        images: by comparison, the interval over seeds and images.
        crashed: by arm, the seeds whose run failed.
    """

    summaries: Mapping[str, Summary]
    comparisons: Sequence[Comparison]
    groups: Sequence[Sequence[str]]
    gain: float
    looks: Sequence[int] = ()
    images: Mapping[Comparison, SeedsAndImages | None] | None = None
    crashed: Mapping[str, tuple[int, ...]] | None = None
    level: float = 0.05


def conclude(study: Study) -> dict[Comparison, Conclusion]:
    """Return the conclusion on every planned comparison."""
    summaries, level = study.summaries, study.level
    pairs = {each: pair(summaries[each.to], summaries[each.arm], 1 - level) for each in study.comparisons}
    # Metrics that are 0 on all runs of the baseline do not show agreement: none has learned enough to compare.
    blank = {each for each in pairs if _blank(summaries[each.to])}
    pairs |= {each: replace(pairs[each], low=None, high=None, p=None) for each in blank}
    method, tests = _tests(study, pairs)
    found = {}
    for each, paired in pairs.items():
        tested = None if each in blank else tests.get(each)
        said: Verdict = "unknown" if tested is None else verdict(tested, study.gain, level)
        needed = None
        if tested is not None and tested.sd > EXACT and said in ("cannot tell yet", "no gain"):
            needed = seeds_needed(study.gain, tested.sd, len(pairs), level)
        reason = _reason(paired, each in blank)
        if paired.identical and reason is None:
            said, tested = "the same", None
        elif reason is not None:
            said, tested = "unknown", None
        conclusion = Conclusion(
            each, paired, tested, method, said, (study.images or {}).get(each), needed,
            sum(d > EXACT for d in paired.differences.values()),
            {arm: seeds for arm, seeds in (study.crashed or {}).items() if arm in each and seeds},
            tuple(sorted(set(summaries[each.arm].values) ^ set(summaries[each.to].values))),
            {}, "", reason,
        )  # fmt: skip
        found[each] = replace(conclusion, words=sentence(conclusion, study, each in blank))
    return found


def _tests(study: Study, pairs: Mapping[Comparison, Paired]) -> tuple[Method, Mapping[Comparison, Tested]]:
    return "paired", paired_tests(pairs, study.level)


def _reason(paired: Paired, blank: bool) -> Reason | None:
    if paired.n < 2:
        return "one pair" if paired.n else "no pair"
    if blank:
        return "nothing learned"
    return "no noise" if paired.p is None else None


def _blank(baseline: Summary) -> bool:
    return bool(baseline.values) and not any(baseline.values.values())
