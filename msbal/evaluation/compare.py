"""Several evaluated runs against the first of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from msbal.evaluation.bootstrap import (
    ALL_METRICS,
    MIN_IMAGES,
    Difference,
    images_with_boxes,
    interval,
    resampled,
)
from msbal.evaluation.coco_metrics import METRICS
from msbal.evaluation.detections import ground_truth
from msbal.evaluation.runs import Evaluated, same_data

Differences = dict[str, "Difference | None"]
Draws = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Every metric of two runs on the same draws, ``[R, F + K]`` each."""


HEADLINE = "AP"
"""The metric to conclude from. The intervals of the others are not corrected for how many they are."""

SEEDS = ("seed", "balance.seed")
_WITHOUT_EFFECT = ("output", "device", "evaluate.", "log.", "schedule.workers", "schedule.checkpoint_every")
"""Keys that say where and how a run runs, but not what it computes."""

_FEW_IMAGES = (
    f"There is no interval where fewer than {MIN_IMAGES} images have boxes of the metric's size or class."
)


@dataclass(frozen=True)
class Relation:
    """What a run and the first have in common.

    Attributes:
        keys: of their specs, those that differ and matter to the result; None where one has no spec.
        same: whether all their metrics are the same, to the last digit.
    """

    keys: tuple[str, ...] | None
    same: bool

    @property
    def only_seed(self) -> bool:
        """Whether they differ in nothing but the seed: their difference is seed noise."""
        return bool(self.keys) and set(self.keys or ()) <= set(SEEDS)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: the first is the one that the others are compared to.
        differences: by metric (`ALL_METRICS`), one per run after the first.
        class_differences: of the AP of each class, one per run after the first.
        relations: to the first, one per run after it.
        resamples, seed, confidence: of the bootstrap; 0 resamples where there was none.
        notes: why an interval is missing, where one is.
    """

    runs: tuple[Evaluated, ...]
    differences: tuple[Differences, ...] = ()
    class_differences: tuple[Differences, ...] = ()
    relations: tuple[Relation, ...] = ()
    resamples: int = 0
    seed: int = 0
    confidence: float = 0.95
    notes: tuple[str, ...] = field(default=())

    @property
    def has_intervals(self) -> bool:
        """Whether any difference has an interval."""
        each = (found for of_run in (*self.differences, *self.class_differences) for found in of_run.values())
        return any(found is not None and found.low is not None for found in each)

    def only(self, index: int) -> Comparison:
        """Return the comparison of the run at `index` (from 1) with the first."""
        return replace(
            self,
            runs=(self.runs[0], self.runs[index]),
            differences=(self.differences[index - 1],),
            class_differences=(self.class_differences[index - 1],),
            relations=(self.relations[index - 1],),
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
    images = None if first.data is None else images_with_boxes(ground_truth(first.data))

    def drawn(index: int) -> NDArray[np.float64]:
        data, detections = first.data, runs[index].detections
        assert data is not None and detections is not None  # same_data
        if index not in draws:
            draws[index] = resampled(ground_truth(data), detections, resamples, seed, progress)
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
        found = [
            (name, _difference(one, two, both, column, images, confidence))
            for column, (name, one, two) in enumerate(values)
        ]
        if both is not None and any(each is not None and each.low is None for _, each in found):
            notes[_FEW_IMAGES] = None
        overall.append(dict(found[: len(ALL_METRICS)]))
        by_class.append(dict(found[len(ALL_METRICS) :]))
    done = resamples if draws else 0
    relations = tuple(_relation(first, other) for other in runs[1:])
    return Comparison(
        tuple(runs), tuple(overall), tuple(by_class), relations, done, seed, confidence, tuple(notes)
    )


def _relation(first: Evaluated, other: Evaluated) -> Relation:
    from msbal.spec.mapping import differences

    keys = None
    if first.spec is not None and other.spec is not None:
        found = (key for key, *_ in differences(first.spec, other.spec))
        keys = tuple(key for key in found if not key.startswith(_WITHOUT_EFFECT))
    ours, theirs = ((flat(run), run.metrics.get("per_class")) for run in (first, other))
    return Relation(keys, ours == theirs and any(value is not None for value in ours[0].values()))


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
    one: float | None,
    two: float | None,
    draws: Draws | None,
    column: int,
    images: NDArray[np.int64] | None,
    confidence: float,
) -> Difference | None:
    if one is None or two is None:
        return None
    if draws is None or images is None:
        return Difference(two - one)
    return interval(two - one, draws[0][:, column], draws[1][:, column], int(images[column]), confidence)
