"""Several evaluated runs against the first of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from msbal.evaluation.bootstrap import ALL_METRICS, Difference, interval, resampled
from msbal.evaluation.coco_metrics import METRICS
from msbal.evaluation.detections import ground_truth
from msbal.evaluation.runs import Evaluated, same_data

Differences = dict[str, "Difference | None"]
Draws = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Every metric of two runs on the same draws, ``[R, F + K]`` each."""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: the first is the one that the others are compared to.
        differences: by metric (`ALL_METRICS`), one per run after the first.
        class_differences: of the AP of each class, one per run after the first.
        resamples, seed, confidence: of the bootstrap; 0 resamples where there was none.
        notes: why an interval is missing, where one is.
    """

    runs: tuple[Evaluated, ...]
    differences: tuple[Differences, ...] = ()
    class_differences: tuple[Differences, ...] = ()
    resamples: int = 0
    seed: int = 0
    confidence: float = 0.95
    notes: tuple[str, ...] = field(default=())

    def only(self, index: int) -> Comparison:
        """Return the comparison of the run at `index` (from 1) with the first."""
        return replace(
            self,
            runs=(self.runs[0], self.runs[index]),
            differences=(self.differences[index - 1],),
            class_differences=(self.class_differences[index - 1],),
        )


def compare(
    runs: Sequence[Evaluated],
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    progress: Callable[[], None] | None = None,
) -> Comparison:
    """Compare every run to the first, with an interval by paired bootstrap over images.

    Args:
        runs: at least one.
        resamples: 0 leaves the intervals out.
        progress: called after each resample of each run that can be paired.
    """
    first, classes = runs[0], list(runs[0].metrics.get("per_class", {}))
    draws: dict[int, NDArray[np.float64]] = {}

    def drawn(index: int) -> NDArray[np.float64]:
        data, found = first.data, runs[index].detections
        assert data is not None and found is not None  # same_data
        if index not in draws:
            draws[index] = resampled(ground_truth(data), found, resamples, seed, progress)
        return draws[index]

    notes: dict[str, None] = {}
    overall, by_class = [], []
    for index, other in enumerate(runs[1:], start=1):
        both = None
        if resamples > 0 and same_data(first, other):
            both = drawn(0), drawn(index)
        elif resamples > 0:
            notes[_unpaired(first, other)] = None
        values = [(name, flat(first)[name], flat(other)[name]) for name in ALL_METRICS]
        values += [(name, _class_ap(first, name), _class_ap(other, name)) for name in classes]
        differences = [
            (name, _difference(one, two, both, column, confidence))
            for column, (name, one, two) in enumerate(values)
        ]
        overall.append(dict(differences[: len(ALL_METRICS)]))
        by_class.append(dict(differences[len(ALL_METRICS) :]))
    done = resamples if draws else 0
    return Comparison(tuple(runs), tuple(overall), tuple(by_class), done, seed, confidence, tuple(notes))


def _unpaired(first: Evaluated, other: Evaluated) -> str:
    """Return why two runs have no interval."""
    if first.data is None or other.data is None:
        return f"no predictions of {(first if first.data is None else other).name}: no interval"
    return f"{other.name} and {first.name} were not evaluated on the same images here: no interval"


def flat(run: Evaluated) -> dict[str, float | None]:
    """Return the metrics by the names in `ALL_METRICS`."""
    voc = run.metrics.get("voc") or {}
    found = {name: run.metrics.get(name) for name in METRICS}
    return {**found, **{name: voc.get(name) for name in ("mAP", "mAP_11")}}


def _class_ap(run: Evaluated, name: str) -> float | None:
    found: float | None = run.metrics.get("per_class", {}).get(name, {}).get("AP")
    return found


def _difference(
    one: float | None, two: float | None, draws: Draws | None, column: int, confidence: float
) -> Difference | None:
    if one is None or two is None:
        return None
    if draws is None:
        return Difference(two - one)
    return interval(two - one, draws[0][:, column], draws[1][:, column], confidence)
