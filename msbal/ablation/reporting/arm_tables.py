"""The tables that every ablation has: the comparison, the metrics by object size, the weights, all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msbal.ablation.cells import metric_in
from msbal.ablation.collect import Outcomes
from msbal.ablation.grid import Comparison, Grid
from msbal.ablation.statistics.conclude import Study
from msbal.ablation.statistics.conclusion import Conclusion
from msbal.ablation.statistics.detectors import OverGroups
from msbal.ablation.statistics.samples import Summary, pair, summarize
from msbal.ablation.statistics.words import (
    BY_INNER,
    by_inner,
    digits_of,
    method_text,
    name_of,
    p_text,
    scope_of,
    tone,
    verdict_text,
)
from msbal.evaluation.bootstrap import ALL_METRICS
from msbal.metric_text import full_name, mean_and_sd, points, signed, span
from msbal.plotting.series import merge_names
from msbal.table import Cell, Column, Table, columns

SIZES = ("AP_S", "AP_M", "AP_L")


def comparison_table(
    grid: Grid, study: Study, conclusions: Mapping[Comparison, Conclusion], notes: tuple[str, ...] = ()
) -> Table:
    """Return the mean, spread and verdict of each arm in the one metric; a block for each baseline, then contrasts.

    Means are over the pairs: that of an arm with seeds that its baseline lacks would mislead.

    Args:
        notes: to stand below the table's own.
    """
    metric, images = study.metric, any(each.images is not None for each in conclusions.values())
    needed = any(each.seeds_needed is not None for each in conclusions.values())
    header = [
        *columns("arm", "pairs"),
        Column(full_name(metric), csv=(metric,)),
        Column("sd", csv=(f"{metric}_sd",)),
        Column("difference"),
        Column("95 % interval", csv=("low", "high", "low_uncorrected", "high_uncorrected")),
        Column("p", csv=("p", "p_uncorrected")),
        *([Column("seeds and images", csv=("images_low", "images_high"))] if images else []),
        *([Column("share of seeds")] if images else []),
        *([Column("seeds needed")] if needed else []),
        Column("verdict", text=True),
    ]
    arms, rules = _blocks(grid)
    rows = []
    for arm in arms:
        if arm in grid.groups:
            summary = study.summaries[arm]
            row = [arm, str(summary.n), points(summary.mean), points(summary.sd)]
            rows.append((*row, *["-"] * (len(header) - len(row) - 1), "baseline"))
        else:
            rows.append(
                _compared(conclusions[Comparison(arm, grid.baselines[arm])], grid, study, images, needed)
            )
    rules += (len(rows),) * bool(grid.contrasts)
    rows += [_compared(conclusions[each], grid, study, images, needed) for each in grid.contrasts]
    notes = (
        *method_text(conclusions, study),
        "Seeds and images: the 95 % interval with the noise of both; the seeds have their share of the variance, the "
        "images the rest."
        if images
        else "",
        "Seeds needed: to answer, at the noise seen here, four of five questions of this kind."
        if needed
        else "",
        f"The means of an arm are over its pairs, {_means_of_baselines(grid)} over all runs."
        if len({each.paired.n for each in conclusions.values()} | {study.summaries[b].n for b in grid.groups})
        > 1
        else "",
        *notes,
    )
    one = f"Each arm against {grid.baseline}"
    title = one if len(grid.groups) == 1 else "Each arm against its baseline, the first of its block"
    return Table(f"{title}, in points", tuple(header), tuple(rows), tuple(filter(None, notes)), rules)


def over_table(found: Sequence[OverGroups], gain: float) -> Table:
    """Return each treatment's mean difference over the groups that have it."""
    header = (
        Column("change", text=True),
        Column("groups"),
        Column("difference"),
        Column("95 % interval", csv=("low", "high")),
        Column("p"),
        Column("better in"),
        Column("others like these", csv=("others_low", "others_high")),
        Column("verdict", text=True),
    )
    rows = []
    for each in found:
        tested = each.tested
        digits = 2 if tested is None else digits_of(tested.interval)
        rows.append(
            (
                each.treatment.name,
                str(len(each.means)),
                signed(None if tested is None else tested.mean, digits),
                span(None, None) if tested is None else span(*tested.interval, digits),
                "-" if tested is None else Cell(p_text(tested.p), values=(tested.p,)),
                str(each.better_in),
                span(None, None) if each.others is None else span(*each.others),
                Cell(verdict_text(each.verdict, gain), tone(each.verdict)),
            )
        )
    notes = (
        "The mean over the groups, each with its own baseline; p and the interval are Welch's, with the noise of the "
        "seeds, corrected for the number of changes.",
        BY_INNER if any(by_inner(each, gain) for each in found) else "",
        "Others like these: Student's t interval over the groups, if they are a sample of such groups; uncorrected."
        if any(each.others for each in found)
        else "",
    )
    over = found[0].treatment.over
    return Table(f"Over all {over}, in points", header, tuple(rows), tuple(filter(None, notes)))


def sizes_table(grid: Grid, outcomes: Outcomes) -> Table:
    """Return the metrics by object size."""
    measured = {
        metric: {arm: summarize(values) for arm, values in outcomes.values(metric).items()}
        for metric in ("AP", *SIZES)
    }
    arms, rules = _blocks(grid)
    rows = []
    for arm in arms:
        base = grid.baselines[arm]
        row = [arm, _mean_and_sd(measured["AP"][arm])]
        for metric in SIZES:
            difference = None if arm == base else pair(measured[metric][base], measured[metric][arm]).mean
            row += [_mean_and_sd(measured[metric][arm]), signed(difference)]
        rows.append(tuple(row))
    header = [Column("arm", text=True), Column("AP", csv=("AP", "AP_sd"))]
    for metric in SIZES:
        header += [Column("", metric, csv=(metric, f"{metric}_sd")), Column("difference", metric)]
    return Table(
        "By object size, in points",
        tuple(header),
        tuple(rows),
        (
            "Mean ± standard deviation over the seeds. These differences are not tested: the verdict is on one "
            "metric, chosen beforehand.",
        ),
        rules,
    )


def weights_table(grid: Grid, outcomes: Outcomes) -> Table | None:
    """Return each level's mean weight and how often each action was chosen; None where no run has records."""
    levels = merge_names([list(weights) for weights in outcomes.weights.values()])
    actions = list(dict.fromkeys(name for shares in outcomes.chosen.values() for name in shares))
    if not levels:
        return None
    arms, rules = _blocks(grid)
    rows = []
    for arm in arms:
        weights, shares = outcomes.weights.get(arm, {}), outcomes.chosen.get(arm, {})
        row = [
            *(Cell(f"{weights[k]:.3f}", values=(weights[k],)) if k in weights else "-" for k in levels),
            *(Cell(f"{shares[a]:.0%}", values=(shares[a],)) if a in shares else "-" for a in actions),
        ]
        rows.append((arm, *row))
    header = (
        Column("arm", text=True),
        *(Column(level, "mean weight", csv=(f"weight_{level}",)) for level in levels),
        *(Column(action, "chosen", csv=(f"chosen_{action}",)) for action in actions),
    )
    notes = (
        "Over all intervals and seeds, as they were in force: in a run's first interval all weights are 1, and what "
        "is decided at its very end is not counted.",
        *(["Chosen: the share of the decisions that were in force."] if actions else []),
    )
    return Table("Weights of the levels", header, tuple(rows), notes, rules)


def runs_table(grid: Grid, outcomes: Outcomes) -> Table:
    """Return every finished run's metrics."""
    rows = [
        (arm, str(seed), *(points(metric_in(found, name)) for name in ALL_METRICS))
        for arm in grid.arms
        for seed, found in outcomes.metrics[arm].items()
    ]
    header = [*columns("arm", "seed"), *(Column(full_name(name), csv=(name,)) for name in ALL_METRICS)]
    return Table("All runs, in points", tuple(header), tuple(rows))


def _compared(found: Conclusion, grid: Grid, study: Study, images: bool, needed: bool) -> tuple[str, ...]:
    """Return the row of one comparison.

    Args:
        images, needed: whether the table has the columns of the images' noise, and of the seeds needed.
    """
    paired, tested, both = found.paired, found.tested, found.images
    values = study.summaries[found.comparison.arm].values
    mine = summarize({seed: values[seed] for seed in paired.differences})
    digits = 2 if tested is None else digits_of(tested.interval)
    interval = span(None, None) if tested is None else span(*tested.interval, digits)
    plain = span(paired.low, paired.high).values
    row = [
        name_of(found.comparison, grid.baselines),
        str(paired.n),
        points(mine.mean),
        points(mine.sd),
        signed(paired.mean, digits),
        Cell(interval, values=(*interval.values, *plain)),
        Cell(
            "-" if tested is None else p_text(tested.p),
            values=(None if tested is None else tested.p, paired.p),
        ),
    ]
    if images:
        row += ["-", "-"] if both is None else [span(both.low, both.high), _share(both.seeds)]
    if needed:
        row.append("-" if found.seeds_needed is None else str(found.seeds_needed))
    return (*row, verdict_cell(found, study.gain))


def verdict_cell(found: Conclusion, gain: float) -> Cell:
    """Return the verdict with its tone."""
    return Cell(verdict_text(found.verdict, gain, scope_of(found, gain)), tone(found.verdict))


def _share(share: float) -> Cell:
    return Cell(f"{100 * share:.0f} %", values=(share,))


def _means_of_baselines(grid: Grid) -> str:
    return f"that of {grid.baseline} is" if len(grid.groups) == 1 else "those of the baselines are"


def _mean_and_sd(summary: Summary) -> Cell:
    return mean_and_sd(summary.mean, summary.sd)


def _blocks(grid: Grid) -> tuple[list[str], tuple[int, ...]]:
    """Return the arms, each after its baseline where there are several, and where blocks begin after the first."""
    if len(grid.groups) == 1:
        return list(grid.arms), ()
    arms = [arm for block in grid.groups.values() for arm in block]
    return arms, tuple(n for n, arm in enumerate(arms) if n and arm in grid.groups)
