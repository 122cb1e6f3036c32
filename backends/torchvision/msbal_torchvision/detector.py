"""The detector of `msbal.backend`, around a torchvision model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msbal.backend import Job
from msbal.backend.kit.data_set import coco_results, use_notes
from msbal.backend.kit.splitter import LossSplitter
from msbal.data import DetectionData
from msbal.errors import SpecError
from msbal.spec import RunSpec
from msbal.training.distributed import world_size
from msbal_torchvision import checkpoints
from msbal_torchvision.assignment import count_boxes
from msbal_torchvision.losses import Measurable
from msbal_torchvision.pixels import read_image, read_target, require_extent, to_device

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


class TorchvisionDetector(Measurable):
    """See `msbal.backend.Detector`.

    Labels are torchvision's: class 0 is the background, the first class of the data set is 1.

    Attributes:
        average: the averaged weights, which predict where there are any.
    """

    def __init__(
        self, model: nn.Module, splitters: Sequence[LossSplitter], spec: RunSpec, device: torch.device
    ) -> None:
        super().__init__(model.to(device), splitters)
        self.spec, self.device = spec, device
        self.average: nn.Module | None = None

    def batch(self, data: DetectionData, indices: Sequence[int]) -> Batch:
        """Images and targets on the device, as ``model(images, targets)`` takes them.

        Raises:
            DataError: where an image cannot be read, or resizing leaves nothing of it.
        """
        for index in indices:
            require_extent(data.images[index], self.model.transform)
        samples = [(read_image(data.images[i]), read_target(data.images[i])) for i in indices]
        return to_device(samples, self.device)

    def boxes_per_level(self, data: DetectionData) -> dict[str, list[int]]:
        """How many of the boxes to train on belong to each level, by the model's own anchors, per group."""
        return count_boxes(self.model, self.groups, data)

    def remarks(self, train: DetectionData) -> list[str]:
        """All images are trained on, those without boxes too."""
        return use_notes(train)

    def iterations(self, train: DetectionData) -> int:
        """Length of the run, by the spec."""
        total = self.spec.schedule.total_iterations(len(train), world_size())
        if total is None:
            raise SpecError("schedule", "no length", "`iterations`, or `epochs` and `batch_size`")
        return total

    def train(self, job: Job) -> None:
        """Train; see `msbal_torchvision.training`."""
        from msbal_torchvision.training import train

        train(self, job)

    def load(self, checkpoint: Path) -> None:
        """Load a checkpoint's weights, the averaged ones where it has any.

        Raises:
            SpecError: where they do not fit the model.
            RunError: where no checkpoint can be read.
        """
        state = checkpoints.load_newest(checkpoint, lambda text: warnings.warn(text, stacklevel=3))
        weights = state["model"]
        if "average" in state:
            weights = {
                name.removeprefix("module."): value
                for name, value in state["average"].items()
                if name != "n_averaged"
            }
        try:
            self.model.load_state_dict(weights)
        except RuntimeError as error:
            raise SpecError(
                str(checkpoint), f"does not fit the model: {str(error)[:300]}", "a checkpoint of this spec"
            ) from error
        self.average = None

    @torch.inference_mode()
    def predict(self, data: DetectionData) -> list[dict[str, Any]]:
        """Detections in COCO results format, the images in order and the best first in each."""
        model = self.model if self.average is None else self.average
        was_training = model.training
        model.eval()
        found: list[dict[str, Any]] = []
        try:
            # One by one: a batch pads its images to the largest, and a prediction would depend on its
            # neighbours, and so on how many processes share the images.
            for record in data.images:
                images, _ = to_device([(read_image(record), {})], self.device)
                prediction = model(images)[0]
                # RetinaNet and FCOS have an output for the background too, which no target ever raises.
                boxes, labels, scores = (
                    prediction[key][prediction["labels"] > 0] for key in ("boxes", "labels", "scores")
                )
                found += coco_results(record.id, boxes, labels - 1, scores, data.category_ids)
        finally:
            model.train(was_training)
        return found
