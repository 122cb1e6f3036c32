"""The detector of `msbal.backend`, around a torchvision model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msbal.backend import Job
from msbal.backend.kit.data_set import predict_each, use_notes
from msbal.backend.kit.one_batch import SplitModel
from msbal.backend.kit.splitter import LossSplitter
from msbal.data import DetectionData, ImageRecord
from msbal.engine.processes import world_size
from msbal.errors import SpecError
from msbal.spec import RunSpec
from msbal_torchvision.assignment import box_levels
from msbal_torchvision.pixels import read_image, read_target, require_extent, to_device
from msbal_torchvision.training import CHECKPOINTS, Trainer

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


class TorchvisionDetector(SplitModel):
    """See `msbal.backend.Detector`.

    Labels are torchvision's: class 0 is the background, the first class of the data set is 1.

    Attributes:
        average: the model with averaged weights, which predicts if there is one.
    """

    def __init__(
        self, model: nn.Module, splitters: Sequence[LossSplitter], spec: RunSpec, device: torch.device
    ) -> None:
        super().__init__(model.to(device), splitters)
        self.spec, self.device = spec, device
        self.average: nn.Module | None = None

    def batch(self, data: DetectionData, indices: Sequence[int]) -> Batch:
        """Return images and targets on the device, as ``model(images, targets)`` takes them.

        Raises:
            DataError: where an image cannot be read, or resizing leaves nothing of it.
        """
        for index in indices:
            require_extent(data.images[index], self.model.transform)
        samples = [(read_image(data.images[i]), read_target(data.images[i])) for i in indices]
        return to_device(samples, self.device)

    def box_levels(
        self, data: DetectionData, by_running: bool = False, progress: Callable[[int], None] | None = None
    ) -> dict[str, NDArray[np.int64]]:
        """Return the level of each box by the model's own anchors and sizes, whatever its weights."""
        return box_levels(self.model, self.groups, data)

    def remarks(self, train: DetectionData) -> list[str]:
        """Say how many images have no boxes: torchvision trains on all images."""
        return use_notes(train)

    def iterations(self, train: DetectionData) -> int:
        """Return the length of the run, by the spec."""
        total = self.spec.schedule.total_iterations(len(train), world_size())
        if total is None:
            raise SpecError("schedule", "no length", "`iterations`, or `epochs` and `batch_size`")
        return total

    def train(self, job: Job) -> None:
        """Train to the end, or until asked to stop."""
        trainer = Trainer(self, self.device, job, self.iterations(job.train))
        self.average = trainer.average and trainer.average.module
        trainer.train(lambda iteration: job.evaluate and job.evaluate(self, iteration))

    def load(self, checkpoint: Path) -> None:
        """Load a checkpoint's weights, the averaged ones where it has any."""
        CHECKPOINTS.load_weights(self.model, checkpoint)
        self.average = None

    @torch.inference_mode()
    def predict(
        self, data: DetectionData, progress: Callable[[int], None] | None = None
    ) -> list[dict[str, Any]]:
        """Return detections in COCO results format, the images in order and the best first in each."""
        model = self.model if self.average is None else self.average

        def detect(record: ImageRecord) -> tuple[Tensor, Tensor, Tensor]:
            images, _ = to_device([(read_image(record), {})], self.device)
            found = model(images)[0]
            # RetinaNet and FCOS have an output for the background too, which no target ever raises.
            kept = found["labels"] > 0
            return found["boxes"][kept], found["labels"][kept] - 1, found["scores"][kept]

        return predict_each(model, data, detect, progress)
