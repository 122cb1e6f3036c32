"""The tables that every ablation has: the comparison, the metrics by object size, the weights, all runs."""

from __future__ import annotations

from collections.abc import Mapping

from msbal.ablation.cells import metric_in
from msbal.ablation.collect import Outcomes
from msbal.ablation.grid import Comparison, Grid
from msbal.ablation.statistics.conclusion import Conclusion
from msbal.ablation.statistics.images import SeedsAndImages
from msbal.ablation.statistics.samples import Summary, pair, summarize
from msbal.ablation.statistics.words import verdict_text
from msbal.evaluation.bootstrap import ALL_METRICS
from msbal.metric_text import full_name, mean_and_sd, points, signed, span
from msbal.plotting.series import merge_names
from msbal.table import Cell, Column, Table, columns

SIZES = ("AP_S", "AP_M", "AP_L")


def comparison_table(
    metric: str,
    grid: Grid,
    summaries: Mapping[str, Summary],
    conclusions: Mapping[Comparison, Conclusion],
    gain: float,
    notes: tuple[str, ...],
) -> Table:
    """Return the mean, spread and verdict of each arm in the one metric; a block for each baseline.

    Args:
        gain: what `seeds_needed` is for, 0..1.
        notes: to stand below the table's own.
    """
    boot = any(conclusion.images is not None for conclusion in conclusions.values())
    header = [
        *columns("arm", "n"),
        Column(full_name(metric), csv=(metric,)),
        Column("sd", csv=(f"{metric}_sd",)),
        Column("difference"),
        Column("95 % interval", csv=("low", "high")),
        Column("p (Holm)", csv=("p_holm",)),
        *([Column("seeds and images", csv=("images_low", "images_high"))] if boot else []),
        Column("seeds needed"),
        Column("verdict", text=True),
    ]
    arms, rules = _blocks(grid)
    rows = []
    for arm in arms:
        summary, found = summaries[arm], conclusions.get(Comparison(arm, grid.baselines[arm]))
        row = [arm, str(summary.n), points(summary.mean), points(summary.sd)]
        if found is None:
            row += ["-"] * (len(header) - len(row) - 1) + ["baseline"]
        else:
            row += [
                signed(found.paired.mean),
                span(found.paired.low, found.paired.high),
                "-" if found.tested is None else Cell(f"{found.tested.p:.2g}", values=(found.tested.p,)),
                *([_span_of(found.images)] if boot else []),
                "-" if found.seeds_needed is None else str(found.seeds_needed),
                Cell(verdict_text(found.verdict, gain), found.verdict),
            ]
        rows.append(tuple(row))
    notes = (
        "Differences are paired by seed; their interval is Student's t over the seeds, p is two-sided and "
        "corrected for the number of comparisons (Holm).",
        "The interval over seeds and images draws both anew (bootstrap); with few seeds it is too narrow."
        if boot
        else "",
        f"Seeds needed: to see a gain of {100 * gain:g} points in four of five such ablations."
        if any(conclusion.seeds_needed is not None for conclusion in conclusions.values())
        else "",
        *notes,
    )
    one = f"Each arm against {grid.baseline}"
    title = one if len(grid.groups) == 1 else "Each arm against its baseline, the first of its block"
    return Table(f"{title}, in points", tuple(header), tuple(rows), tuple(filter(None, notes)), rules)


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


def _span_of(images: SeedsAndImages | None) -> Cell:
    return span(None, None) if images is None else span(images.low, images.high)


def _mean_and_sd(summary: Summary) -> Cell:
    return mean_and_sd(summary.mean, summary.sd)


def _blocks(grid: Grid) -> tuple[list[str], tuple[int, ...]]:
    """Return the arms, each after its baseline where there are several, and where blocks begin after the first."""
    if len(grid.groups) == 1:
        return list(grid.arms), ()
    arms = [arm for block in grid.groups.values() for arm in block]
    return arms, tuple(n for n, arm in enumerate(arms) if n and arm in grid.groups)
