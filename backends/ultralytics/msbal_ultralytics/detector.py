"""The detector of `msbal.backend`, around a YOLO model of ultralytics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from ultralytics.data.augment import LetterBox
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import scale_boxes

from msbal.backend import Job
from msbal.backend.kit.assignment import levels_by_running
from msbal.backend.kit.data_set import predict_each, use_notes
from msbal.backend.kit.one_batch import SplitModel, own_passes
from msbal.data import DetectionData, ImageRecord
from msbal.data.detection_data import subset
from msbal.engine.processes import world_size
from msbal.errors import SpecError
from msbal.spec import RunSpec
from msbal.training.distributed import resolve_device
from msbal_ultralytics.arguments import GRID, KEY, check_image_size, read_arguments, without_effect
from msbal_ultralytics.assignment import levels_of_pass
from msbal_ultralytics.config import read_model
from msbal_ultralytics.spec import UltralyticsModel
from msbal_ultralytics.splitters import find
from msbal_ultralytics.training import CHECKPOINTS, Trainer
from msbal_ultralytics.training.recipe import BATCH, Recipe, frozen_layers
from msbal_ultralytics.training.samples import Samples, resized
from msbal_ultralytics.weights import start_from

CONFIDENCE = 0.001
"""Below it ultralytics' evaluation drops detections."""
TOGETHER = 8
"""Images in a batch that is assigned to levels."""
NEVER = 1e6
"""Seconds after which the suppression of overlaps gives up: what is detected must not depend on the machine."""


class SplitUltralytics(SplitModel):
    """A YOLO model and its splitters."""

    def training_losses(self, batch: Any) -> Mapping[str, Tensor]:
        losses, names = self.model(batch)
        return dict(zip(names, losses.unbind(), strict=True))


class UltralyticsDetector(SplitUltralytics):
    """See `msbal.backend.Detector`.

    Attributes:
        average: the model with averaged weights, which predicts if there is one.

    Raises:
        SpecError: where the model cannot be built, or has nothing to balance.
    """

    def __init__(self, spec: RunSpec, classes: Sequence[str]) -> None:
        assert isinstance(spec.model, UltralyticsModel)
        self.spec, self.classes, self.device = spec, tuple(classes), resolve_device(spec.device)
        if spec.schedule.amp == "fp16" and self.device.type == "cpu":
            raise SpecError("schedule.amp", "`fp16` on the CPU", "none or bf16")
        if spec.balance.scope is not None:
            given = f"[{', '.join(spec.balance.scope)}]"
            raise SpecError("balance.scope", given, "no scope", "leave it out: every head is balanced")
        self.arguments = read_arguments(spec)
        config = read_model(spec.model.config)
        model = _build(spec, config, classes)
        model.names, model.nc = dict(enumerate(classes)), len(classes)
        if spec.model.weights is not None:
            start_from(model, config, spec.model.weights)
        model.args = self.arguments
        self.grid = max(GRID, int(model.stride.max()))
        check_image_size(self.arguments.imgsz, self.grid)
        if self.batch_size() == 1 and self.arguments.imgsz * (1 - self.arguments.multi_scale) < 2 * self.grid:
            raise SpecError(
                "schedule.batch_size", f"1, with images of {self.arguments.imgsz} pixels",
                "at least 2, or larger images", "batch norm needs more than one value of a channel",
            )  # fmt: skip
        _freeze(model, self.arguments.freeze)
        model.to(self.device).train()
        super().__init__(model, find(model))
        self.recipe = Recipe(model, spec.schedule, self.device, len(classes), self.grid)
        self.average: nn.Module | None = None

    # -- one batch -------------------------------------------------------------------------------

    def batch(self, data: DetectionData, indices: Sequence[int]) -> dict[str, Any]:
        """Return a batch on the device as ultralytics' models take it, its images padded to a square."""
        samples = Samples(subset(data, indices).images, self.classes, self.arguments, augment=False)
        found: dict[str, Any] = Samples.collate_fn([samples[i] for i in range(len(samples))])
        found = {
            key: value.to(self.device) if isinstance(value, Tensor) else value for key, value in found.items()
        }
        found["img"] = found["img"].float() / 255
        return found

    def box_levels(
        self, data: DetectionData, by_running: bool = False, progress: Callable[[int], None] | None = None
    ) -> dict[str, NDArray[np.int64]]:
        """See `msbal.backend.AssignsBoxes`: known only by running, as the assigner goes by predictions."""
        if not by_running:
            return {}

        def run(indices: Sequence[int]) -> dict[str, list[Tensor]]:
            # Batch norm needs two images where the coarsest level is one cell.
            batch = self.batch(data, indices if len(indices) > 1 else [*indices, *indices])
            levels = levels_of_pass(self.splitters, batch, lambda: self.training_losses(batch))
            return {group: of_images[: len(indices)] for group, of_images in levels.items()}

        with torch.no_grad(), own_passes(self.model, self.splitters):
            with_boxes = [i for i, record in enumerate(data.images) if not record.crowd.all()]
            batches = (with_boxes[i : i + TOGETHER] for i in range(0, len(with_boxes), TOGETHER))
            groups = [group.name for group in self.groups]
            return levels_by_running(data, groups, batches, run, progress)

    # -- a run -----------------------------------------------------------------------------------

    def batch_size(self) -> int:
        """Return the images per iteration and process."""
        return self.spec.schedule.batch_size or max(1, BATCH // world_size())

    def remarks(self, train: DetectionData) -> list[str]:
        """Say how many images have no boxes, and what of ultralytics' recipe a spec switches off."""
        notes = use_notes(train) + without_effect(self.spec)
        schedule = self.spec.schedule
        if schedule.optimizer is not None and schedule.clip_norm is None:
            notes.append(
                "schedule.optimizer steps without ultralytics' clipping at 10 (schedule.clip_norm) and its "
                "accumulation to about 64 images (schedule.accumulate)"
            )
        return notes

    def iterations(self, train: DetectionData) -> int:
        """Return the spec's length of a run, or that of ultralytics' 100 epochs."""
        epochs = self.spec.schedule.epochs or 100
        batches = -(-len(train) // (self.batch_size() * world_size()))
        return self.spec.schedule.iterations or epochs * batches

    def train(self, job: Job) -> None:
        """Train to the end, or until asked to stop."""
        batch = self.batch_size()
        self.recipe.plan(len(job.train), batch * world_size(), self.iterations(job.train))
        samples = Samples(job.train.images, self.classes, self.arguments, augment=True)
        if self.recipe.weigh_classes(samples):
            vars(self.model)["criterion"] = None  # it has the weights from its beginning
            self.splitters = tuple(find(self.model))
        trainer = Trainer(self, self.recipe, samples, job, batch)
        self.average = trainer.ema.ema
        trainer.train(lambda iteration: job.evaluate and job.evaluate(self, iteration))

    def load(self, checkpoint: Path) -> None:
        """Load a checkpoint's weights, the averaged ones."""
        CHECKPOINTS.load_weights(self.model, checkpoint)
        self.average = None

    @torch.inference_mode()
    def predict(
        self, data: DetectionData, progress: Callable[[int], None] | None = None
    ) -> list[dict[str, Any]]:
        """Return detections in COCO results format, the images in order and the best first in each.

        Like ultralytics' evaluation, but a single image is padded only to whole cells, and what is found in the padding
        is left out.
        """
        model: Any = self.model if self.average is None else self.average
        args, pad = self.arguments, LetterBox(self.arguments.imgsz, auto=True, stride=self.grid)
        model.end2end = args.nms is False
        if model.end2end:
            model.set_head_attr(max_det=args.max_det, agnostic_nms=args.agnostic_nms)

        def detect(record: ImageRecord) -> tuple[Tensor, Tensor, Tensor]:
            pixels = pad(image=resized(record, args.imgsz))[:, :, ::-1].transpose(2, 0, 1)
            image = torch.from_numpy(pixels.copy()).to(self.device)[None].float() / 255
            found = non_max_suppression(
                model(image), CONFIDENCE if args.conf is None else args.conf, args.iou, agnostic=args.agnostic_nms,
                multi_label=True, max_det=args.max_det, max_time_img=NEVER, end2end=model.end2end,
            )[0]  # fmt: skip
            boxes = scale_boxes(image.shape[2:], found[:, :4].float(), (record.height, record.width))
            # It cuts them at the image's edge: of a box in the padding nothing is left.
            kept = (boxes[:, 2:4] > boxes[:, :2]).all(dim=1)
            return boxes[kept], found[kept, 5].long(), found[kept, 4]

        return predict_each(model, data, detect, progress)


def _build(spec: RunSpec, config: Mapping[str, Any], classes: Sequence[str]) -> Any:
    """Build a model on the CPU, its initial weights decided by the spec's seed.

    Raises:
        SpecError: with ultralytics' reason.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        try:
            return DetectionModel(dict(config), nc=len(classes), verbose=False)
        except Exception as error:  # a layer that is unknown, or does not fit the one before
            raise SpecError(
                "model.config", f"ultralytics cannot build it: {type(error).__name__}: "
                f"{' '.join(str(error).split())[:300]}", "a model's YAML",
            ) from error  # fmt: skip


def _freeze(model: nn.Module, freeze: Any) -> None:
    """Freeze the layers that ultralytics' ``freeze`` names; all others learn.

    Raises:
        SpecError: where nothing would be left to train.
    """
    names = frozen_layers(freeze)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in names))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise SpecError(f"{KEY}.freeze", f"{freeze!r} freezes the whole model", "fewer layers")
