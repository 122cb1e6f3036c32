"""msbal's data sets as detectron2's: dataset dicts, outlines of objects, registration, the training stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import SizeMismatchError, read_image
from detectron2.structures import BoxMode
from numpy.typing import NDArray
from torch.utils.data import Dataset

from msbal.backend.kit.seeding import mix, seeded
from msbal.data import DetectionData, ImageRecord, read_pixels
from msbal.data.coco import outlines
from msbal.errors import DataError
from msbal.training.stream import image_at

Mapper = Callable[[dict[str, Any]], dict[str, Any]]


_CORNERS = 3


class Outlines(outlines.Outlines):
    """The objects' outlines as detectron2 takes them; see `msbal.data.coco.outlines`."""

    instead: ClassVar[str] = (
        "override MODEL.MASK_ON=False (in a LazyConfig model.roi_heads.mask_in_features=null)"
    )

    def of(self, record: ImageRecord) -> list[Any]:
        """Return one outline an object; an empty list for fewer than three corners, as detectron2 leaves those out."""
        return [_checked(outline) for outline in super().of(record)]


def _checked(outline: Any) -> Any:
    """Check an outline as ``detectron2.data.datasets.load_coco_json`` does."""
    if outline is None:
        return None
    if isinstance(outline, dict):
        if isinstance(outline["counts"], list):
            from pycocotools import mask

            outline = mask.frPyObjects(outline, *outline["size"])
        return outline
    return [polygon for polygon in outline if len(polygon) % 2 == 0 and len(polygon) >= 2 * _CORNERS]


def dataset_dict(record: ImageRecord, outlines: Outlines | None = None) -> dict[str, Any]:
    """Return an image as detectron2's mappers take it. Labels are indices; crowds are marked, and mappers drop them.

    Raises:
        DataError: where `outlines` lack an object.
    """
    annotations: list[dict[str, Any]] = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": label, "iscrowd": int(crowd)}
        for box, label, crowd in zip(
            record.boxes.tolist(), record.labels.tolist(), record.crowd.tolist(), strict=True
        )
    ]
    if outlines is not None:
        for annotation, outline in zip(annotations, outlines.of(record), strict=True):
            annotation["segmentation"] = outline
        annotations = [a for a in annotations if a["iscrowd"] or a["segmentation"]]
    return {
        "file_name": str(record.path),
        "image_id": record.id,
        "width": record.width,
        "height": record.height,
        "annotations": annotations,
    }


def register_data(data: DetectionData, name: str) -> None:
    """Register a data set that msbal has read (COCO, VOC, ...) with detectron2 under `name`.

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


def map_image(mapper: Mapper, record: ImageRecord, outlines: Outlines | None = None) -> dict[str, Any]:
    """Run a mapper on an image.

    Raises:
        DataError: where the file cannot be read, or has another size than the annotations say.
    """
    try:
        return mapper(dataset_dict(record, outlines))
    except Exception as error:  # decoders raise anything on damaged files
        # Raises the error of all backends, where the file is to blame.
        read_pixels(record.path, record.width, record.height)
        if isinstance(error, SizeMismatchError | OSError | SyntaxError):
            raise DataError(
                str(record.path),
                f"cannot be read by detectron2: {error}",
                fix="save it anew as a JPEG or PNG, without an EXIF orientation",
            ) from error
        raise


def read_images(record: ImageRecord, mapper: Any) -> list[NDArray[np.uint8]]:
    """Return ``[H, W, 3]`` RGB as a mapper reads it; nothing where it reads other colours than RGB or BGR."""
    if mapper.image_format not in ("RGB", "BGR"):
        return []
    pixels = read_image(str(record.path), format=mapper.image_format)
    return [pixels if mapper.image_format == "RGB" else pixels[:, :, ::-1]]


@dataclass(frozen=True)
class Stream(Dataset[dict[str, Any]]):
    """The endless stream of training samples, addressed by position.

    A sample depends on (seed, position) alone, not on the strategy, the workers, the processes or where a run was
    resumed. detectron2's own sampler would start anew on a resume.

    Args:
        images: those to train on.
        mapper: detectron2's, with the config's augmentations.
        seed: of order and augmentation.
        outlines: those of the objects, where masks are learned.
    """

    images: Sequence[ImageRecord]
    mapper: Mapper
    seed: int
    outlines: Outlines | None = None

    def __getitem__(self, position: int) -> dict[str, Any]:
        record = self.images[image_at(position, len(self.images), self.seed)]
        with seeded(mix("augment", self.seed, position)):
            return map_image(self.mapper, record, self.outlines)
