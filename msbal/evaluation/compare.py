"""Several evaluated runs against the first of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from msbal.evaluation.bootstrap import ALL_METRICS, Difference, interval, resampled
from msbal.evaluation.coco_metrics import METRICS
from msbal.evaluation.detections import ground_truth
from msbal.evaluation.runs import Evaluated, same_data

Differences = dict[str, "Difference | None"]


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
    first, others = runs[0], runs[1:]
    paired = [resamples > 0 and same_data(first, other) for other in others]
    notes = [
        f"{other.name} and {first.name} were not evaluated on the same images here: no interval"
        if other.data is not None and first.data is not None
        else f"no predictions of {(first if first.data is None else other).name}: no interval"
        for other, pair in zip(others, paired, strict=True)
        if not pair and resamples > 0
    ]
    draws: dict[int, Any] = {}
    if any(paired) and first.data is not None:
        truth = ground_truth(first.data)
        for index, run in enumerate(runs):
            if run.detections is not None and (index == 0 or paired[index - 1]):
                draws[index] = resampled(truth, run.detections, resamples, seed, progress)
    overall, by_class = [], []
    classes = list(first.metrics.get("per_class", {}))
    for index, other in enumerate(others, start=1):
        both = (draws[0], draws[index]) if index in draws else None
        overall.append(
            {
                name: _difference(flat(first)[name], flat(other)[name], both, column, confidence)
                for column, name in enumerate(ALL_METRICS)
            }
        )
        by_class.append(
            {
                name: _difference(_class_ap(first, name), _class_ap(other, name), both, column, confidence)
                for column, name in enumerate(classes, start=len(ALL_METRICS))
            }
        )
    done = resamples if draws else 0
    return Comparison(
        tuple(runs), tuple(overall), tuple(by_class), done, seed, confidence, tuple(dict.fromkeys(notes))
    )


def flat(run: Evaluated) -> dict[str, float | None]:
    """Return the metrics by the names in `ALL_METRICS`."""
    voc = run.metrics.get("voc") or {}
    found = {name: run.metrics.get(name) for name in METRICS}
    return {**found, **{name: voc.get(name) for name in ("mAP", "mAP_11")}}


def _class_ap(run: Evaluated, name: str) -> float | None:
    found: float | None = run.metrics.get("per_class", {}).get(name, {}).get("AP")
    return found


def _difference(
    first: float | None, second: float | None, draws: tuple[Any, Any] | None, column: int, confidence: float
) -> Difference | None:
    if first is None or second is None:
        return None
    if draws is None:
        return Difference(second - first)
    return interval(second - first, draws[0][:, column], draws[1][:, column], confidence)
