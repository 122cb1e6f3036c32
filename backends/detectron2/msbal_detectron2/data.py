"""msbal's data sets as detectron2's: dataset dicts, registration, the training stream."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.structures import BoxMode
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from msbal.data.model import DetectionData, ImageRecord
from msbal.errors import DataError

Mapper = Callable[[dict[str, Any]], dict[str, Any]]


def dataset_dict(record: ImageRecord) -> dict[str, Any]:
    """An image as detectron2's mappers take it. Labels are indices; crowds are marked, mappers drop them."""
    return {
        "file_name": str(record.path),
        "image_id": record.id,
        "width": record.width,
        "height": record.height,
        "annotations": [
            {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": label, "iscrowd": int(crowd)}
            for box, label, crowd in zip(
                record.boxes.tolist(), record.labels.tolist(), record.crowd.tolist(), strict=True
            )
        ],
    }


def register_data(data: DetectionData, name: str) -> None:
    """Make a data set that msbal has read (COCO, VOC, generated) known to detectron2 under `name`.

    Raises:
        DataError: where the name is taken.
    """
    if name in DatasetCatalog.list():
        raise DataError("data", f"`{name}` is registered with detectron2 already", fix="choose another name")
    DatasetCatalog.register(name, lambda: [dataset_dict(record) for record in data.images])
    MetadataCatalog.get(name).set(
        thing_classes=list(data.classes),
        thing_dataset_id_to_contiguous_id={id_: i for i, id_ in enumerate(data.category_ids)},
    )


def map_image(mapper: Mapper, record: ImageRecord) -> dict[str, Any]:
    """Run a mapper on an image.

    Raises:
        DataError: where the file cannot be read, or has another size than the annotations say.
    """
    try:
        return mapper(dataset_dict(record))
    except SizeMismatchError as error:
        raise DataError(str(record.path), str(error), f"{record.width} x {record.height} pixels") from error
    except (OSError, SyntaxError) as error:
        raise DataError(str(record.path), f"cannot be read: {error}", "an image") from error


def mix(*parts: int | str) -> int:
    """A seed below 2**63 from several numbers and names."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """NumPy's and Python's generators, which augmentations draw from, seeded; put back at the end."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, images: int) -> Tensor:
    return torch.randperm(images, generator=torch.Generator().manual_seed(mix("order", seed, epoch)))


@dataclass(frozen=True)
class Stream(Dataset[dict[str, Any]]):
    """The endless stream of training samples, addressed by position.

    A sample is a function of (seed, position) alone: not of the strategy, the workers, the processes or where
    a run was resumed. detectron2's own sampler starts anew on a resume.

    Args:
        images: those to train on.
        mapper: detectron2's, with the config's augmentations.
        seed: of order and augmentation.
    """

    images: Sequence[ImageRecord]
    mapper: Mapper
    seed: int

    def __getitem__(self, position: int) -> dict[str, Any]:
        epoch, place = divmod(position, len(self.images))
        record = self.images[int(_permutation(self.seed, epoch, len(self.images))[place])]
        with seeded(mix("augment", self.seed, position)):
            return map_image(self.mapper, record)


@dataclass(frozen=True)
class Positions(Sampler[list[int]]):
    """The positions of one process's batches, an iteration each, from `first` on.

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
