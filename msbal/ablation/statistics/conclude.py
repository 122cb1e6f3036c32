"""From metrics by arm and seed to a conclusion on every planned comparison."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from msbal.ablation.grid import Comparison
from msbal.ablation.statistics.blocks import Blocks, make_blocks
from msbal.ablation.statistics.conclusion import Conclusion, Method, Reason, Tested, Verdict, verdict
from msbal.ablation.statistics.images import SeedsAndImages
from msbal.ablation.statistics.odd import odd_runs
from msbal.ablation.statistics.paired import paired_tests, single_step
from msbal.ablation.statistics.power import noise_interval, seeds_to_tell
from msbal.ablation.statistics.samples import EXACT, Paired, Summary, pair, summarize
from msbal.ablation.statistics.shared import shared_tests
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
    blocks = make_blocks(summaries, study.groups)
    found_tests = _tests(study, pairs, blocks)
    pairs |= found_tests.of_looks
    odd = odd_runs(blocks)
    found = {}
    for each, paired in pairs.items():
        tested, reason = found_tests.tests.get(each), _reason(paired, each in blank)
        if study.sequential and tested is None and reason is None and not paired.identical:
            reason = "no look"
        if study.smoke:
            reason = "smoke run"
        said: Verdict = "unknown"
        if reason is None and paired.identical:
            said = "the same"
        elif reason is None and tested is not None:
            said = verdict(tested, study.gain, level)
        if said in ("the same", "unknown"):
            tested = None
        needed, ends = (None, None) if tested is None else _needed(tested, said, paired.n, study)
        images = (study.images or {}).get(each)
        if images is not None and tested is not None:
            images = images.beside(tested, paired.n, len(pairs), level)
        far = {
            arm: seeds
            for arm in each
            if (seeds := tuple(seed for seed in odd.get(arm, ()) if seed in paired.differences))
        }
        rest = [
            d for seed, d in paired.differences.items() if not any(seed in seeds for seeds in far.values())
        ]
        conclusion = Conclusion(
            each, paired, tested, found_tests.methods.get(each, "paired"), said, images, needed,
            sum(d > EXACT for d in paired.differences.values()),
            {arm: seeds for arm, seeds in (study.crashed or {}).items() if arm in each and seeds},
            _unpaired(study, each, tested),
            far, "", reason, ends, found_tests.agrees.get(each),
            statistics.fmean(rest) if far and rest else None,
        )  # fmt: skip
        found[each] = replace(conclusion, words=sentence(conclusion, study))
    return found


def _unpaired(study: Study, each: Comparison, tested: Tested | None) -> tuple[int, ...]:
    """Return the seeds that only one of two arms has. A decided arm has none after its look, and misses none."""
    ours, theirs = (set(study.summaries[arm].values) for arm in each)
    last = tested.look if tested is not None else None
    later = set(study.seeds[last:]) if last is not None else set()
    return tuple(sorted((ours ^ theirs) - later))


def _needed(
    tested: Tested, said: Verdict, done: int, study: Study
) -> tuple[int | None, tuple[int | None, int | None] | None]:
    """Return how many seeds will tell what is open, and the same at the two ends of the noise's interval."""
    decided = tested.look is not None and said == "no gain"  # no further look would be taken
    if decided or said not in ("cannot tell yet", "no gain"):
        return None, None
    seen = (
        tested.mean if said == "cannot tell yet" else -tested.mean
    )  # whether there is a gain, or else a loss

    def at(sd: float) -> int | None:
        rows = tested.degrees / (done - 1)
        return seeds_to_tell(study.gain, sd, seen, done, len(study.comparisons), rows, study.level)

    low, high = noise_interval(tested.sd, tested.degrees)
    return at(tested.sd), (at(low), at(high))


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


class _Tests(NamedTuple):
    """What the verdicts rest on.

    Attributes:
        methods: by comparison; "paired" where it is missing.
        of_looks: the pairs of the comparisons that rest on fewer than all.
        agrees: p of the check that the arms' noise is equal, by comparison.
    """

    tests: Mapping[Comparison, Tested]
    methods: Mapping[Comparison, Method]
    of_looks: Mapping[Comparison, Paired]
    agrees: Mapping[Comparison, float]


def _tests(study: Study, pairs: Mapping[Comparison, Paired], blocks: Blocks) -> _Tests:
    """Share the noise of all arms where several comparisons can and the check does not speak against it."""
    if study.sequential:
        return _sequential_tests(study)
    shared = shared_tests(pairs, blocks, study.level)
    if shared is None:
        return _Tests(paired_tests(pairs, study.level), {}, {}, {})
    agrees = dict.fromkeys(shared.tests, shared.agrees)
    if not shared.allowed:
        return _Tests(paired_tests(pairs, study.level), {}, {}, agrees)
    alone = {
        each: tested
        for each, paired in pairs.items()
        if each not in shared.tests and (tested := single_step(paired, len(pairs), study.level)) is not None
    }
    return _Tests(shared.tests | alone, dict.fromkeys(shared.tests, "shared"), {}, agrees)


def _sequential_tests(study: Study) -> _Tests:
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
    return _Tests(tests, dict.fromkeys(study.comparisons, "sequential"), of_looks, {})


def _reason(paired: Paired, blank: bool) -> Reason | None:
    if paired.n < 2:
        return "one pair" if paired.n else "no pair"
    if blank:
        return "nothing learned"
    return "no noise" if paired.p is None else None


def _blank(baseline: Summary) -> bool:
    return bool(baseline.values) and not any(baseline.values.values())
