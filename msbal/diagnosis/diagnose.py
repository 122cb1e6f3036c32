"""Diagnose a model's levels: as a run would start, and as its checkpoints are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from msbal.backend import AssignsBoxes, BoxCounts, count_boxes
from msbal.data import DetectionData, subset
from msbal.diagnosis.measure import choose_batches, measure_levels
from msbal.errors import MsbalError, SpecError
from msbal.evaluation import evaluate, usable_detections
from msbal.evaluation.level_metrics import level_metrics
from msbal.records import RunDirectory
from msbal.records.diagnosis import GroupState, LevelDiagnosis, ModelState
from msbal.training import Plan
from msbal.training.best import iteration_in
from msbal.training.checkpoints import find, iteration_of

METRICS = ("AP", "AP50", "AP_S", "AP_M", "AP_L")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is, and how much there is."""


@dataclass(frozen=True)
class Extent:
    """How much to measure.

    Attributes:
        batches: to measure gradients on.
        batch_size: images in each; None is the spec's, or 2.
        images: of the validation set to evaluate at most, chosen by the seed; 0 evaluates nothing.
    """

    batches: int = 8
    batch_size: int | None = None
    images: int = 200


def checkpoints_of(run: RunDirectory) -> tuple[dict[int, Path], list[str]]:
    """Return a run's checkpoints by iteration, the best one's included, and a note on each that cannot be read."""
    found, notes = {iteration_of(path): path for path in find(run.checkpoints)}, []
    if run.best_checkpoint.is_file():
        iteration = iteration_in(run.best_checkpoint)
        if iteration is None:
            notes.append(f"{run.best_checkpoint} cannot be read; it is left out")
        else:
            found[iteration] = run.best_checkpoint
    return dict(sorted(found.items())), notes


class Examination:
    """One examination of a model's levels. The model is the plan's, which ends with the weights of the last checkpoint.

    Args:
        checkpoints: by iteration, in order.
    """

    def __init__(
        self, plan: Plan, name: str, checkpoints: dict[int, Path], extent: Extent, progress: Progress
    ) -> None:
        self.plan, self.name, self.checkpoints, self.progress = plan, name, checkpoints, progress
        self.detector, self.seed = plan.detector, plan.spec.seed
        size = extent.batch_size or plan.spec.schedule.batch_size or 2
        self.batches = choose_batches(plan.train, extent.batches, size, self.seed)
        self.notes: list[str] = []
        if not self.batches:
            raise SpecError("data.train", "no image has a box that is no crowd", "at least one to measure on")
        count, found = len(self.batches), len(self.batches[0])
        if (count, found) != (extent.batches, size):
            self.notes.append(
                f"measured on {count} batch{'es' * (count > 1)} of {found}, not on {extent.batches} of {size}: "
                f"{plan.train.name} has no more images with boxes"
            )
        self.val = _sample(plan.val, extent.images, self.seed) if extent.images and plan.val else None
        if extent.images and plan.val is None and checkpoints:
            self.notes.append("no AP: the spec evaluates nothing (evaluate.enabled: false)")

    def run(self) -> LevelDiagnosis:
        """Measure all states and return them; nothing is judged yet.

        Raises:
            SpecError: where a checkpoint is of another model.
        """
        states = [self._measured(ModelState(0, ()))]
        for iteration, path in self.checkpoints.items():
            if self._loaded(iteration, path):
                states.append(self._measured(ModelState(iteration, (), checkpoint=path.name)))
        evaluated = len(self.val) if self.val is not None and states[-1].metrics else 0
        return LevelDiagnosis(
            model=self.name,
            backend=self.plan.spec.backend,
            batches=len(self.batches),
            batch_size=len(self.batches[0]),
            boxes=self._boxes("train", self.plan.train, evaluated),
            boxes_val={} if self.plan.val is None else self._boxes("val", self.plan.val, evaluated),
            states=tuple(states),
            images_val=evaluated,
            notes=tuple(self.notes),
        )

    def _loaded(self, iteration: int, path: Path) -> bool:
        """Load a checkpoint; of a damaged one, or one that a run has just replaced, say so."""
        problem = ""
        try:
            with warnings.catch_warnings():
                # It would take the checkpoint before a damaged one: another iteration's.
                warnings.filterwarnings("error", "passed over a damaged checkpoint")
                self.detector.load(path)
        except (MsbalError, UserWarning) as error:
            if isinstance(error, SpecError) and "does not fit" in str(error):
                raise
            problem = str(error)
        else:
            if path.stem == "best" and iteration_in(path) != iteration:
                problem = "the run that goes on has a better one by now"
        if problem:
            self.notes.append(f"{path.name} is left out: {problem}")
        return not problem

    def _measured(self, state: ModelState) -> ModelState:
        report = partial(self.progress, f"measuring gradients {state.when}")
        total = len(self.batches)
        report(0, total)
        groups, odd = measure_levels(
            self.detector, self.plan.train, self.batches, self.seed, lambda done: report(done, total)
        )
        self.notes += [f"{state.when} {note}" for note in odd]
        state = replace(state, groups=groups)
        trained = state.iteration > 0 or _starts_trained(self.plan)
        return self._evaluated(state, self.val) if trained and self.val is not None else state

    def _evaluated(self, state: ModelState, val: DetectionData) -> ModelState:
        report = partial(self.progress, f"evaluating {state.when}")
        found = usable_detections(val, self.detector.predict(val, lambda done: report(done, len(val))))
        metrics = evaluate(val, found)
        levels = {}
        if isinstance(self.detector, AssignsBoxes):
            report = partial(self.progress, f"finding the levels of boxes {state.when}")
            levels = self.detector.box_levels(val, True, lambda done: report(done, len(val)))

        def with_ap(group: GroupState) -> GroupState:
            if group.group not in levels:
                return group
            each = level_metrics(val, found, levels[group.group], len(group.levels))
            return replace(
                group,
                ap=tuple(level.ap for level in each),
                recall=tuple(level.recall for level in each),
                evaluated=tuple(level.boxes for level in each),
            )

        groups = tuple(map(with_ap, state.groups))
        return replace(state, groups=groups, metrics={key: metrics[key] for key in METRICS})

    def _boxes(self, split: str, data: DetectionData, images: int) -> dict[str, tuple[int, ...]]:
        """Count a split's boxes by level; where only running the model tells, those of a sample of it.

        Args:
            images: of the sample; 0 where the model is untrained, which assigns boxes unlike a trained one.
        """
        counts = count_boxes(self.detector, data)
        if len(counts) < len(self.detector.groups) and images:
            sample = _sample(data, images, self.seed)
            self.progress(f"finding the levels of boxes of {split}", 0, 1)
            more = {k: v for k, v in count_boxes(self.detector, sample, True).items() if k not in counts}
            if more and len(sample) < len(data):
                self.notes.append(
                    f"boxes of data.{split}: those of {len(sample):,} of its {len(data):,} images"
                )
            counts |= more
        self.notes += _without_level(split, counts)
        return {group: tuple(count.levels) for group, count in counts.items()}


def _without_level(split: str, counts: dict[str, BoxCounts]) -> Iterator[str]:
    for group, count in counts.items():
        if count.none:
            of_group = "" if group == "all" else f" of {group}"
            total = count.none + sum(count.levels)
            yield f"{count.none:,} of {total:,} boxes of data.{split} belong to no level{of_group}: none learns them"


def _sample(data: DetectionData, count: int, seed: int) -> DetectionData:
    if len(data) <= count:
        return data
    chosen = np.random.default_rng(seed).choice(len(data), count, replace=False)
    return subset(data, sorted(chosen.tolist()))


def _starts_trained(plan: Plan) -> bool:
    """Tell whether a run starts from the weights of a detector; without them its AP at the start says nothing."""
    return getattr(plan.spec.model, "weights", None) is not None
