"""The detector of `msbal.backend`, around an mmdet model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.model import is_model_wrapper
from numpy.typing import NDArray
from torch import Tensor, nn

from msbal.backend import Job
from msbal.backend.kit.assignment import levels_by_running
from msbal.backend.kit.data_set import predict_each
from msbal.backend.kit.one_batch import own_passes
from msbal.data import DetectionData, ImageRecord
from msbal.engine.processes import rank
from msbal.spec import RunSpec
from msbal_mmdet.assignment import all_trained_on, batches_of, inputs_of, levels_at_once, levels_of_pass
from msbal_mmdet.config import pipeline
from msbal_mmdet.config.datasets import apply_data
from msbal_mmdet.config.length import run_length
from msbal_mmdet.config.masks import Outlines, read_outlines
from msbal_mmdet.config.notes import plan_notes
from msbal_mmdet.config.schedule import apply_schedule
from msbal_mmdet.splitters.base import HeadSplitter
from msbal_mmdet.splitters.model_losses import Batch, ModelLosses
from msbal_mmdet.training import checkpoints, runner
from msbal_mmdet.training.overrides import apply_run

CONFIG_FILE = "config.py"
"""The whole config in the run's folder, as mmdet's own tools/train.py takes it."""


class MMDetDetector(ModelLosses):
    """See `msbal.backend.Detector`.

    Attributes:
        config: the spec's config, its model as built.
    """

    def __init__(self, model: nn.Module, config: Config, spec: RunSpec, device: torch.device) -> None:
        super().__init__(model.to(device), spec.balance.scope)
        self.config, self.spec, self.device = config, spec, device
        self._outlines: Outlines | None = None

    def batch(self, data: DetectionData, indices: Sequence[int]) -> Batch:
        """Return a batch as a data loader gives it, its images resized as for evaluation."""
        outlines = self._read_outlines(data)
        transform = pipeline.measuring(self.config, masks=outlines is not None)
        return pipeline.collate([transform(pipeline.info(data.images[i], outlines)) for i in indices])

    def box_levels(
        self, data: DetectionData, by_running: bool = False, progress: Callable[[int], None] | None = None
    ) -> dict[str, NDArray[np.int64]]:
        """See `msbal.backend.AssignsBoxes`: by anchors and ranges, else by the heads' own assigners."""
        splitters = [splitter for splitter in self._splitters() if isinstance(splitter, HeadSplitter)]
        inputs = inputs_of(self.config, self.model, data)
        known = {splitter.group.name: levels_at_once(splitter, inputs) for splitter in splitters}
        found = {name: levels.numpy() for name, levels in known.items() if levels is not None}
        rest = [splitter for splitter in splitters if known[splitter.group.name] is None]
        if not by_running or not rest:
            return found
        trained = all_trained_on(data)

        def run(indices: Sequence[int]) -> Mapping[str, Sequence[Tensor]]:
            batch = self.batch(trained, indices)
            return levels_of_pass(rest, len(indices), lambda: self._losses(batch, augment=False))

        with torch.no_grad(), own_passes(self.model, self._splitters()):
            groups = [splitter.group.name for splitter in rest]
            batches = batches_of(data, inputs.sizes)
            return found | levels_by_running(data, groups, batches, run, progress)

    def read_images(self, record: ImageRecord) -> list[NDArray[np.uint8]]:
        """See `msbal.backend.ReadsImages`: as the config trains and as it evaluates."""
        return pipeline.read_images(self.config, record)

    def check_data(self, train: DetectionData) -> None:
        """Refuse data in which an object has no mask, where masks are learned.

        Raises:
            DataError: naming the object.
        """
        outlines = self._read_outlines(train)
        if outlines is not None:
            outlines.check(train.images)

    def _read_outlines(self, train: DetectionData) -> Outlines | None:
        """Return what a mask head learns from, read once; None for a config without."""
        if self._outlines is None:
            self._outlines = read_outlines(self.config, self.spec, train.category_ids)
        return self._outlines

    def remarks(self, train: DetectionData) -> list[str]:
        """Name images that the config leaves out, and what in it a run does not follow.

        Raises:
            DataError: where no image is left, or an object lacks the mask that is learned.
        """
        self.check_data(train)
        return plan_notes(copy.deepcopy(self.config), self.spec, train)

    def iterations(self, train: DetectionData) -> int:
        """Return the length of the run, by the spec, else by the config."""
        return run_length(copy.deepcopy(self.config), self.spec, train)

    def train(self, job: Job) -> None:
        """Train; the model is then the one that mmengine trained, with its averaged weights where it has any."""
        trained = runner.train(self, self._run_config(job), job)
        model = trained.model.module if is_model_wrapper(trained.model) else trained.model
        for hook in trained.hooks:
            if isinstance(hook, EMAHook):
                hook._swap_ema_parameters()
        self.model = model

    def _run_config(self, job: Job) -> Config:
        """Return the config with the spec applied to it; the first rank writes it and its data to the run's folder."""
        config: Config = copy.deepcopy(self.config)
        first = rank() == 0
        outlines = self._read_outlines(job.train) if first else None
        apply_schedule(config, job.spec)
        apply_data(
            config, job.spec, job.train, job.val, job.run.path / "data", write=first, outlines=outlines
        )
        self._outlines = (
            None  # of a large data set they take gigabytes, in every process; the run's file has them
        )
        apply_run(config, job.spec, job.run.path / "mmengine")
        if first:
            config.dump(str(job.run.path / CONFIG_FILE))
        return config

    def load(self, checkpoint: Path) -> None:
        """Load a checkpoint's weights, the averaged ones where it has any.

        Raises:
            SpecError: where they do not fit the model.
            RunError: where no checkpoint can be read.
        """
        kept = checkpoints.load_weights(self.model, checkpoint)
        self.counters = {"iter": kept["iteration"], "epoch": 0}
        match kept:
            case {"message_hub": {"runtime_info": {"epoch": int(epoch)}}}:
                self.counters["epoch"] = epoch

    @torch.inference_mode()
    def predict(
        self, data: DetectionData, progress: Callable[[int], None] | None = None
    ) -> list[dict[str, Any]]:
        """Return detections in COCO results format, the images in order."""
        transform, model = pipeline.predicting(self.config), self.model

        def detect(record: ImageRecord) -> tuple[Tensor, Tensor, Tensor]:
            with pipeline.naming_images():
                batch = pipeline.collate([transform(pipeline.info(record))])
            found = model.test_step(batch)[0].pred_instances
            return _boxes(found), found.labels, found.scores

        return predict_each(model, data, detect, progress)


def _boxes(found: Any) -> Tensor:
    """Return ``[N, 4]``; those around the masks for a model that predicts masks alone (SOLO), whose boxes are 0."""
    boxes: Tensor = found.bboxes
    if "masks" in found and len(boxes) and not boxes.any():
        from mmdet.structures.mask import mask2bbox

        boxes = mask2bbox(found.masks)
    return boxes
