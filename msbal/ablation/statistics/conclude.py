"""From metrics by arm and seed to a conclusion on every planned comparison."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from msbal.ablation.grid import Comparison
from msbal.ablation.statistics.conclusion import Conclusion, Method, Reason, Tested, Verdict, verdict
from msbal.ablation.statistics.images import SeedsAndImages
from msbal.ablation.statistics.paired import paired_tests
from msbal.ablation.statistics.power import seeds_needed
from msbal.ablation.statistics.samples import EXACT, Paired, Summary, pair, summarize
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
        seeds: all that are planned, in their order.
        unfinished: by arm, the seeds whose run is neither finished nor failed.
        metric: its name.
        smoke: the runs were shrunk to see whether everything works: nothing is concluded.
    """

    summaries: Mapping[str, Summary]
    comparisons: Sequence[Comparison]
    groups: Sequence[Sequence[str]]
    gain: float
    looks: Sequence[int] = ()
    images: Mapping[Comparison, SeedsAndImages | None] | None = None
    crashed: Mapping[str, tuple[int, ...]] | None = None
    level: float = 0.05
    seeds: Sequence[int] = ()
    unfinished: Mapping[str, Sequence[int]] | None = None
    metric: str = "AP"
    smoke: bool = False

    @property
    def sequential(self) -> bool:
        """Whether the results are looked at more than once."""
        return len(self.looks) > 1

    @property
    def partial(self) -> tuple[int, ...]:
        """Seeds left out because some arm's run is still to come: which arms are ready first may be no accident."""
        if self.sequential:  # there the arms of a look are complete
            return ()
        open_seeds = set().union(*(self.unfinished or {}).values())
        return tuple(seed for seed in self.seeds if seed in open_seeds)

    def only(self, seeds: Collection[int]) -> Study:
        """Return the study as if only these seeds had run."""
        kept = {
            arm: summarize({seed: value for seed, value in summary.values.items() if seed in seeds})
            for arm, summary in self.summaries.items()
        }
        return replace(self, summaries=kept)


def conclude(study: Study) -> dict[Comparison, Conclusion]:
    """Return the conclusion on every planned comparison."""
    if study.partial:
        study = study.only(set().union(*(s.values for s in study.summaries.values())) - set(study.partial))
    summaries, level = study.summaries, study.level
    pairs, blank = _pairs(study)
    method, tests, of_looks = _tests(study, pairs)
    pairs |= of_looks
    found = {}
    for each, paired in pairs.items():
        tested = None if each in blank else tests.get(each)
        said: Verdict = "unknown" if tested is None else verdict(tested, study.gain, level)
        needed = None
        if tested is not None and tested.sd > EXACT and said in ("cannot tell yet", "no gain"):
            needed = seeds_needed(study.gain, tested.sd, len(pairs), level)
        reason = _reason(paired, each in blank)
        if study.sequential and tested is None and reason is None and not paired.identical:
            reason = "no look"
        if study.smoke:
            reason = "smoke run"
        if paired.identical and reason is None:
            said, tested = "the same", None
        elif reason is not None:
            said, tested = "unknown", None
        # A decided arm has no runs after its look, and they are not missing.
        seen = (
            study.seeds[: tested.look]
            if tested and tested.look
            else {*summaries[each.arm].values, *summaries[each.to].values}
        )
        conclusion = Conclusion(
            each, paired, tested, method, said, (study.images or {}).get(each), needed,
            sum(d > EXACT for d in paired.differences.values()),
            {arm: seeds for arm, seeds in (study.crashed or {}).items() if arm in each and seeds},
            tuple(sorted((set(summaries[each.arm].values) ^ set(summaries[each.to].values)) & set(seen))),
            {}, "", reason,
        )  # fmt: skip
        found[each] = replace(conclusion, words=sentence(conclusion, study))
    return found


def _pairs(study: Study) -> tuple[dict[Comparison, Paired], set[Comparison]]:
    """Return the pairs of every comparison, and the comparisons of which all metrics are 0."""
    summaries = study.summaries
    pairs = {
        each: pair(summaries[each.to], summaries[each.arm], 1 - study.level) for each in study.comparisons
    }
    # Metrics that are 0 on all runs of the baseline do not show agreement: none has learned enough to compare.
    blank = {each for each in pairs if _blank(summaries[each.to])}
    pairs |= {each: replace(pairs[each], low=None, high=None, p=None) for each in blank}
    return pairs, blank


def _tests(
    study: Study, pairs: Mapping[Comparison, Paired]
) -> tuple[Method, Mapping[Comparison, Tested], Mapping[Comparison, Paired]]:
    """Return what the verdicts rest on, and the pairs of the comparisons that rest on fewer than all."""
    if not study.sequential:
        return "paired", paired_tests(pairs, study.level), {}
    from msbal.ablation.statistics.sequential import sequential_tests

    at_looks: dict[int, dict[Comparison, Paired]] = {}
    for look in study.looks:
        first = set(study.seeds[:look])
        found, _ = _pairs(study.only(first))
        at_looks[look] = {
            each: found[each]
            for each in found
            if not any(first & set((study.unfinished or {}).get(arm, ())) for arm in each)
        }
    tests = sequential_tests(at_looks, study.comparisons, study.looks, study.gain, study.level)
    of_looks = {each: at_looks[tested.look][each] for each, tested in tests.items() if tested.look}
    return "sequential", tests, of_looks


def _reason(paired: Paired, blank: bool) -> Reason | None:
    if paired.n < 2:
        return "one pair" if paired.n else "no pair"
    if blank:
        return "nothing learned"
    return "no noise" if paired.p is None else None


def _blank(baseline: Summary) -> bool:
    return bool(baseline.values) and not any(baseline.values.values())
