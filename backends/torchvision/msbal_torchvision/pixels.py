"""Images and boxes as torchvision's models take them, in an order that only the seed decides.

A sample is named by its position in the endless stream of training samples. Its image, and what chance does
to it, are functions of (seed, position) alone: not of the strategy, the workers, the processes or where a
run was resumed. Runs that differ in their balancing so see the same pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as transforms

from msbal.data.model import DetectionData, ImageRecord
from msbal.errors import DataError

Sample = tuple[Tensor, dict[str, Tensor]]


def mix(*parts: int | str) -> int:
    """A seed below 2**63 from several numbers and names."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def read_image(record: ImageRecord) -> Tensor:
    """``[3, H, W]`` uint8, in the pixel order of the file.

    Raises:
        DataError: where the file cannot be read, or has another size than the annotations say.
    """
    try:
        with Image.open(record.path) as file:
            picture = file.convert("RGB")
            if picture.size != (record.width, record.height):
                # Some tools annotate a picture as it is shown, not as it is stored.
                picture = ImageOps.exif_transpose(file).convert("RGB")
            pixels = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(str(record.path), f"cannot be read: {error}", "an image") from error
    if pixels.shape[:2] != (record.height, record.width):
        raise DataError(
            str(record.path),
            f"is {pixels.shape[1]} x {pixels.shape[0]} pixels",
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


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, images: int) -> Tensor:
    return torch.randperm(images, generator=torch.Generator().manual_seed(mix("order", seed, epoch)))


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
        """The image at `position`: every image once an epoch, in a new order each."""
        epoch, place = divmod(position, len(self.data))
        return int(_permutation(self.seed, epoch, len(self.data))[place])

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


@dataclass(frozen=True)
class Positions(Sampler[list[int]]):
    """The positions of one process's batches, an iteration each.

    The processes' batches of an iteration lie side by side in the stream, so that together they are the
    batch that one process with their joined batch size would take.

    Args:
        first: iterations done already.
        total: iterations of the whole run.
        batch: images per iteration and process.
        rank, processes: which of how many processes.
    """

    first: int
    total: int
    batch: int
    rank: int = 0
    processes: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        for iteration in range(self.first, self.total):
            start = (iteration * self.processes + self.rank) * self.batch
            yield list(range(start, start + self.batch))

    def __len__(self) -> int:
        return self.total - self.first


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
