"""A detectron2 model as msbal's core sees it: batches, losses, training, predictions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.engine import HookBase, hooks
from detectron2.layers import FrozenBatchNorm2d
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from msbal.backend import Job, LevelGroup, SplitLosses
from msbal.backend.kit.balanced import Balanced
from msbal.backend.kit.cadence import Cadence, Pace
from msbal.backend.kit.data_set import coco_results, use_notes, used_images
from msbal.backend.kit.nonfinite import OnNonFinite
from msbal.backend.kit.steps import add_learned
from msbal.data import DetectionData, ImageRecord
from msbal.engine.record import IntervalRecord
from msbal.errors import SpecError
from msbal.spec import RunSpec
from msbal.spec.data import CocoData
from msbal.training.distributed import rank, resolve_device, world_size
from msbal.training.stream import Positions
from msbal_detectron2 import checkpoints, probing
from msbal_detectron2.assignment import count_boxes
from msbal_detectron2.data import Stream, map_image, read_images
from msbal_detectron2.hook import put_scalars
from msbal_detectron2.masks import Outlines
from msbal_detectron2.recipe import Masks, Recipe, read_recipe
from msbal_detectron2.spec import Detectron2Model
from msbal_detectron2.splitters import find
from msbal_detectron2.trainer import Trainer
from msbal_detectron2.weights import start_from, start_pretrained


class Detectron2Detector:
    """Built from a spec, on its device.

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
        self.model: nn.Module = self.recipe.build_model(self.device)
        _check_needs(self.model, spec.data.format)
        self._outlines: Outlines | None = None
        scope = ("rpn",) if spec.balance.scope is None else spec.balance.scope
        self.splitters = find(self.model, scope)
        self.groups: tuple[LevelGroup, ...] = tuple(splitter.group for splitter in self.splitters)
        if spec.model.weights is not None:
            start_from(self.model, spec.model.weights)
        elif spec.model.pretrained:
            start_pretrained(self.model, self.recipe.defaults.weights)

    # -- one batch -------------------------------------------------------------------------------

    def batch(self, data: DetectionData, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Inputs with ``instances``, resized as for inference."""
        outlines = self._read_outlines(data)
        mapper = self.recipe.mapper(training=True, augment=False, masks=_kind(outlines))
        return [map_image(mapper, data.images[index], outlines) for index in indices]

    def read_images(self, record: ImageRecord) -> list[NDArray[np.uint8]]:
        """See `msbal.backend.ReadsImages`; training and inference read alike."""
        return read_images(record, self.recipe.mapper(training=False))

    def check_data(self, train: DetectionData) -> None:
        """Refuse data in which an object has no mask, where masks are learned.

        Raises:
            DataError: naming the object.
        """
        outlines = self._read_outlines(train)
        if outlines is not None:
            outlines.check(train.images)

    def _read_outlines(self, data: DetectionData) -> Outlines | None:
        """What a mask head learns from, read once; None for a model without."""
        if self._outlines is None and getattr(getattr(self.model, "roi_heads", None), "mask_on", False):
            assert isinstance(self.spec.data, CocoData)
            path = self.spec.data.root / self.spec.data.train.annotations
            self._outlines = Outlines(path, data.category_ids)
        return self._outlines

    def framework_losses(self, batch: Any) -> dict[str, Tensor]:
        """detectron2's own loss dict."""
        return probing.framework_losses(self.model, self.splitters, batch)

    def split_losses(self, batch: Any) -> SplitLosses:
        """The same by level."""
        return probing.split_losses(self.model, self.splitters, batch)

    def boxes_per_level(self, data: DetectionData) -> dict[str, list[int]]:
        """How many boxes of a data set each level is responsible for, by group; crowds left out."""
        augmentations = self.recipe.mapper(training=False).augmentations.augs  # type: ignore[attr-defined]
        return count_boxes(self.model, self.groups, data, augmentations)

    # -- a run -----------------------------------------------------------------------------------

    def batch_size(self) -> int:
        """Images per iteration and process."""
        if self.spec.schedule.batch_size is not None:
            return self.spec.schedule.batch_size
        return max(1, self.recipe.defaults.images // world_size())

    def remarks(self, train: DetectionData) -> list[str]:
        """Images that the config leaves out, and what of it a run does not follow or will hardly train.

        Raises:
            DataError: where no image is left, or an object lacks the mask that is learned.
        """
        self.check_data(train)
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
        """As detectron2's own filter: images without boxes, or with crowds alone."""
        if not self.recipe.defaults.filter_empty or not image.crowd.all():
            return ""
        return "only crowds" if len(image.boxes) else "no boxes"

    def iterations(self, train: DetectionData) -> int:
        """The spec's length, or the config's."""
        schedule = self.spec.schedule
        if schedule.iterations is not None:
            return schedule.iterations
        if schedule.epochs is not None:
            images, _ = used_images(train.images, self._unfit)
            return schedule.epochs * math.ceil(len(images) / (self.batch_size() * world_size()))
        return self.recipe.defaults.iterations

    def train(self, job: Job) -> None:
        """Train with detectron2's trainer and hooks."""
        schedule = self.spec.schedule
        total = self.iterations(job.train)
        state = (
            checkpoints.load_newest(job.checkpoint, job.monitor.message)
            if job.checkpoint is not None
            else None
        )
        start = 0 if state is None else int(state["iteration"])
        balanced = Balanced(self.model, self.splitters, job.balancers.to(self.device))
        try:
            optimizer = self.recipe.optimizer(self.model, schedule)
            add_learned(optimizer, list(balanced.parameters()))
            trainer = Trainer(
                self._wrapped(),
                self._loader(job.train, start, total),
                optimizer,
                balanced,
                schedule,
                OnNonFinite(job.spec.balance.on_nonfinite, job.monitor.message),
                job.spec.seed,
            )
            run_hook = RunHook(self, job, trainer, start, total)
            scheduler = self.recipe.scheduler(optimizer, schedule, total)
            trainer.register_hooks([hooks.LRScheduler(optimizer, scheduler), run_hook])
            if state is not None:
                run_hook.restore(state)
            job.monitor.started(start, total, self.groups)
            with warnings.catch_warnings():
                # A step left out, or still to come (accumulation), moves the schedule on all the same.
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
                trainer.train(start, total)
        finally:
            balanced.remove()
        if trainer.average is not None and trainer.iter >= total:
            trainer.average.swap()  # the run is over: the average is what predicts

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
            collate_fn=list,
        )

    def load(self, checkpoint: Path) -> None:
        """The weights of a run's checkpoint; the averaged ones where it has them.

        Raises:
            SpecError: where they do not fit the model.
            RunError: where no checkpoint can be read.
        """
        state = checkpoints.load_newest(checkpoint, lambda text: warnings.warn(text, stacklevel=3))
        try:
            self.model.load_state_dict(state["model"])
            if state.get("average"):
                self.model.load_state_dict(state["average"], strict=False)
        except RuntimeError as error:
            raise SpecError(
                str(checkpoint), f"does not fit the model: {str(error)[:300]}", "a checkpoint of this spec"
            ) from error

    # -- inference -------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, data: DetectionData) -> list[dict[str, Any]]:
        """One image at a time, as detectron2 does."""
        mapper = self.recipe.mapper(training=False)
        training = self.model.training
        self.model.eval()
        found: list[dict[str, Any]] = []
        try:
            for record in data.images:
                instances = self.model([map_image(mapper, record)])[0]["instances"]
                found += coco_results(
                    record.id,
                    instances.pred_boxes.tensor,
                    instances.pred_classes,
                    instances.scores,
                    data.category_ids,
                )
        finally:
            self.model.train(training)
        return found


class RunHook(HookBase):  # type: ignore[misc]
    """What a run does after each iteration: records, progress, checkpoints, evaluations, stopping."""

    def __init__(
        self, detector: Detectron2Detector, job: Job, trainer: Trainer, start: int, total: int
    ) -> None:
        self._detector, self._job, self._trainer = detector, job, trainer
        every = job.spec.schedule.checkpoint_every or detector.recipe.defaults.checkpoint_every
        self._cadence = Cadence(job, total, start, every, self._evaluate, self._save)
        self._pace = Pace(job.monitor, detector.batch_size() * world_size(), total, detector.device)
        _report_to_storage(job, trainer)

    def after_step(self) -> None:
        """Called by the trainer."""
        trainer, done = self._trainer, self.trainer.iter + 1
        if done == trainer.start_iter + 1:
            trainer.balanced.require_calls()
        self._pace.tick(done, float(trainer.optimizer.param_groups[0]["lr"]))
        trainer.stop_requested = self._cadence.after(done)

    def _evaluate(self, done: int) -> None:
        average = self._trainer.average
        if average is not None:
            average.swap()
        try:
            assert self._job.evaluate is not None
            self._job.evaluate(self._detector, done)
        finally:
            if average is not None:
                average.swap()
        self._pace.restart()

    def _save(self, done: int) -> None:
        """Write a checkpoint; every process takes part."""
        self._trainer.balanced.synchronize()
        if rank() != 0:
            return
        average = self._trainer.average
        checkpoints.save(
            self._job.run.checkpoints,
            {
                "iteration": done,
                "model": self._detector.model.state_dict(),
                "trainer": self._trainer.state_dict(),
                "balancing": self._trainer.balanced.state_dict(),
                "average": {} if average is None else average.state_dict(),
            },
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        try:
            self._detector.model.load_state_dict(state["model"])
            self._trainer.load_state_dict(state["trainer"])
            self._trainer.balanced.load_state_dict(state["balancing"])
        except Exception as error:
            # A file that is whole may hold anything: torch's own loading then fails in any way.
            raise SpecError(
                "--resume",
                f"the checkpoint does not fit the spec: {' '.join(str(error).split())[:300]}",
                "the spec that the run was started with",
                "leave the spec as it was, or start anew with --force",
            ) from error
        if self._trainer.average is not None and state.get("average"):
            self._trainer.average.load_state_dict(state["average"])
        self._job.recorder.rewind(int(state["iteration"]))


def _report_to_storage(job: Job, trainer: Trainer) -> None:
    """Let the records reach detectron2's EventStorage too, from where a model's own code may read them."""
    tell = job.recorder.on_record

    def on_record(record: IntervalRecord) -> None:
        put_scalars(trainer.storage, record, trainer.balanced)
        if tell is not None:
            tell(record)

    job.recorder.on_record = on_record


def _kind(outlines: Outlines | None) -> Masks:
    """Polygons cannot hold run-length encoded masks."""
    if outlines is None:
        return None
    return "bitmask" if outlines.has_rle else "any"


def _check_needs(model: nn.Module, format: str) -> None:
    """Refuse a model that learns from what the data has not, or msbal does not read.

    Args:
        format: of the data.

    Raises:
        SpecError: naming what it needs, and how to go without it or how to train it anyway.
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
