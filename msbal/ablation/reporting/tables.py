"""The tables that every ablation has: the comparison, the metrics by object size, all runs."""

from __future__ import annotations

from collections.abc import Mapping

from msbal.ablation.cells import metric_in
from msbal.ablation.collect import Outcomes
from msbal.ablation.grid import Grid
from msbal.ablation.reporting.numbers import mean_and_sd, points, signed, span
from msbal.ablation.reporting.spanned import SpannedTable
from msbal.ablation.statistics import Conclusion, Summary, pair, summarize
from msbal.evaluation.bootstrap import ALL_METRICS
from msbal.evaluation.tables import FULL_NAMES, Table
from msbal.plotting.series import merge_names

SIZES = ("AP", "AP_S", "AP_M", "AP_L")


def comparison(
    metric: str,
    grid: Grid,
    summaries: Mapping[str, Summary],
    conclusions: Mapping[str, Conclusion],
    gain: float,
    notes: tuple[str, ...],
) -> Table:
    """Mean, spread and verdict of each arm in the one metric; a block for each baseline.

    Args:
        gain: that `seeds_needed` is for, 0..1.
    """
    boot = any(conclusion.images is not None for conclusion in conclusions.values())
    header = [
        "arm", "n", f"{FULL_NAMES.get(metric, metric)}, %", "sd", "difference", "95 % interval", "p (Holm)",
        *(["seeds and images"] if boot else []), "seeds needed", "verdict",
    ]  # fmt: skip
    rows: list[tuple[str, ...]] = []
    rules: list[int] = []
    for arm, first in _in_blocks(grid):
        if first:
            rules.append(len(rows))
        summary, found = summaries[arm], conclusions.get(arm)
        row = [arm, str(summary.n), points(summary.mean), points(summary.sd)]
        if found is None:
            row += ["-"] * (len(header) - len(row) - 1) + ["baseline"]
        else:
            row += [
                signed(found.paired.mean),
                span(found.paired.low, found.paired.high),
                "-" if found.p is None else f"{found.p:.2g}",
                *([span(*(found.images or (None, None)))] if boot else []),
                "-" if found.seeds_needed is None else str(found.seeds_needed),
                found.verdict,
            ]
        rows.append(tuple(row))
    several = len(grid.groups) > 1
    return SpannedTable(
        "Each arm against its baseline, the first of its block"
        if several
        else f"Each arm against {grid.baseline}",
        tuple(header),
        tuple(rows),
        (
            "Differences are paired by seed; their interval is Student's t over the seeds, p is two-sided and "
            "corrected for the number of comparisons (Holm).",
            *(
                (
                    "The interval over seeds and images draws both anew (bootstrap); with few seeds it is too narrow.",
                )
                if boot
                else ()
            ),
            *(
                (f"Seeds needed: to see a gain of {100 * gain:g} points in four of five such ablations.",)
                if any(conclusion.seeds_needed is not None for conclusion in conclusions.values())
                else ()
            ),
            *notes,
        ),
        rules=tuple(rules),
    )


def sizes(grid: Grid, outcomes: Outcomes) -> Table:
    """The metrics by object size, beside the weights that the levels got."""
    levels = merge_names([list(weights) for weights in outcomes.weights.values()])
    by_metric = {
        metric: {arm: summarize(values) for arm, values in outcomes.values(metric).items()}
        for metric in SIZES
    }
    rows: list[tuple[str, ...]] = []
    rules: list[int] = []
    for arm, first in _in_blocks(grid):
        if first:
            rules.append(len(rows))
        row = [arm]
        base = grid.baselines[arm]
        for metric in SIZES:
            row.append(mean_and_sd(by_metric[metric][arm]))
            if metric != "AP":
                difference = pair(by_metric[metric][base], by_metric[metric][arm]).mean
                row.append("-" if arm == base else signed(difference))
        weights = outcomes.weights.get(arm, {})
        row += [f"{weights[level]:.3f}" if level in weights else "-" for level in levels]
        rows.append(tuple(row))
    header, above = ["arm", "AP"], ["", ""]
    for metric in SIZES[1:]:
        header += [metric, f"{metric} difference"]
        above += [metric, metric]
    header += [f"weight {level}" for level in levels]
    above += ["weight"] * len(levels)
    return SpannedTable(
        "By object size, %, and the mean weight of each level",
        tuple(header),
        tuple(rows),
        (
            "Mean ± standard deviation over the seeds. These differences are not tested: the verdict is on one "
            "metric, chosen beforehand.",
        ),
        above=tuple(above),
        rules=tuple(rules),
    )


def runs(grid: Grid, outcomes: Outcomes) -> Table:
    """Every finished run's metrics."""
    rows = [
        (arm, str(seed), *(points(metric_in(found, name)) for name in ALL_METRICS))
        for arm in grid.arms
        for seed, found in outcomes.metrics[arm].items()
    ]
    return Table("All runs, %", ("arm", "seed", *(FULL_NAMES.get(n, n) for n in ALL_METRICS)), tuple(rows))


def _in_blocks(grid: Grid) -> list[tuple[str, bool]]:
    """The arms, each after its baseline where there are several, and whether a new block begins."""
    if len(grid.groups) == 1:
        return [(arm, False) for arm in grid.arms]
    blocks = list(grid.groups.values())
    return [(arm, n > 0 and arm == block[0]) for n, block in enumerate(blocks) for arm in block]
