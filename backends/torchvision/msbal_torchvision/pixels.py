"""Images and boxes as torchvision's models take them, in the order of `msbal.training.stream`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as transforms

from msbal.backend.kit.seeding import mix
from msbal.data.model import DetectionData, ImageRecord
from msbal.errors import DataError
from msbal.training.stream import image_at

Sample = tuple[Tensor, dict[str, Tensor]]


def read_image(record: ImageRecord) -> Tensor:
    """``[3, H, W]`` uint8, in the pixel order of the file.

    Raises:
        DataError: where the file cannot be read, or has another size than the annotations say.
    """
    expected = (record.width, record.height)
    try:
        with Image.open(record.path) as file:
            size = file.size
            # Looked at first: a few bytes may speak of gigabytes of pixels.
            if sorted(size) == sorted(expected):
                picture = file.convert("RGB")
                if picture.size != expected:
                    # Some tools annotate a picture as it is shown, not as it is stored.
                    picture = ImageOps.exif_transpose(file).convert("RGB")
                size = picture.size
                pixels = np.asarray(picture)
    except Exception as error:  # Pillow's readers raise anything on damaged files
        raise DataError(str(record.path), f"cannot be read: {error}", "an image") from error
    if size != expected:
        raise DataError(
            str(record.path),
            f"is {size[0]} x {size[1]} pixels",
            f"{record.width} x {record.height}, as the annotations say",
        )
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()


def read_target(record: ImageRecord) -> dict[str, Tensor]:
    """The boxes to train on: ``boxes`` ``[N, 4]`` float32 and ``labels`` ``[N]`` from 1; crowds left out."""
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
        flip: probability of mirroring an image.
    """

    data: DetectionData
    seed: int
    flip: float = 0.5

    def index(self, position: int) -> int:
        """The image at `position`."""
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
    """What a model's forward pass takes: float images in 0..1, and targets."""
    images = [image.to(device, non_blocking=True).float() / 255 for image, _ in samples]
    targets: list[dict[str, Any]] = [
        {key: value.to(device, non_blocking=True) for key, value in target.items()} for _, target in samples
    ]
    return images, targets


def keep(samples: list[Sample]) -> list[Sample]:
    """Collate nothing: images of a batch have different sizes."""
    return samples
