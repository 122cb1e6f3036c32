"""From a grid's runs to what is concluded from: which seeds are whole, and after each look which arms go on."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msbal.ablation.cells import crashed, findings_of, metric_in
from msbal.ablation.grid import Comparison, Grid
from msbal.ablation.plan import listed, looks_of
from msbal.ablation.spec import AblationSpec
from msbal.ablation.statistics.conclude import Study, conclude
from msbal.ablation.statistics.conclusion import Conclusion
from msbal.ablation.statistics.images import SeedsAndImages
from msbal.ablation.statistics.samples import Summary, summarize
from msbal.ablation.statistics.words import name_of, verdict_text

OPEN = ("cannot tell yet", "the same", "unknown")
"""Verdicts that leave a comparison open: further seeds may change them."""


def study_of(
    ablation: AblationSpec,
    grid: Grid,
    summaries: Mapping[str, Summary],
    finished: Mapping[str, Collection[int]],
    failed: Mapping[str, tuple[int, ...]] | None = None,
    images: Mapping[Comparison, SeedsAndImages | None] | None = None,
    smoke: bool = False,
) -> Study:
    """Return what is concluded from.

    Args:
        finished: by arm, the seeds whose run is finished.
        failed: by arm, those whose run has failed.
    """
    unfinished = {
        arm: [seed for seed in grid.seeds if seed not in {*finished[arm], *(failed or {}).get(arm, ())}]
        for arm in grid.arms
    }
    return Study(
        summaries, grid.comparisons, tuple(grid.groups.values()), ablation.gain, looks_of(ablation, grid), images,
        failed, seeds=grid.seeds, unfinished=unfinished, metric=ablation.metric, smoke=smoke,
    )  # fmt: skip


def read_study(ablation: AblationSpec, grid: Grid, seeds: Collection[int]) -> Study:
    """Return what may be concluded from now, from the runs of some seeds."""
    runs: dict[str, dict[int, float | None]] = {arm: {} for arm in grid.arms}
    findings = findings_of(grid)
    for finding in findings:
        cell = finding.cell
        if finding.condition == "finished" and finding.metrics is not None and cell.seed in seeds:
            runs[cell.arm][cell.seed] = metric_in(finding.metrics, ablation.metric)
    summaries = {arm: summarize(values) for arm, values in runs.items()}
    return study_of(ablation, grid, summaries, runs, crashed(grid, findings))


def decide(ablation: AblationSpec, grid: Grid, look: int) -> tuple[set[str], str]:
    """Conclude from the first `look` seeds; return the arms that are needed further, and a line for a person."""
    study = read_study(ablation, grid, grid.seeds[:look])
    conclusions = conclude(study)
    still_open = open_comparisons(conclusions)
    decided = [
        f"{name_of(each, grid.baselines)} ({verdict_text(conclusions[each].verdict, study.gain)})"
        for each in _decided_at(look, conclusions)
    ]
    parts = [f"decided {', '.join(decided)}" if decided else "nothing is decided"]
    names = ", ".join(name_of(each, grid.baselines) for each in still_open)
    last = look == study.looks[-1]
    if still_open:
        parts.append(f"{'left' if last else 'still'} open: {names}")
    elif not last:
        parts.append("nothing is open, so no further seed is run")
    needed = set() if last else {arm for each in still_open for arm in each}
    return needed, f"after {look} seeds{', the last look' if last else ''}: {'; '.join(parts)}"


def course(study: Study, conclusions: Mapping[Comparison, Conclusion], grid: Grid) -> tuple[str, ...]:
    """Return how far the study has come, in sentences: runs to come, seeds left out, what was decided at which look."""
    to_come = sum(len(seeds) for seeds in (study.unfinished or {}).values())
    if study.sequential and not conclusions:
        return ()
    if not study.sequential:
        if not to_come:
            return ()
        said = f"{to_come} of {len(grid)} runs {'is' if to_come == 1 else 'are'} neither finished nor failed."
        begun = set().union(*(summary.values for summary in study.summaries.values()))
        if left := [seed for seed in study.partial if seed in begun]:
            several = len(left) > 1
            said += (
                f" Seed{'s' * several} {listed(left)} {'are' if several else 'is'} left out of the conclusions until "
                "every arm has run."
            )
        return (said,)
    decided = []
    for look in study.looks:
        if names := [name_of(each, grid.baselines) for each in _decided_at(look, conclusions)]:
            decided.append(f"after {look} seeds: {', '.join(names)}")
    nothing = "Nothing is decided yet." if to_come else "Nothing was decided."
    said = f"Decided {'; '.join(decided)}." if decided else nothing
    if still_open := [name_of(each, grid.baselines) for each in open_comparisons(conclusions)]:
        said += f" Open: {', '.join(still_open)}."
    elif to_come:
        said += f" {to_come} of {len(grid)} runs {'was' if to_come == 1 else 'were'} not needed."
    return (said,)


def open_comparisons(conclusions: Mapping[Comparison, Conclusion]) -> list[Comparison]:
    """Return the comparisons that further seeds may decide."""
    return [each for each, conclusion in conclusions.items() if conclusion.verdict in OPEN]


def _decided_at(look: int, conclusions: Mapping[Comparison, Conclusion]) -> list[Comparison]:
    return [
        each
        for each, conclusion in conclusions.items()
        if conclusion.tested is not None and conclusion.tested.look == look and conclusion.verdict not in OPEN
    ]
