"""Images and boxes through mmdet's own transforms, without a data set class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import Compose, LoadImageFromFile
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from numpy.typing import NDArray

from msbal.data import ImageRecord, read_pixels
from msbal.errors import DataError, SpecError
from msbal_mmdet.config.masks import Outlines
from msbal_mmdet.config.nodes import kind, walk

_STEADY = ("LoadImageFromFile", "LoadAnnotations", "Resize", "FixScaleResize", "Pad")
_PACK = {
    "type": "PackDetInputs",
    "meta_keys": (
        "img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction",
    ),
}  # fmt: skip


def test_transforms(config: Config) -> list[dict[str, Any]]:
    """Return the config's transforms for evaluation; where it only trains, those of its training that are not random.

    Raises:
        SpecError: where there is nothing that loads and resizes an image.
    """
    pipelines = [
        node.get("pipeline")
        for key in ("val_dataloader", "test_dataloader")
        for node in walk(config.get(key) or {})
    ]
    for pipeline in (*pipelines, config.get("test_pipeline"), config.get("val_pipeline")):
        if pipeline:
            return [dict(step) for step in pipeline]
    for node in walk(config.train_dataloader):
        steps = [dict(step) for step in node.get("pipeline") or () if kind(step) in _STEADY]
        if len(steps) > 1:
            return [*steps, {"type": "PackDetInputs"}]
    raise SpecError(
        "model.config",
        "it has no transforms for evaluation",
        "a val_dataloader, test_dataloader or test_pipeline",
    )


def _test_steps(config: Config) -> list[dict[str, Any]]:
    """Return the steps that load and change the image, without annotations and packing."""
    steps = test_transforms(config)
    return [step for step in steps if not any(name in kind(step) for name in ("LoadAnnotations", "Pack"))]


def predicting(config: Config) -> Compose:
    """Return what turns an image into an input, as in evaluation."""
    return Compose([*_test_steps(config), _PACK])


def measuring(config: Config, masks: bool = False) -> Compose:
    """Return what turns an image, boxes and masks into a training sample, as in evaluation: nothing random."""
    steps = _test_steps(config)
    # Before everything else: mmdet's evaluation loads boxes after resizing, as its metrics want the originals.
    load = {"type": "LoadAnnotations", "with_bbox": True, "with_mask": masks}
    return Compose([steps[0], load, *steps[1:], _PACK])


def resizing(
    config: Config,
) -> Callable[[int, int, NDArray[np.float32]], tuple[NDArray[np.float32], int, int]]:
    """Return what turns an image's width and height and boxes (``[N, 4]``) into those of the model's input.

    The steps of evaluation run on a black image, and so does whatever a config has among them.
    """
    transform = Compose(_test_steps(config)[1:])

    def resize(width: int, height: int, boxes: NDArray[np.float32]) -> tuple[NDArray[np.float32], int, int]:
        pixels = np.zeros((height, width, 3), np.uint8)
        size = (height, width)
        found = transform(
            {"img": pixels, "img_shape": size, "ori_shape": size, "gt_bboxes": HorizontalBoxes(boxes)}
        )
        resized: NDArray[np.float32] = found["gt_bboxes"].tensor.numpy()
        return resized, found["img"].shape[1], found["img"].shape[0]

    return resize


def read_images(config: Config, record: ImageRecord) -> list[NDArray[np.uint8]]:
    """Return ``[H, W, 3]`` RGB as the config's steps for training and for evaluation load it, where they do."""
    loading = [
        node["pipeline"][0] for node in walk(config.get("train_dataloader") or {}) if node.get("pipeline")
    ][:1]
    loading += [step for step in test_transforms(config)[:1] if step not in loading]
    found = []
    for step in loading:
        if kind(step) != "LoadImageFromFile":
            continue
        pixels = Compose([step])(info(record))["img"]
        if pixels.ndim == 3 and pixels.shape[2] == 3:
            found.append(pixels[:, :, ::-1].astype(np.uint8))
    return found


def info(record: ImageRecord, outlines: Outlines | None = None) -> dict[str, Any]:
    """Return an image as mmdet's data sets describe it."""
    masks = [{}] * len(record.boxes) if outlines is None else [{"mask": mask} for mask in outlines.of(record)]
    return {
        "img_id": record.id,
        "img_path": str(record.path),
        "height": record.height,
        "width": record.width,
        "instances": [
            {"bbox": box, "bbox_label": label, "ignore_flag": int(ignored), **mask}
            for box, label, ignored, mask in zip(
                record.boxes.tolist(),
                record.labels.tolist(),
                (record.crowd | record.difficult).tolist(),
                masks,
                strict=True,
            )
        ],
    }


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a batch as mmengine's ``pseudo_collate`` does: lists, not yet stacked."""
    return {key: [sample[key] for sample in samples] for key in ("inputs", "data_samples")}


@contextmanager
def naming_images() -> Iterator[None]:
    """Let mmcv's transform that loads an image fail as the other backends do, for a while.

    The class is changed. So is what loads images in processes that are forked meanwhile, and what hooks make of a
    config's transforms in the middle of a run.

    Raises:
        DataError: in place of whatever mmcv raises, and where the image has another size than the annotations say.
    """
    own = LoadImageFromFile.transform

    def transform(self: LoadImageFromFile, results: dict[str, Any]) -> dict[str, Any] | None:
        path, size = Path(results["img_path"]), (results.get("width", 0), results.get("height", 0))
        try:
            loaded: dict[str, Any] | None = own(self, results)
            if loaded is not None and all(size):
                _require_size(loaded, *size)
        except DataError:
            raise
        except Exception as error:  # decoders raise anything on damaged files
            read_pixels(path, *size)  # raises what all backends say, where the file is to blame
            reason = (str(error).strip().splitlines() or [""])[-1][:200]
            raise DataError(
                str(path),
                f"cannot be read by mmcv: {reason}",
                fix="save it anew as a JPEG or PNG, without an EXIF orientation",
            ) from error
        return loaded

    LoadImageFromFile.transform = transform
    try:
        yield
    finally:
        LoadImageFromFile.transform = own


def _require_size(loaded: dict[str, Any], width: int, height: int) -> None:
    found = loaded["img"].shape[:2]
    if found != (height, width):
        raise ValueError(
            f"it finds {found[1]} x {found[0]} pixels, and the annotations say {width} x {height}"
        )
