"""Detectors of the model zoo built small, and a batch to try them on: for proofs, not for training.

Heads, assigners, samplers and losses stay exactly as configured. Backbones shrink to one block a stage,
and nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msbal.errors import SpecError

SIDE = 128  # pixels


def zoo() -> Path:
    """The folder of the configs that the installed mmdet carries."""
    import mmdet

    folder = Path(mmdet.__file__).parent / ".mim" / "configs"
    if not folder.is_dir():
        raise SpecError("mmdet", f"its configs are not at {folder}", fix="reinstall onedl-mmdetection")
    return folder


def load_config(path: Path) -> Any:
    """An mmengine config, with mmdet's classes registered."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    return Config.fromfile(path)


def build_small(config: Any) -> Any:
    """Build the model of a config, small, with random weights, in training mode.

    Args:
        config: of mmengine; changed in place.
    """
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.logging import MessageHub

    register_all_modules(init_default_scope=True)
    # Some heads look at the running loop's counters.
    for name, value in (("iter", 0), ("epoch", 0), ("max_iters", 1000), ("max_epochs", 12)):
        MessageHub.get_current_instance().update_info(name, value)
    model = shrink(config.model)
    with quiet():
        built = MODELS.build(model)
        with contextlib.suppress(AttributeError):
            built.init_weights()
    # The seams lie behind the backbone: without its gradients a proof takes a third of the time.
    for module in built.modules():
        backbone = getattr(module, "backbone", None)
        if isinstance(backbone, torch.nn.Module):
            backbone.requires_grad_(False)
        if isinstance(module, torch.nn.BatchNorm2d) and module.eps == 0:
            module.eps = 1e-5  # caffe-style configs; torch no longer takes 0
        if "epoch" in vars(module) and module.epoch is None:
            module.epoch = 0  # SetEpochInfoHook's task in a run
    built.train()  # returns None in distillers
    return built


def shrink(model: Any) -> Any:
    """Fewer blocks in every backbone, no downloads. In place."""
    for part in walk(model):
        part.pop("pretrained", None)
        part.pop("batch_augments", None)  # they look for a running training loop
        if "init_cfg" in part and "Pretrained" in str(part["init_cfg"]):
            part["init_cfg"] = None
        for key in ("teacher_ckpt", "checkpoint"):
            if key in part and isinstance(part[key], str):
                part[key] = None
        kind = str(part.get("type", ""))
        teacher = part.get("teacher_config")
        if isinstance(teacher, str) and teacher.startswith("configs/"):
            part["teacher_config"] = shrink(load_config(zoo() / teacher.removeprefix("configs/")))
        for key, most in (("num", 64), ("nms_pre", 200), ("max_per_img", 64), ("num_post", 64)):
            if isinstance(part.get(key), int) and part[key] > most:
                part[key] = most  # RoIs and proposals: what a proof costs, not what it shows
        if isinstance(part.get("depth"), int) and part["depth"] in (101, 152, 200) and "Net" in kind:
            part["depth"] = 50
        if "SwinTransformer" in kind:
            part["depths"] = [1 if d < 2 else 2 for d in part.get("depths", (2, 2, 2, 2))]
        if "PyramidVisionTransformer" in kind and "num_layers" in part:
            part["num_layers"] = [1] * len(part["num_layers"])
    return model


def walk(node: Any) -> Iterator[Any]:
    """Every dict of a config, outermost first."""
    if isinstance(node, dict):
        yield node
        for value in list(node.values()):
            yield from walk(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from walk(value)


def class_count(model: Any) -> int:
    """The number of classes that a built model predicts, at most 80."""
    counts = [m.num_classes for m in model.modules() if isinstance(getattr(m, "num_classes", None), int)]
    return max(1, min([c for c in counts if c > 0] or [80]))


def loads_masks(config: Any) -> bool:
    """Whether a config's training pipeline loads masks."""
    return "with_mask': True" in str(config.get("train_pipeline", config.get("train_dataloader", "")))


def sides_for(model: Any) -> tuple[tuple[int, int], ...]:
    """(height, width) of two images that this model can take.

    Of different size, so that padding is tried too, except where mmdet itself cannot do that.
    """
    heads = {cls.__name__ for m in model.modules() for cls in type(m).__mro__}
    if "SSDHead" in heads:
        # Its extra layers are made for one input size.
        generators = [m.prior_generator for m in model.modules() if hasattr(m, "prior_generator")]
        side = int(getattr(generators[0], "input_size", 300)) if generators else 300
        return ((side, side), (side, side))
    if heads & {"YOLACTHead", "RTMDetInsHead"}:
        return ((SIDE, SIDE), (SIDE, SIDE))
    if "SOLOHead" in heads:
        return ((SIDE // 2, SIDE // 2), (SIDE // 2, SIDE // 2 - 32))
    return ((SIDE, SIDE), (SIDE - 32, SIDE))


def batch(
    classes: int,
    sides: Sequence[tuple[int, int]] = ((SIDE, SIDE), (SIDE - 32, SIDE)),
    boxes: Sequence[Sequence[tuple[int, int, int, int]]] | None = None,
    seed: int = 0,
    masks: bool = True,
) -> dict[str, Any]:
    """A training batch as a data loader gives it: images, boxes of all sizes, masks, semantic maps.

    Args:
        classes: labels are below it.
        sides: (height, width) of each image, pixels.
        boxes: (x1, y1, x2, y2) of each image; by default one small to one that fills the image.
        seed: of the pixels and labels.
        masks: whether the pipeline loads them; some assigners behave differently with masks.
    """
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    rng = np.random.default_rng(seed)
    inputs, samples = [], []
    for index, (height, width) in enumerate(sides):
        chosen = boxes[index] if boxes is not None else default_boxes(height, width)
        inputs.append(torch.from_numpy(rng.integers(0, 255, (3, height, width), dtype=np.uint8)))
        sample = DetDataSample()
        sample.set_metainfo(
            {
                "img_id": index,
                "img_shape": (height, width),
                "ori_shape": (height, width),
                "pad_shape": (height, width),
                "batch_input_shape": (height, width),
                "scale_factor": (1.0, 1.0),
                "flip": False,
                "flip_direction": None,
                "border": np.array([0, height, 0, width], dtype=np.float32),
                "text": "object . thing",
                "custom_entities": False,
            }
        )
        instances = InstanceData()
        instances.bboxes = torch.tensor(np.array(chosen, dtype=np.float32).reshape(-1, 4))
        labels = rng.integers(0, classes, len(chosen))
        instances.labels = torch.from_numpy(labels.astype(np.int64))
        if masks:
            bitmaps = np.zeros((len(chosen), height, width), dtype=np.uint8)
            for bitmap, (x1, y1, x2, y2) in zip(bitmaps, chosen, strict=True):
                bitmap[y1:y2, x1:x2] = 1
            instances.masks = BitmapMasks(bitmaps, height, width)
        sample.gt_instances = instances
        ignored = InstanceData()
        ignored.bboxes = torch.zeros(0, 4)
        ignored.labels = torch.zeros(0, dtype=torch.int64)
        sample.ignored_instances = ignored
        semantic = np.zeros((1, height, width), dtype=np.int64)
        for (x1, y1, x2, y2), label in zip(chosen, labels, strict=True):
            semantic[0, y1:y2, x1:x2] = label
        sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(semantic))
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}


def default_boxes(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Small to large, so that several levels have positives."""
    boxes, x = [], 2
    for size in (10, 20, 34):
        boxes.append((x, 4, min(x + size, width), min(4 + size, height)))
        x += size + 4
    boxes.append((6, height // 2, width // 2, height - 4))
    boxes.append((1, 1, width - 2, height - 2))
    return boxes


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """mmengine prints while it builds."""
    logger = logging.getLogger("mmengine")
    before, disabled = logger.level, logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
        logger.setLevel(before)
