"""Images and boxes as torchvision's models take them, in the order of `msbal.training.stream`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as transforms

from msbal.backend.kit.seeding import mix
from msbal.data import DetectionData, ImageRecord, read_pixels
from msbal.errors import DataError
from msbal.training.stream import image_at

Sample = tuple[Tensor, dict[str, Tensor]]


def read_image(record: ImageRecord) -> Tensor:
    """Return ``[3, H, W]`` uint8, turned as `msbal.data.images.image_files` says.

    Raises:
        DataError: where the file cannot be read, or has another size than the annotations say.
    """
    pixels = read_pixels(record.path, record.width, record.height)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def require_extent(record: ImageRecord, resizing: Any) -> None:
    """Refuse an image that a model's own resizing would shrink to less than a pixel.

    Args:
        resizing: the model's ``transform``.

    Raises:
        DataError: naming the image.
    """
    sides = sorted((record.width, record.height))
    limit = getattr(resizing, "max_size", None)
    shorter = getattr(resizing, "min_size", None)
    if limit is None or not shorter or getattr(resizing, "fixed_size", None):
        return
    scale = min(min(shorter) / sides[0], limit / sides[1])
    if sides[0] * scale < 1:
        raise DataError(
            str(record.path),
            f"is {record.width} x {record.height} pixels: resizing to at most {limit} leaves nothing of it",
            fix="cut images this long into parts, or raise model.max_size",
        )


def read_target(record: ImageRecord) -> dict[str, Tensor]:
    """Return the boxes to train on: ``boxes`` ``[N, 4]`` float32 and ``labels`` ``[N]`` from 1, without crowds."""
    kept = ~record.crowd
    return {
        "boxes": torch.from_numpy(record.boxes[kept].astype(np.float32)).reshape(-1, 4),
        "labels": torch.from_numpy(record.labels[kept].astype(np.int64)) + 1,
    }


@dataclass(frozen=True)
class Stream(Dataset[Sample]):
    """The endless stream of training samples, addressed by position.

    Args:
        data: the training split.
        seed: of order and augmentation.
        flip: the probability of mirroring an image.
    """

    data: DetectionData
    seed: int
    flip: float = 0.5

    def index(self, position: int) -> int:
        """Return the index of the image at `position`."""
        return image_at(position, len(self.data), self.seed)

    def __getitem__(self, position: int) -> Sample:
        record = self.data.images[self.index(position)]
        image, target = read_image(record), read_target(record)
        chance = torch.Generator().manual_seed(mix("augment", self.seed, position))
        if torch.rand((), generator=chance) < self.flip:
            image = transforms.horizontal_flip(image)
            boxes = tv_tensors.BoundingBoxes(
                target["boxes"],
                format=tv_tensors.BoundingBoxFormat.XYXY,
                canvas_size=(record.height, record.width),
            )
            target["boxes"] = transforms.horizontal_flip(boxes).as_subclass(Tensor)
        return image, target


def to_device(
    samples: Sequence[Sample], device: torch.device
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return what a model's forward pass takes: float images in 0..1, and targets."""
    images = [image.to(device, non_blocking=True).float() / 255 for image, _ in samples]
    targets: list[dict[str, Any]] = [
        {key: value.to(device, non_blocking=True) for key, value in target.items()} for _, target in samples
    ]
    return images, targets


def keep(samples: list[Sample]) -> list[Sample]:
    """Return the samples unchanged, as the images of a batch have different sizes."""
    return samples
