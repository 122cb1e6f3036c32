"""What a backend is.

A backend is a distribution of its own that registers one `Backend` in the entry-point group ``msbal.backends``. It
knows its framework but no equation: it splits the framework's own loss into levels, gives them to a balancer, and lets
the framework run backward on the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import BaseModel
    from torch import Tensor, nn

    from msbal.data import DetectionData, ImageRecord
    from msbal.engine import BalancerSet, LevelLosses
    from msbal.engine.gradients import Parts
    from msbal.records import Recorder, RunDirectory
    from msbal.spec import RunSpec


@dataclass(frozen=True)
class LevelGroup:
    """The levels of one head, which are balanced against each other.

    Attributes:
        name: ``all`` for a one-stage head, ``rpn`` or ``roi`` in a two-stage model.
        head: the class of the head, for people.
        levels: names, finest first: ``P3`` is the level of stride 8.
        strides: pixels per cell, one per level.
        terms: the kinds of loss, in order: ``cls``, ``bbox``, ``centerness``, ...
    """

    name: str
    head: str
    levels: tuple[str, ...]
    strides: tuple[int, ...]
    terms: tuple[str, ...]


@dataclass(frozen=True)
class SplitLosses:
    """The loss of one forward pass, split by level.

    Attributes:
        groups: the level losses of each group, attached to the graph.
        rest: the framework's other losses, which are not balanced (masks, a RoI head outside `scope`): scalars.
        parts: the model's parameters by part (``backbone``, ``neck``, ``head``), for each group; a detector that does
            not know its parts leaves it empty.
    """

    groups: Mapping[str, LevelLosses]
    rest: Mapping[str, Tensor]
    parts: Mapping[str, Parts] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """The state of a backend's installation.

    Attributes:
        versions: of the packages that matter.
        problems: what is wrong, a line each; empty if the backend can train.
        remedies: the command that fixes each problem, in the same order.
        notes: what is missing but not needed.
    """

    versions: Mapping[str, str]
    problems: Sequence[str] = ()
    remedies: Sequence[str] = ()
    notes: Sequence[str] = ()


class Monitor(Protocol):
    """Watches a run: the live table, plain lines, TensorBoard, or several of them. A subclass inherits no-ops."""

    def started(self, iteration: int, total: int, groups: Sequence[LevelGroup]) -> None:
        """Training begins after `iteration` of `total`; 0 unless the run is resumed."""
        return

    def stepped(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """An iteration ended.

        Called at the backend's own pace, never with a value that it had to wait for. Known scalars:
        ``images_per_second``, ``learning_rate``, ``memory_bytes``.
        """
        return

    def interval(self, record: Any) -> None:
        """An ``IntervalRecord`` has arrived."""
        return

    def interval_so_far(self, record: Any) -> None:
        """An ``IntervalRecord`` of a run's first interval up to now; it decides nothing."""
        return

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        """An evaluation ended; `metrics` is what metrics.json says of it."""
        return

    def drawn(self, iteration: int, name: str, path: Path) -> None:
        """An image was written into the run's folder; `name` says what it shows: ``train`` or ``detections``."""
        return

    def progress(self, what: str, done: int, total: int) -> None:
        """Something other than training goes on: ``evaluating``, 12 of 64. It ends when `done` is `total`.

        A total of 1 stands for something that cannot be counted.
        """
        return

    def message(self, text: str) -> None:
        """Show a person one line."""
        return


class BestCheckpoint(Protocol):
    """Keeps the checkpoint of a run's best evaluation, by AP: ``checkpoints/best.pth``.

    Attributes:
        iteration: of the best evaluation so far, the same on all ranks; None before the first.
    """

    iteration: int | None

    def saved(self, iteration: int) -> None:
        """Keep the checkpoint that was just saved, if it is the best evaluation's."""

    def rewind(self, iteration: int) -> None:
        """Forget the evaluations after `iteration`, from which the run goes on; a collective."""


@dataclass
class Job:
    """One training run as a backend sees it.

    Attributes:
        spec: complete and validated.
        train, val: the splits; `val` is None when nothing is evaluated.
        run: the folder of everything that the run writes.
        balancers: one for each of the detector's groups. Save them in the checkpoint (`state_dict`), and give their
            parameters, if any, to the optimizer.
        recorder: takes the balancers' interval records. Call `recorder.step` once an iteration, with its learning rate,
            `recorder.flush` before a checkpoint is saved, and `recorder.rewind` after one is loaded.
        monitor: shows progress.
        checkpoint: to resume from, or None.
        evaluate: ``evaluate(detector, iteration)`` predicts on `val` and records the metrics; in a distributed run all
            ranks call it. The core evaluates the end of the run itself.
        best: keeps the best checkpoint; `msbal.backend.kit.cadence.Cadence` calls it.
        stop_requested: ask it once an iteration; when it is True, save a checkpoint and return.
        ended: set by the backend where the framework itself ended the run early: after which iteration.
    """

    spec: RunSpec
    train: DetectionData
    val: DetectionData | None
    run: RunDirectory
    balancers: BalancerSet
    recorder: Recorder
    monitor: Monitor
    checkpoint: Path | None = None
    evaluate: Callable[[Detector, int], Mapping[str, Any]] | None = None
    best: BestCheckpoint | None = None
    stop_requested: Callable[[], bool] = field(default=lambda: False)
    ended: int | None = None


class Detector(Protocol):
    """A framework's model, built from a spec, on its device.

    Attributes:
        model: the framework's own module.
        groups: what is balanced.
    """

    model: nn.Module
    groups: tuple[LevelGroup, ...]

    def batch(self, data: DetectionData, indices: Sequence[int]) -> Any:
        """Return the framework's own training batch of these images, without random augmentation."""

    def framework_losses(self, batch: Any) -> dict[str, Tensor]:
        """Return the losses that the framework itself would sum in training mode."""

    def split_losses(self, batch: Any) -> SplitLosses:
        """Return the same losses by level; targets, matching and sampling are computed once.

        From the same random state as `framework_losses`, the groups and the rest add up to those. Neither advances a
        running average of the framework (detectron2's ``loss_normalizer``), so that calls can be compared.
        """

    def train(self, job: Job) -> None:
        """Train to the end of the schedule, or until the job asks to stop. Resumes exactly."""

    def iterations(self, train: DetectionData) -> int:
        """Return the length of a run on these data, by the spec or the framework's own config."""

    def load(self, checkpoint: Path) -> None:
        """Load the weights of one of this backend's checkpoints, safely (no pickled code)."""

    def predict(
        self, data: DetectionData, progress: Callable[[int], None] | None = None
    ) -> list[dict[str, Any]]:
        """Return detections in COCO results format: image_id, category_id, bbox (x, y, w, h), score.

        Args:
            progress: call it after each image with how many are done.
        """


@runtime_checkable
class Backend(Protocol):
    """A framework that msbal can train with. Creating one imports no framework.

    It may also be one of `SetsSchedule`, `Honours`, `OffersStarter` and `ProvesInstallation`; its detector may be one
    of `AssignsBoxes`, `ReadsImages` and `Remarks`.

    Attributes:
        name: as in the spec's ``backend:``.
        summary: one line for `msbal backends`.
        model_spec: pydantic model of the spec's ``model:`` section.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    model_spec: ClassVar[type[BaseModel]]

    def diagnose(self) -> Diagnosis:
        """Examine the installation; never fails."""

    def build(self, spec: RunSpec, classes: Sequence[str]) -> Detector:
        """Build the model.

        Raises:
            SpecError: where the model has fewer than two levels, or its loss is no sum over levels.
            BackendError: where the framework is missing or broken.
        """


# -- what a backend or a detector may also offer -------------------------------------------------

HONOURED = frozenset({"amp", "ema", "clip_norm", "accumulate", "learned", "measure", "on_nonfinite"})
"""What a spec may ask of a training beyond plain steps.

``amp``, ``ema``, ``clip_norm`` and ``accumulate`` are keys of ``schedule:``. ``learned``: strategies with parameters of
their own, which the optimizer has to train. ``measure``: `balance.measure`, and strategies that decide by gradients;
`Balanced` does it. ``on_nonfinite``: skipping steps (``skip``); to stop at a loss that is NaN
or infinite is every backend's duty.
"""


@runtime_checkable
class Honours(Protocol):
    """A backend that does not honour all of `HONOURED`. A spec that asks for the rest is refused before it trains.

    Attributes:
        honours: those that it does.
    """

    honours: ClassVar[frozenset[str]]


def honoured_by(backend: Backend) -> frozenset[str]:
    """Return what a backend does of `HONOURED`: all, unless it is one of `Honours`."""
    return backend.honours if isinstance(backend, Honours) else HONOURED


@runtime_checkable
class SetsSchedule(Protocol):
    """A backend whose framework has no config that decides the schedule.

    Attributes:
        schedule_defaults: for the keys that the spec's ``schedule:`` leaves out.
    """

    schedule_defaults: ClassVar[Mapping[str, Any]]


@runtime_checkable
class OffersStarter(Protocol):
    """A backend that `msbal init` can write a spec for."""

    def starter(self, data: DetectionData) -> str:
        """Return the ``model:`` and ``schedule:`` sections for these data, as commented YAML."""


@runtime_checkable
class ProvesInstallation(Protocol):
    """A backend that can prove that the framework's version fits. `msbal backends check` lets it."""

    def prove(self) -> Diagnosis:
        """Do as `Backend.diagnose`, and prove the losses of small models; takes seconds, never fails."""


@runtime_checkable
class AssignsBoxes(Protocol):
    """A detector that knows which level each box belongs to: the level that learns to find it."""

    def box_levels(
        self, data: DetectionData, by_running: bool = False, progress: Callable[[int], None] | None = None
    ) -> dict[str, NDArray[np.int64]]:
        """Return the level of each box of a data set, by group.

        Args:
            by_running: where sizes and anchors alone do not decide, run the model on every image as in training, as its
                weights are, which takes as long as predicting. Without it such a group is missing.
            progress: call it now and then with how many images have been run on.

        Returns:
            ``[N]`` for the N boxes of `data` that are no crowds, in its order: 0 for the finest level, -1 for a box
            that no level learns to find. A group is missing where the model has no rule for single boxes.
        """


class BoxCounts(NamedTuple):
    """How many boxes belong to each level, ``[K]``, and how many to none."""

    levels: list[int]
    none: int


def count_boxes(detector: Detector, data: DetectionData, by_running: bool = False) -> dict[str, BoxCounts]:
    """Count the boxes of a data set by level, for each group whose levels are known; see `AssignsBoxes`."""
    if not isinstance(detector, AssignsBoxes):
        return {}
    found, counts = detector.box_levels(data, by_running), {}
    for group in detector.groups:
        if group.name in found:
            of_level = [int((found[group.name] == level).sum()) for level in range(len(group.levels))]
            counts[group.name] = BoxCounts(of_level, len(found[group.name]) - sum(of_level))
    return counts


@runtime_checkable
class Remarks(Protocol):
    """A detector that needs more than boxes, or does something that the data and its config do not let one expect."""

    def remarks(self, train: DetectionData) -> Sequence[str]:
        """Return a sentence on each surprise: images that are left out, parts of a config without effect.

        Raises:
            DataError: where it cannot learn from these data: an object lacks its mask, or no image is left.
        """


@runtime_checkable
class ReadsImages(Protocol):
    """A detector whose framework reads the image files itself. msbal checks that it reads them as annotated."""

    def read_images(self, record: ImageRecord) -> Sequence[NDArray[np.uint8]]:
        """Return an image as training and evaluation read it, before any transform.

        Returns:
            ``[H, W, 3]`` RGB for each way of reading; nothing for a way that gives no 8-bit RGB.
        """
