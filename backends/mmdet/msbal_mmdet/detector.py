"""The detector of `msbal.backend`, around a model of mmdet."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from numpy.typing import NDArray
from torch import nn

from msbal.backend import Job
from msbal.data import DetectionData, ImageRecord
from msbal.spec import RunSpec
from msbal_mmdet import checkpoints, pipeline
from msbal_mmdet.images import naming_images
from msbal_mmdet.loader import run_length
from msbal_mmdet.masks import Outlines, read_outlines
from msbal_mmdet.notes import plan_notes
from msbal_mmdet.splitters.model_losses import Batch, ModelLosses


class MMDetDetector(ModelLosses):
    """See `msbal.backend.Detector`.

    Attributes:
        config: the spec's config, its model as built.
    """

    def __init__(self, model: nn.Module, config: Config, spec: RunSpec, device: torch.device) -> None:
        super().__init__(model.to(device), spec.balance.scope)
        self.config, self.spec, self.device = config, spec, device
        self._outlines: Outlines | None = None

    def config_copy(self) -> Config:
        """The config, for the spec to be applied to."""
        return copy.deepcopy(self.config)

    def batch(self, data: DetectionData, indices: Sequence[int]) -> Batch:
        """As a data loader gives it; images as the config resizes them for evaluation."""
        outlines = self.outlines(data)
        transform = pipeline.measuring(self.config, masks=outlines is not None)
        return pipeline.collate([transform(pipeline.info(data.images[i], outlines)) for i in indices])

    def read_images(self, record: ImageRecord) -> list[NDArray[np.uint8]]:
        """See `msbal.backend.ReadsImages`: as the config trains and as it evaluates."""
        return pipeline.read_images(self.config, record)

    def check_data(self, train: DetectionData) -> None:
        """Refuse data in which an object has no mask, where masks are learned.

        Raises:
            DataError: naming the object.
        """
        outlines = self.outlines(train)
        if outlines is not None:
            outlines.check(train.images)

    def outlines(self, train: DetectionData) -> Outlines | None:
        """What a mask head learns from, read once; None for a config without."""
        if self._outlines is None:
            self._outlines = read_outlines(self.config, self.spec, train.category_ids)
        return self._outlines

    def drop_outlines(self) -> None:
        """Forget them: those of a large data set take gigabytes, in every process."""
        self._outlines = None

    def remarks(self, train: DetectionData) -> list[str]:
        """Images that the config leaves out, and what of it a run does not follow.

        Raises:
            DataError: where no image is left, or an object lacks the mask that is learned.
        """
        self.check_data(train)
        return plan_notes(self.config_copy(), self.spec, train)

    def iterations(self, train: DetectionData) -> int:
        """Length of the run, by the spec, else by the config."""
        return run_length(self.config_copy(), self.spec, train)

    def train(self, job: Job) -> None:
        """Train; see `msbal_mmdet.training`."""
        from msbal_mmdet.training import train

        train(self, job)

    def adopt(self, runner: Any) -> None:
        """Take over the model that mmengine trained, its averaged weights where it has any."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for hook in runner.hooks:
            if type(hook).__name__ == "EMAHook":
                hook._swap_ema_parameters()
        self.model = model

    def load(self, checkpoint: Path) -> None:
        """Load a checkpoint's weights, the averaged ones where it has any."""
        checkpoints.load_weights(self.model, checkpoint)

    @torch.inference_mode()
    def predict(self, data: DetectionData) -> list[dict[str, Any]]:
        """Detections in COCO results format, the images in order."""
        transform = pipeline.predicting(self.config)
        size = self.spec.schedule.batch_size or 1
        was_training = self.model.training
        self.model.eval()
        found: list[dict[str, Any]] = []
        try:
            for start in range(0, len(data), size):
                records = data.images[start : start + size]
                with naming_images():
                    batch = pipeline.collate([transform(pipeline.info(record)) for record in records])
                found += pipeline.coco_results(data, self.model.test_step(batch))
        finally:
            self.model.train(was_training)
        return found
