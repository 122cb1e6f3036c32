"""What a person should know of a run before it starts: what is legal, but seldom meant or of little use."""

from __future__ import annotations

from collections.abc import Iterator

from msbal.backend import Detector, count_boxes
from msbal.data import DetectionData, remarks, shared_images
from msbal.data.detection_data import subset
from msbal.data.files import listed
from msbal.spec import RunSpec

FEW_INTERVALS = 20
HIGH_AMPLIFICATION = 10
HIGH_LR = 1
SAMPLE = 5000
"""Images whose boxes are counted by level, which takes a second; all of COCO would take six to thirteen."""


def notes_on(
    spec: RunSpec, iterations: int, train: DetectionData, val: DetectionData | None, detector: Detector
) -> list[str]:
    """Return a sentence for each surprise in a run's length, values, levels and data."""
    of_val = remarks(val) if val is not None else []
    return [
        *_few_decisions(spec, iterations), *_odd_values(spec, iterations, len(train)),
        *_empty_levels(spec, detector, train), *remarks(train), *of_val, *shared_images(train, val),
    ]  # fmt: skip


def _few_decisions(spec: RunSpec, iterations: int) -> Iterator[str]:
    interval = spec.balance.interval
    intervals, unfinished = divmod(iterations, interval)
    if spec.balance.strategy in ("equal", "fixed") or intervals >= FEW_INTERVALS:
        return
    plural = "s" * (intervals != 1)
    few = f"only {intervals} interval{plural} of {interval} iterations: the strategy decides {intervals} time{plural}"
    fitting = max(2, iterations // FEW_INTERVALS)
    if fitting < interval:
        few += f"; balance.interval={fitting} would give {iterations // fitting}"
    yield few
    if unfinished:
        yield f"iterations after the last whole interval, which decide nothing: {unfinished}"


def _odd_values(spec: RunSpec, iterations: int, images: int) -> Iterator[str]:
    schedule, every = spec.schedule, spec.evaluate.every
    amplification = getattr(spec.balance, "amplification", 0)
    if amplification > HIGH_AMPLIFICATION:
        yield (
            f"balance.amplification: {amplification:g} lets a level weigh up to {1 + amplification:g} times as much as "
            "another; the paper's lambda is 1.5"
        )
    measure, interval = spec.balance.measure, spec.balance.interval
    if measure is not None and measure > interval and spec.balance.make_strategy().needs_gradients:
        yield (
            f"balance.measure: {measure} is more than an interval's {interval} iterations, and in an interval without "
            f"a measurement {spec.balance.strategy} keeps its weights"
        )
    if schedule.optimizer is not None and schedule.optimizer.lr > HIGH_LR:
        yield f"schedule.optimizer.lr: {schedule.optimizer.lr:g} is far more than detectors are trained with"
    if schedule.batch_size is not None and schedule.batch_size > images:
        yield (
            f"schedule.batch_size: {schedule.batch_size} is more than the {images} training images, so no more than "
            f"{images} of a batch can differ: lower it"
        )
    if schedule.accumulate > iterations:
        yield (
            f"schedule.accumulate: {schedule.accumulate} is more than the run's {iterations} iterations: the optimizer "
            "steps only once, at the end"
        )
    if every is not None and every >= iterations and spec.evaluate.enabled:
        yield (
            f"evaluate.every: {every} is not less than the run's {iterations} iterations: only the evaluation at the "
            "end remains"
        )


def _empty_levels(spec: RunSpec, detector: Detector, train: DetectionData) -> Iterator[str]:
    """Name the levels that no training box belongs to by the model's own anchors, where the backend can tell."""
    every = -(-len(train) // SAMPLE)
    looked_at = subset(train, range(0, len(train), every))
    counts = count_boxes(detector, looked_at)
    actions = (spec.balance.strategy, *getattr(spec.balance, "actions", ()))
    keys = [f"model.{key}" for key in ("anchor_sizes", "min_size") if key in type(spec.model).model_fields]
    for group in detector.groups:
        if group.name not in counts:
            continue
        boxes = counts[group.name].levels
        empty = [level for level, count in zip(group.levels, boxes, strict=True) if not count]
        if not empty or len(empty) == len(boxes):
            continue
        name = listed(empty, len(empty), 9) + (f" of {group.name}" if group.name != "all" else "")
        sample = f" in a sample of {len(looked_at):,} images" if every > 1 else ""
        learns = "learns" if len(empty) == 1 else "learn"
        chosen = ", and `min_loss` will choose it again and again" if "min_loss" in actions else ""
        where = f" ({', '.join(keys)})" if keys else ""
        yield (
            f"no training box{sample} belongs to {name}, which {learns} only background{chosen}: other anchors or "
            f"larger images would change that{where}"
        )
