"""msbal's data sets as ultralytics' own, augmented by its own transforms, in the order of `msbal.training.stream`.

No label file and no cache is read or written: boxes come from the data set that msbal has read, pixels from the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset
from ultralytics.data.dataset import YOLODataset

from msbal.backend.kit.seeding import mix, seeded
from msbal.data import ImageRecord, read_pixels
from msbal.errors import DataError
from msbal.training.stream import image_at

CACHE_BYTES = 2**28
"""Of resized images that a process keeps: a mosaic reads four images, and small data sets fit."""


class Samples(YOLODataset):
    """Images with their boxes, crowds left out.

    Args:
        images: of which the samples are made, and mosaics too.
        classes: names.
        arguments: ultralytics'.
        augment: whether to augment at random; otherwise images are only resized and padded.
    """

    def __init__(
        self, images: Sequence[ImageRecord], classes: Sequence[str], arguments: Any, augment: bool
    ) -> None:
        self.records, self._pixels, self._bytes = images, dict[int, NDArray[np.uint8]](), 0
        names = dict(enumerate(classes))
        super().__init__(
            "", imgsz=arguments.imgsz, augment=augment, hyp=arguments, batch_size=1, task="detect",
            data={"names": names, "nc": len(names), "channels": 3},
        )  # fmt: skip
        closed = copy(arguments)
        closed.mosaic = closed.mixup = closed.cutmix = 0.0
        self.without_mosaics = self.build_transforms(closed)

    def get_img_files(self, img_path: Any) -> list[str]:
        """Return the paths of the images."""
        return [str(record.path) for record in self.records]

    def get_labels(self) -> list[dict[str, Any]]:
        """Return the boxes in ultralytics' form."""
        return [_label(record) for record in self.records]

    def build_transforms(self, hyp: Any) -> Any:
        """Build ultralytics' transforms, whose mosaics take any image: what was read before must decide nothing."""
        self.cache = "ram"  # the name of that behaviour there
        return super().build_transforms(hyp)

    def load_image(
        self, i: int, rect_mode: bool = True, resize_short: bool = False
    ) -> tuple[NDArray[np.uint8], tuple[int, int], tuple[int, int]]:
        """Return an image in BGR with its longer side resized to ``imgsz``, its size before, and its size.

        Raises:
            DataError: where it cannot be read, has another size than annotated, or nothing of it would be left.
        """
        record = self.records[i]
        pixels = self._pixels.get(i)
        if pixels is None:
            pixels = resized(record, self.imgsz)
            if self._bytes + pixels.nbytes <= CACHE_BYTES:
                self._pixels[i] = pixels
                self._bytes += pixels.nbytes
        height, width = pixels.shape[:2]
        return pixels.copy(), (record.height, record.width), (height, width)  # transforms write into it

    def sample(self, index: int, mosaic: bool) -> dict[str, Any]:
        """Return an augmented sample, with mosaics (and mixed images) or, near the end of a training, without."""
        transforms = self.transforms if mosaic else self.without_mosaics
        found: dict[str, Any] = transforms(self.get_image_and_label(index))
        return found


def resized(record: ImageRecord, size: int) -> NDArray[np.uint8]:
    """Return ``[H, W, 3]`` BGR whose longer side has `size` pixels.

    Raises:
        DataError: see `Samples.load_image`.
    """
    longer = max(record.width, record.height)
    if min(record.width, record.height) * size < longer:
        raise DataError(
            str(record.path),
            f"is {record.width} x {record.height} pixels: resizing to {size} leaves nothing of it",
            fix="cut images this long into parts, or raise imgsz in model.overrides",
        )
    pixels = read_pixels(record.path, record.width, record.height)[:, :, ::-1]
    if longer == size:
        return np.ascontiguousarray(pixels)
    # Rounded up, as ultralytics does.
    width, height = (-(-side * size // longer) for side in (record.width, record.height))
    return cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def _label(record: ImageRecord) -> dict[str, Any]:
    kept = ~record.crowd
    boxes = record.boxes[kept].astype(np.float32).reshape(-1, 4)
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    extent = np.array([record.width, record.height] * 2, np.float32)
    return {
        "im_file": str(record.path), "shape": (record.height, record.width),
        "cls": record.labels[kept].astype(np.float32).reshape(-1, 1),
        "bboxes": np.concatenate([centres, sides], axis=1) / extent,
        "segments": [], "keypoints": None, "normalized": True, "bbox_format": "xywh",
    }  # fmt: skip


@dataclass(frozen=True)
class Stream(Dataset[dict[str, Any]]):
    """The endless stream of training samples, addressed by position.

    A sample depends on (seed, position) alone, not on the strategy, the workers, the processes or where a run was
    resumed. ultralytics' own would depend on which images a worker has read before.

    Args:
        samples: augmented.
        seed: of order and augmentation.
        closing: the position from which there are no mosaics.
    """

    samples: Samples
    seed: int
    closing: int

    def __getitem__(self, position: int) -> dict[str, Any]:
        index = image_at(position, len(self.samples), self.seed)
        with seeded(mix("augment", self.seed, position)):
            return self.samples.sample(index, mosaic=position < self.closing)
