"""Collect the finished runs of a grid: their metrics, their weights by level, their bootstrap over images."""

from __future__ import annotations

import hashlib
import statistics
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msbal.ablation.cells import Finding, metric_in
from msbal.ablation.grid import Cell, Comparison
from msbal.ablation.plan import listed
from msbal.ablation.statistics.images import SeedsAndImages, defined, seeds_and_images
from msbal.data import DetectionData
from msbal.engine.record import IntervalRecord
from msbal.errors import MsbalError
from msbal.records import RunDirectory, read_intervals
from msbal.records.atomic import replace_with

DRAWS_VERSION = 1  # to be raised when the same predictions would give other draws


@dataclass(frozen=True)
class Outcomes:
    """The results of all finished runs.

    Attributes:
        metrics: by arm and seed, as in metrics.json.
        weights: by arm and level, the mean of `mean_weights` over the runs.
        chosen: by arm and action, the mean of `chosen_shares` over the runs.
        cells: by arm and seed.
    """

    metrics: dict[str, dict[int, dict[str, Any]]]
    weights: dict[str, dict[str, float]]
    cells: dict[str, dict[int, Cell]]
    chosen: dict[str, dict[str, float]] = field(default_factory=dict)

    def values(self, metric: str) -> dict[str, dict[int, float | None]]:
        """Return one metric by arm and seed, 0..1."""
        return {
            arm: {seed: metric_in(found, metric) for seed, found in runs.items()}
            for arm, runs in self.metrics.items()
        }


def collect(arms: Sequence[str], findings: Sequence[Finding]) -> Outcomes:
    """Read the finished runs; leave out unfinished and changed ones."""
    metrics: dict[str, dict[int, dict[str, Any]]] = {arm: {} for arm in arms}
    cells: dict[str, dict[int, Cell]] = {arm: {} for arm in arms}
    weights: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    chosen: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for finding in findings:
        if finding.condition != "finished" or finding.metrics is None:
            continue
        cell = finding.cell
        metrics[cell.arm][cell.seed] = finding.metrics
        cells[cell.arm][cell.seed] = cell
        try:
            records = read_intervals(RunDirectory(cell.spec.output).intervals_file)
        except MsbalError:
            continue
        weights[cell.arm].append(mean_weights(records))
        chosen[cell.arm].append(chosen_shares(records, finding.metrics.get("iteration")))
    means = [{arm: _mean_of(found) for arm, found in of_arms.items()} for of_arms in (weights, chosen)]
    return Outcomes(metrics, means[0], cells, means[1])


def mean_weights(records: Sequence[IntervalRecord]) -> dict[str, float]:
    """Return the mean weight of each level over a run's intervals.

    With several groups, levels are named ``rpn:P3``. The weights in force during an interval are its record's
    `previous_weights`; a record without them counts with its `weights`, those of the interval after it.
    """
    several = len({record.group for record in records}) > 1
    held: dict[str, list[float]] = {}
    for record in records:
        for level, weight in zip(record.levels, record.previous_weights or record.weights, strict=True):
            held.setdefault(f"{record.group}:{level}" if several else level, []).append(weight)
    return {level: statistics.fmean(weights) for level, weights in held.items()}


def chosen_shares(records: Sequence[IntervalRecord], end: int | None = None) -> dict[str, float]:
    """Return the share of a run's intervals in which each action was in force; nothing for a strategy without a choice.

    An interval's record names the action that was in force from the next iteration on. In the first interval none was.
    With several groups, the shares are of all their intervals.

    Args:
        end: the run's last iteration; what was chosen there never was in force. By default that of the last record.
    """
    end = records[-1].iteration if records and end is None else end
    counts: Counter[str] = Counter()
    names = {name: None for record in records for name in record.probabilities}
    counts.update(record.action for record in records if record.iteration != end)
    return {name: counts[name] / max(1, counts.total()) for name in names}


@dataclass
class ImageBootstrap:
    """Resample every run's predictions once, and pair the draws.

    Args:
        metric: one of `msbal.evaluation.bootstrap.ALL_METRICS`.
        resamples: the number of draws.
        cache: a folder that keeps the draws, which take longer than the rest of the report.
        progress: called after each resample of each run.

    Attributes:
        notes: why an arm has no interval.
    """

    metric: str
    resamples: int
    seed: int = 0
    cache: Path | None = None
    progress: Callable[[], None] | None = None
    notes: list[str] = field(default_factory=list)
    _truths: dict[str, tuple[DetectionData, str]] = field(default_factory=dict, init=False, repr=False)

    def intervals(
        self, outcomes: Outcomes, comparisons: Sequence[Comparison]
    ) -> dict[Comparison, SeedsAndImages | None]:
        """Return, for each comparison, the interval of its mean difference over seeds and images.

        All are corrected for the number of comparisons.
        """
        files = [
            RunDirectory(cell.spec.output).predictions_file
            for runs in outcomes.cells.values()
            for cell in runs.values()
        ]
        if files and not any(file.exists() for file in files):
            self.notes.append("no run has a predictions.json, so no bootstrap over images")
            return dict.fromkeys(comparisons)
        draws = {arm: self._draws(runs) for arm, runs in outcomes.cells.items()}
        values = outcomes.values(self.metric)
        found: dict[Comparison, SeedsAndImages | None] = {}
        for each in comparisons:
            runs, base = draws[each.arm], draws[each.to]
            seeds = [seed for seed in runs if seed in base]
            if any(runs[seed].truth != base[seed].truth for seed in seeds):
                self.notes.append(f"{each.arm}: evaluated on other images than {each.to}, so no bootstrap")
                found[each] = None
                continue
            differences = [_difference(values[each.to][seed], values[each.arm][seed]) for seed in seeds]
            if any(difference is None for difference in differences):
                found[each] = None
                continue
            drawn = [runs[seed].metrics - base[seed].metrics for seed in seeds]
            if drawn and defined(drawn) is None:
                line = f"{self.metric} is undefined on more than one in twenty draws of the images"
                self.notes.append(f"{each.arm}: {line}, so no bootstrap")
            found[each] = seeds_and_images(
                [difference for difference in differences if difference is not None],
                drawn,
                min((runs[seed].images for seed in seeds), default=0),
                planned=len(comparisons),
            )
        return found

    def _draws(self, runs: Mapping[int, Cell]) -> dict[int, _Draws]:
        """Return the draws by seed; note and leave out runs whose predictions cannot be read."""
        from msbal.evaluation.bootstrap import ALL_METRICS, images_with_boxes
        from msbal.evaluation.detections import ground_truth

        column = ALL_METRICS.index(self.metric)
        found = {}
        files = {seed: RunDirectory(cell.spec.output).predictions_file for seed, cell in runs.items()}
        if missing := [seed for seed, file in files.items() if not file.exists()]:
            where = f"{runs[missing[0]].arm}, seed{'s' * (len(missing) > 1)} {listed(missing)}"
            self.notes.append(f"{where}: no predictions.json, so no bootstrap over images")
        for seed, cell in runs.items():
            file, where = files[seed], f"{cell.arm}, seed {seed}"
            if seed in missing:
                continue
            try:
                data, truth = self._data(cell)
                draws = self._resampled(cell, file, data, truth)
            except (MsbalError, OSError) as error:
                self.notes.append(f"{where}: no bootstrap over images: {error}")
                continue
            images = int(images_with_boxes(ground_truth(data))[column])
            found[seed] = _Draws(truth, draws[:, column], images)
        return found

    def _data(self, cell: Cell) -> tuple[DetectionData, str]:
        """Return the images and boxes that a run is evaluated on, read once, and their fingerprint."""
        from msbal.evaluation.detections import ground_truth
        from msbal.evaluation.runs import run_data

        section = cell.spec.data.model_dump_json()
        if section not in self._truths:
            data = run_data(RunDirectory(cell.spec.output))
            digest = hashlib.sha256()
            for value in vars(ground_truth(data)).values():
                digest.update(repr(np.shape(value)).encode() + np.asarray(value).tobytes())
            self._truths[section] = data, digest.hexdigest()
        return self._truths[section]

    def _resampled(self, cell: Cell, file: Path, data: DetectionData, truth: str) -> NDArray[np.float64]:
        """Return every metric on every draw, ``[R, F]``, from the cache if nothing has changed."""
        from msbal.evaluation.bootstrap import ALL_METRICS, resampled
        from msbal.evaluation.detections import ground_truth
        from msbal.evaluation.predictions import read_predictions

        key = f"{DRAWS_VERSION} {self.resamples} {self.seed} {truth} {hashlib.sha256(file.read_bytes()).hexdigest()}"
        kept = None if self.cache is None else self.cache / f"{cell.name}.draws.npz"
        if kept is not None:
            draws = _kept_draws(kept, key)
            if draws is not None:
                for _ in range(self.resamples if self.progress else 0):
                    self.progress()  # type: ignore[misc]
                return draws
        _, detections, _ = read_predictions(file, data)
        draws = resampled(ground_truth(data), detections, self.resamples, self.seed, self.progress)
        draws = draws[:, : len(ALL_METRICS)]
        if kept is not None:
            replace_with(kept, lambda temporary: _keep(temporary, key, draws))
        return draws


@dataclass(frozen=True)
class _Draws:
    """One run's metric on each draw, ``[R]``, with the images' fingerprint and how many of them have boxes for it."""

    truth: str
    metrics: NDArray[np.float64]
    images: int


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _kept_draws(file: Path, key: str) -> NDArray[np.float64] | None:
    try:
        with np.load(file, allow_pickle=False) as kept:
            return kept["draws"] if str(kept["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _keep(file: Path, key: str, draws: NDArray[np.float64]) -> None:
    with file.open("wb") as out:
        np.savez(out, key=np.array(key), draws=draws)


def _mean_of(found: Sequence[dict[str, float]]) -> dict[str, float]:
    levels = dict.fromkeys(level for weights in found for level in weights)
    return {level: statistics.fmean(w[level] for w in found if level in w) for level in levels}
