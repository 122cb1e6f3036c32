"""The detector of `msbal.backend`, around a detectron2 model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.engine import hooks
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils.events import EventStorage
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from msbal.backend import Job
from msbal.backend.kit.balanced import Balanced
from msbal.backend.kit.data_set import predict_each, use_notes, used_images
from msbal.backend.kit.nonfinite import OnNonFinite
from msbal.backend.kit.one_batch import SplitModel
from msbal.backend.kit.steps import add_learned, make_average
from msbal.backend.kit.workers import outlive_interrupts
from msbal.data import DetectionData, ImageRecord
from msbal.engine.processes import rank, world_size
from msbal.errors import SpecError
from msbal.spec import RunSpec
from msbal.spec.data import CocoData
from msbal.training.distributed import resolve_device
from msbal.training.stream import Positions
from msbal_detectron2.assignment import box_levels
from msbal_detectron2.data import Outlines, Stream, map_image, read_images
from msbal_detectron2.recipe import Masks, Recipe, read_recipe
from msbal_detectron2.spec import Detectron2Model
from msbal_detectron2.splitters import DictSplitter, find
from msbal_detectron2.trainer import CHECKPOINTS, RunHook, Trainer
from msbal_detectron2.weights import start_from, start_pretrained


class SplitDetectron2(SplitModel):
    """A detectron2 model and its splitters."""

    def training_losses(self, batch: Any) -> Mapping[str, Tensor]:
        with EventStorage():  # detectron2's losses log into the storage on top of a global stack
            losses: Mapping[str, Tensor] = self.model(batch)
        return losses


class Detectron2Detector(SplitDetectron2):
    """See `msbal.backend.Detector`.

    Attributes:
        average: the model with averaged weights, which predicts if there is one.

    Raises:
        SpecError: where the model has nothing to balance, or needs more than boxes to train on.
    """

    def __init__(self, spec: RunSpec, classes: Sequence[str]) -> None:
        assert isinstance(spec.model, Detectron2Model)
        self.spec, self.classes = spec, tuple(classes)
        self.recipe: Recipe = read_recipe(spec, len(classes))
        self.device = resolve_device(spec.device)
        if spec.schedule.amp == "fp16" and self.device.type == "cpu":
            raise SpecError("schedule.amp", "`fp16` on the CPU", "none or bf16 there")
        model = self.recipe.build_model(self.device)
        _check_needs(model, spec.data.format)
        scope = ("rpn",) if spec.balance.scope is None else spec.balance.scope
        splitters: list[DictSplitter] = find(model, scope)
        super().__init__(model, splitters)
        self.average: nn.Module | None = None
        self._outlines: Outlines | None = None
        if spec.model.weights is not None:
            start_from(self.model, spec.model.weights)
        elif spec.model.pretrained:
            start_pretrained(self.model, self.recipe.defaults.weights)

    # -- one batch -------------------------------------------------------------------------------

    def batch(self, data: DetectionData, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return inputs with ``instances``, resized as for inference."""
        outlines = self._read_outlines(data)
        mapper = self.recipe.mapper(training=True, augment=False, masks=_kind(outlines))
        return [map_image(mapper, data.images[index], outlines) for index in indices]

    def read_images(self, record: ImageRecord) -> list[NDArray[np.uint8]]:
        """Return an image as read for training and inference alike."""
        return read_images(record, self.recipe.mapper(training=False))

    def _read_outlines(self, data: DetectionData) -> Outlines | None:
        """Return what a mask head learns from, read once; None for a model without."""
        if self._outlines is None and getattr(getattr(self.model, "roi_heads", None), "mask_on", False):
            assert isinstance(self.spec.data, CocoData)
            path = self.spec.data.root / self.spec.data.train.annotations
            self._outlines = Outlines(path, data.category_ids)
        return self._outlines

    def box_levels(
        self, data: DetectionData, by_running: bool = False, progress: Callable[[int], None] | None = None
    ) -> dict[str, NDArray[np.int64]]:
        """Return the level of each box by the model's own anchors and sizes, whatever its weights."""
        augmentations = self.recipe.mapper(training=False).augmentations.augs  # type: ignore[attr-defined]
        return box_levels(self.model, self.groups, data, augmentations)

    # -- a run -----------------------------------------------------------------------------------

    def batch_size(self) -> int:
        """Return the images per iteration and process."""
        if self.spec.schedule.batch_size is not None:
            return self.spec.schedule.batch_size
        return max(1, self.recipe.defaults.images // world_size())

    def remarks(self, train: DetectionData) -> list[str]:
        """Name the images that the config leaves out, and what of it a run ignores or will hardly train.

        Raises:
            DataError: where no image is left, or an object lacks the mask that is learned.
        """
        outlines = self._read_outlines(train)
        if outlines is not None:
            outlines.check(train.images)
        setting = self.recipe.filter_setting
        notes = use_notes(train, self._unfit, setting, f"override {setting}=False in model.overrides")
        notes += self.recipe.notes
        if self._starts_frozen_at_random():
            notes.append(
                "the backbone starts from random weights with its normalisation frozen, and will hardly train: "
                "set model.pretrained or model.weights, or override MODEL.RESNETS.NORM=BN and "
                "MODEL.BACKBONE.FREEZE_AT=0"
            )
        return notes

    def _unfit(self, image: ImageRecord) -> str:
        """Apply detectron2's own filter: it drops images without boxes, or with crowds alone."""
        if not self.recipe.defaults.filter_empty or not image.crowd.all():
            return ""
        return "only crowds" if len(image.boxes) else "no boxes"

    def iterations(self, train: DetectionData) -> int:
        """Return the spec's length of a run, or the config's."""
        schedule = self.spec.schedule
        if schedule.iterations is not None:
            return schedule.iterations
        if schedule.epochs is not None:
            images, _ = used_images(train.images, self._unfit)
            return schedule.epochs * math.ceil(len(images) / (self.batch_size() * world_size()))
        return self.recipe.defaults.iterations

    def train(self, job: Job) -> None:
        """Train with detectron2's trainer and hooks."""
        schedule, balancers = self.spec.schedule, job.balancers.to(self.device)
        total, state = self.iterations(job.train), None
        if job.checkpoint is not None:
            state = CHECKPOINTS.load_newest(job.checkpoint, job.monitor.message)
        start = 0 if state is None else int(state["iteration"])
        optimizer = self.recipe.optimizer(self.model, schedule)
        add_learned(optimizer, list(balancers.parameters()))
        average = make_average(self.model, schedule.ema)
        self.average = average and average.module
        balanced = Balanced(self.model, self.splitters, balancers)
        try:
            trainer = Trainer(
                self._wrapped(),
                self._loader(job.train, start, total),
                optimizer,
                balanced,
                schedule,
                OnNonFinite(job.spec.balance.on_nonfinite, job.monitor.message),
                job.spec.seed,
                average,
            )
            save_every = schedule.checkpoint_every or self.recipe.defaults.checkpoint_every
            run_hook = RunHook(
                job, trainer, start, total, self.batch_size(), save_every,
                lambda done: job.evaluate and job.evaluate(self, done),
            )  # fmt: skip
            scheduler = self.recipe.scheduler(optimizer, schedule, total)
            trainer.register_hooks([hooks.LRScheduler(optimizer, scheduler), run_hook])
            if state is not None:
                run_hook.restore(state)
            job.monitor.started(start, total, self.groups)
            with warnings.catch_warnings():
                # The schedule moves on even where a step was skipped, or is still to come (accumulation).
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                trainer.train(start, total)
        finally:
            balanced.remove()

    def _starts_frozen_at_random(self) -> bool:
        started = self.spec.model.pretrained or self.spec.model.weights is not None  # type: ignore[attr-defined]
        return not started and any(isinstance(module, FrozenBatchNorm2d) for module in self.model.modules())

    def _wrapped(self) -> nn.Module:
        if world_size() == 1:
            return self.model
        device_ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(self.model, device_ids=device_ids, broadcast_buffers=False)

    def _loader(self, data: DetectionData, start: int, total: int) -> DataLoader[Any]:
        images, _ = used_images(data.images, self._unfit)
        outlines = self._read_outlines(data)
        mapper = self.recipe.mapper(training=True, masks=_kind(outlines))
        workers = self.spec.schedule.workers
        return DataLoader(
            Stream(images, mapper, self.spec.seed, outlines),
            batch_sampler=Positions(start, total, self.batch_size(), rank(), world_size()),
            num_workers=self.recipe.defaults.workers if workers is None else workers,
            worker_init_fn=outlive_interrupts,
            collate_fn=list,
        )

    def load(self, checkpoint: Path) -> None:
        """Load a checkpoint's weights, the averaged ones where it has any."""
        CHECKPOINTS.load_weights(self.model, checkpoint)
        self.average = None

    @torch.no_grad()
    def predict(
        self, data: DetectionData, progress: Callable[[int], None] | None = None
    ) -> list[dict[str, Any]]:
        """Return detections in COCO results format, the images in order."""
        model = self.model if self.average is None else self.average
        mapper = self.recipe.mapper(training=False)

        def detect(record: ImageRecord) -> tuple[Tensor, Tensor, Tensor]:
            found = model([map_image(mapper, record)])[0]["instances"]
            return found.pred_boxes.tensor, found.pred_classes, found.scores

        return predict_each(model, data, detect, progress)


def _kind(outlines: Outlines | None) -> Masks:
    """Choose the form of masks: polygons cannot hold run-length encoded ones."""
    if outlines is None:
        return None
    return "bitmask" if outlines.has_rle else "any"


def _check_needs(model: nn.Module, format: str) -> None:
    """Refuse a model that learns from what the data lack or msbal does not read.

    Args:
        format: that of the data.

    Raises:
        SpecError: naming what it needs, and how to do without it or how to train it anyway.
    """
    heads = getattr(model, "roi_heads", None)
    script = "or call msbal_detectron2.balance in a training script of your own"
    if getattr(model, "sem_seg_head", None) is not None:
        raise SpecError(
            "model.config", f"{type(model).__name__} learns from segmentations", "a model of boxes", script
        )
    if heads is not None and getattr(model, "proposal_generator", None) is None:
        raise SpecError(
            "model.config",
            f"{type(model).__name__} takes precomputed proposals",
            "a model with an RPN",
            script,
        )
    if getattr(heads, "mask_on", False) and format != "coco":
        raise SpecError(
            "model.config",
            f"its mask head needs masks, and data of the format `{format}` has none",
            "a COCO annotation file with `segmentation`",
            "or override `MODEL.MASK_ON=False` (in a LazyConfig `model.roi_heads.mask_in_features=null`)",
        )
    if getattr(heads, "keypoint_on", False):
        raise SpecError(
            "model.config",
            "its keypoint head needs keypoints, and msbal reads boxes and masks",
            "a model of boxes or masks",
            "override `MODEL.KEYPOINT_ON=False` (in a LazyConfig `model.roi_heads.keypoint_in_features=null`), "
            + script,
        )
