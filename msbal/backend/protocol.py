"""What a backend is.

A backend is a distribution of its own that registers one `Backend` under the entry-point group
``msbal.backends``. It knows its framework and no equation: it splits the framework's own loss into
levels, hands them to a balancer, and lets the framework run backward on what comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import BaseModel
    from torch import Tensor, nn

    from msbal.data import DetectionData, ImageRecord
    from msbal.engine import BalancerSet, LevelLosses
    from msbal.records import Recorder, RunDirectory
    from msbal.spec import RunSpec


@dataclass(frozen=True)
class LevelGroup:
    """The levels of one head that are balanced against each other.

    Attributes:
        name: ``all`` for a one-stage head, ``rpn`` or ``roi`` in a two-stage one.
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
    """One forward pass, its loss split by level.

    Attributes:
        groups: the level losses of each group, attached to the graph.
        rest: the framework's other losses (a RoI head outside `scope`, masks), scalars, which stay as
            they are.
    """

    groups: Mapping[str, LevelLosses]
    rest: Mapping[str, Tensor]


@dataclass(frozen=True)
class Diagnosis:
    """The state of a backend's installation.

    Attributes:
        versions: of the packages that matter.
        problems: what is wrong, each one line; empty if the backend can train.
        remedies: the command that mends each problem, in the same order.
        notes: what is missing but not needed.
    """

    versions: Mapping[str, str]
    problems: Sequence[str] = ()
    remedies: Sequence[str] = ()
    notes: Sequence[str] = ()


class Monitor(Protocol):
    """What watches a run: the live table, plain lines, TensorBoard, or several of them."""

    def started(self, iteration: int, total: int, groups: Sequence[LevelGroup]) -> None:
        """Training begins after `iteration` (0, or that of the resumed checkpoint) of `total`."""

    def stepped(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """An iteration ended.

        Called at the backend's own pace, never with a value that had to be waited for. Known
        scalars: ``images_per_second``, ``learning_rate``, ``memory_bytes``.
        """

    def interval(self, record: Any) -> None:
        """An ``IntervalRecord`` has arrived."""

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        """An evaluation ended, with the content of metrics.json for it."""

    def message(self, text: str) -> None:
        """Something that a person should read, one line."""


@dataclass
class Job:
    """One training run as a backend sees it.

    Attributes:
        spec: complete and validated.
        train, val: the splits; `val` is None when nothing is evaluated.
        run: where everything goes.
        balancers: one for each group of the detector, made from the spec. They belong into the
            checkpoint (`state_dict`), and their parameters, if any, into the optimizer.
        recorder: takes the balancers' interval records; call `recorder.step` once an iteration,
            `recorder.flush` before a checkpoint is saved and `recorder.rewind` after one is loaded.
        monitor: for progress.
        checkpoint: to resume from, or None.
        evaluate: ``evaluate(detector, iteration)`` predicts on `val` and records the metrics; in a
            distributed run all ranks call it. The core calls it at the end of the run.
        stop_requested: asked once an iteration; when True, save a checkpoint and return.
        ended: set by the backend where the framework itself decides the end of a run: after which iteration it was.
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
    stop_requested: Callable[[], bool] = field(default=lambda: False)
    ended: int | None = None


class Detector(Protocol):
    """A framework's model, built from a spec, on its device, its loss splitters in place.

    Attributes:
        model: the framework's own module.
        groups: what is balanced.
    """

    model: nn.Module
    groups: tuple[LevelGroup, ...]

    def batch(self, data: DetectionData, indices: Sequence[int]) -> Any:
        """The framework's own training batch for these images, without random augmentation."""

    def framework_losses(self, batch: Any) -> dict[str, Tensor]:
        """The losses of the untouched framework in training mode: what it would have summed."""

    def split_losses(self, batch: Any) -> SplitLosses:
        """The same losses by level; targets, matching and sampling computed once.

        Given the same random state as `framework_losses`, the groups and the rest add up to them.
        Neither advances a running average of the framework (detectron2's ``loss_normalizer``), so that
        calls can be compared.
        """

    def train(self, job: Job) -> None:
        """Train to the end of the schedule, or until the job asks to stop. Resumes exactly."""

    def iterations(self, train: DetectionData) -> int:
        """Length of a run on these training data, by the spec or the framework's own config."""

    def load(self, checkpoint: Path) -> None:
        """Load the weights of one of this backend's checkpoints, safely (no pickled code)."""

    def predict(self, data: DetectionData) -> list[dict[str, Any]]:
        """Detections in COCO results format: image_id, category_id, bbox (x, y, w, h), score."""


@runtime_checkable
class Backend(Protocol):
    """A framework that msbal can train with. Creating one imports no framework.

    What it may also have: `SetsSchedule`, `Honours`, `OffersStarter`; a detector of its: `CountsBoxes`, `ChecksData`,
    `ReadsImages`, `Remarks`.

    Attributes:
        name: as in the spec's ``backend:``.
        summary: one line for `msbal backends`.
        model_spec: pydantic model of the spec's ``model:`` section.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    model_spec: ClassVar[type[BaseModel]]

    def diagnose(self) -> Diagnosis:
        """Look at what is installed, without failing."""

    def build(self, spec: RunSpec, classes: Sequence[str]) -> Detector:
        """Build the model.

        Raises:
            SpecError: where the model has fewer than two levels, or its loss is no sum over levels.
            BackendError: where the framework is missing or broken.
        """


# -- what a backend or a detector may also have --------------------------------------------------

HONOURED = frozenset({"amp", "ema", "clip_norm", "accumulate", "learned", "on_nonfinite"})
"""What a spec may ask of a training beyond its plain steps.

``amp``, ``ema``, ``clip_norm`` and ``accumulate`` are keys of ``schedule:``. ``learned``: strategies that have
parameters of their own, which have to get into the optimizer. ``on_nonfinite``: leaving steps out (``skip``); to stop
at a loss that is NaN or infinite is every backend's duty.
"""


@runtime_checkable
class Honours(Protocol):
    """A backend that does not honour all of `HONOURED`. A spec that asks for more is refused before it trains.

    Attributes:
        honours: those that it does.
    """

    honours: ClassVar[frozenset[str]]


@runtime_checkable
class SetsSchedule(Protocol):
    """A backend whose framework has no config to decide the schedule.

    Attributes:
        schedule_defaults: what the spec's ``schedule:`` takes where it says nothing.
    """

    schedule_defaults: ClassVar[Mapping[str, Any]]


@runtime_checkable
class OffersStarter(Protocol):
    """A backend that `msbal init` can write a spec for."""

    def starter(self, data: DetectionData) -> str:
        """The ``model:`` and ``schedule:`` sections for these data, as commented YAML."""


@runtime_checkable
class CountsBoxes(Protocol):
    """A detector that knows which level answers for a box."""

    def boxes_per_level(self, data: DetectionData) -> dict[str, list[int]]:
        """How many boxes of a data set belong to each level, by group."""


@runtime_checkable
class ChecksData(Protocol):
    """A detector that needs more of its data than boxes."""

    def check_data(self, train: DetectionData) -> None:
        """Refuse data that it cannot learn from, before anything is written.

        Raises:
            DataError: naming what is missing.
        """


@runtime_checkable
class Remarks(Protocol):
    """A detector whose framework does something else than the data and its config let a person expect."""

    def remarks(self, train: DetectionData) -> Sequence[str]:
        """A sentence on each: images that are left out, parts of a config without effect.

        Raises:
            DataError: where no image is left to train on.
        """


@runtime_checkable
class ReadsImages(Protocol):
    """A detector whose framework reads the image files itself, which msbal then proves to be right."""

    def read_images(self, record: ImageRecord) -> Sequence[NDArray[np.uint8]]:
        """An image as training and evaluation read it, before anything is done to it.

        Returns:
            ``[H, W, 3]`` RGB for each way in which it is read; none where its pixels are not 8-bit RGB there.
        """
