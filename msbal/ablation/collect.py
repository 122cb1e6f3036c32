"""What the finished runs of a grid hold: their figures, and the weights that each level got."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msbal.ablation.cells import Finding, figure_in
from msbal.ablation.grid import Cell
from msbal.ablation.statistics import bootstrap_interval
from msbal.errors import MsbalError
from msbal.record import IntervalRecord
from msbal.records import RunDirectory, read_intervals

Interval = tuple[float, float]


@dataclass(frozen=True)
class Outcomes:
    """The results of all runs that are finished.

    Attributes:
        figures: by arm and seed, as metrics.json has them.
        weights: by arm and level, the mean over the runs of `mean_weights`.
        cells: of the finished runs, by arm and seed.
    """

    figures: dict[str, dict[int, dict[str, Any]]]
    weights: dict[str, dict[str, float]]
    cells: dict[str, dict[int, Cell]]

    def values(self, figure: str) -> dict[str, dict[int, float | None]]:
        """One figure by arm and seed, 0..1."""
        return {
            arm: {seed: figure_in(found, figure) for seed, found in runs.items()}
            for arm, runs in self.figures.items()
        }

    def without_images(self) -> Outcomes:
        """The same, as if no predictions were kept: nothing for a bootstrap."""
        return Outcomes(self.figures, self.weights, {arm: {} for arm in self.cells})


def collect(arms: Sequence[str], findings: Sequence[Finding]) -> Outcomes:
    """Read the finished runs; unfinished and changed ones are left out."""
    figures: dict[str, dict[int, dict[str, Any]]] = {arm: {} for arm in arms}
    cells: dict[str, dict[int, Cell]] = {arm: {} for arm in arms}
    weights: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for finding in findings:
        if finding.condition != "finished" or finding.figures is None:
            continue
        cell = finding.cell
        figures[cell.arm][cell.seed] = finding.figures
        cells[cell.arm][cell.seed] = cell
        try:
            records = read_intervals(RunDirectory(cell.spec.output).intervals_file)
        except MsbalError:
            continue
        weights[cell.arm].append(mean_weights(records))
    return Outcomes(figures, {arm: _mean_of(found) for arm, found in weights.items()}, cells)


def mean_weights(records: Sequence[IntervalRecord]) -> dict[str, float]:
    """The mean over a run's intervals of the weight that each level had, by level.

    Levels of several groups are told apart as ``rpn:P3``. A record's `previous_weights` are those that held
    during its interval; where a record has none, its `weights` stand for the interval after it.
    """
    several = len({record.group for record in records}) > 1
    held: dict[str, list[float]] = {}
    for record in records:
        for level, weight in zip(record.levels, record.previous_weights or record.weights, strict=True):
            held.setdefault(f"{record.group}:{level}" if several else level, []).append(weight)
    return {level: statistics.fmean(weights) for level, weights in held.items()}


@dataclass
class ImageBootstrap:
    """Resamples every run's predictions once, and pairs them.

    Args:
        figure: one of `msbal.evaluation.bootstrap.ALL_FIGURES`.
        resamples: draws of the images.
        progress: called after each resample of each run.

    Attributes:
        notes: why an arm has no interval, where one has none.
    """

    figure: str
    resamples: int
    seed: int = 0
    progress: Callable[[], None] | None = None
    notes: list[str] = field(default_factory=list)

    def intervals(self, outcomes: Outcomes, baseline: str) -> dict[str, Interval | None]:
        """By arm but the baseline, the interval of the mean difference over seeds and images."""
        draws = {arm: self._draws(runs) for arm, runs in outcomes.cells.items()}
        found: dict[str, Interval | None] = {}
        for arm, runs in draws.items():
            if arm == baseline:
                continue
            seeds = [seed for seed in runs if seed in draws[baseline]]
            found[arm] = bootstrap_interval(
                [draws[baseline][seed] for seed in seeds], [runs[seed] for seed in seeds], self.seed
            )
        return found

    def _draws(self, runs: dict[int, Cell]) -> dict[int, NDArray[np.float64]]:
        """By seed ``[R]``; a run whose predictions cannot be read is noted and left out."""
        from msbal.evaluation.bootstrap import ALL_FIGURES, resampled
        from msbal.evaluation.columns import ground_truth
        from msbal.evaluation.runs import evaluate_run, run_data

        column = ALL_FIGURES.index(self.figure)
        found = {}
        for seed, cell in runs.items():
            run = RunDirectory(cell.spec.output)
            try:
                evaluated = evaluate_run(cell.name, run, run_data(run))
            except MsbalError as error:
                self.notes.append(f"{cell.arm}, seed {seed}: no bootstrap over images: {error}")
                continue
            if evaluated.detections is None or evaluated.data is None:
                self.notes.append(
                    f"{cell.arm}, seed {seed}: no predictions.json, so no bootstrap over images"
                )
                continue
            truth = ground_truth(evaluated.data)
            draws = resampled(truth, evaluated.detections, self.resamples, self.seed, self.progress)
            found[seed] = draws[:, column]
        return found


def _mean_of(found: Sequence[dict[str, float]]) -> dict[str, float]:
    levels = dict.fromkeys(level for weights in found for level in weights)
    return {level: statistics.fmean(w[level] for w in found if level in w) for level in levels}
