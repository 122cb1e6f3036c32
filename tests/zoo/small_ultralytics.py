"""A config of ultralytics made small, and a batch for any of its tasks."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

SIDE = 128  # pixels: two cells a side at stride 64
SCALE = [0.33, 0.25, 1024]  # of the depth and the width, and the most channels before it: as n of most


def root() -> Path:
    """Where the package keeps its model configs."""
    import ultralytics

    return Path(ultralytics.__file__).parent / "cfg/models"


def shrink(name: str) -> dict[str, Any]:
    """Return a config with one small scale for whatever letter its name has; one that cannot be scaled as it is."""
    text = (root() / name).read_text(encoding="utf-8").replace("DEFAULT", "null")  # weights to download
    config: dict[str, Any] = yaml.safe_load(text)
    scaled = {"scales", "width_multiple"} & set(config)
    return config | ({"scales": dict.fromkeys("nsblmx", SCALE)} if scaled else {})


def build(name: str) -> Any:
    """Build a small model as a user does, by ``YOLO(...)`` or ``RTDETR(...)`` of a file with the config's name."""
    from ultralytics import RTDETR, YOLO
    from ultralytics.cfg import get_cfg

    config = shrink(name)
    family = RTDETR if config["head"][-1][2] == "RTDETRDecoder" else YOLO
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        model = family(path).model
    model.args = get_cfg()
    return model.requires_grad_().train()


def batch(model: Any, side: int = SIDE, images: int = 2) -> dict[str, Tensor]:
    """Return images with boxes from small to nearly the whole image, and what the model's task has beside them."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor(
        [[0.5, 0.5, 0.9, 0.8], [0.6, 0.3, 0.4, 0.5], [0.3, 0.6, 0.25, 0.2], [0.1, 0.1, 0.06, 0.05]]
    )
    each, cells = len(boxes), side // 4
    masks = torch.zeros(images, cells, cells)  # of each pixel the object that lies on top, counted from 1
    for number, (left, top, right, bottom) in enumerate(_corners(boxes, cells), start=1):
        masks[:, top:bottom, left:right] = number
    joints = getattr(model.model[-1], "kpt_shape", (1, 3))[0]
    points = torch.cat([boxes[:, None, :2].expand(-1, joints, -1), torch.full((each, joints, 1), 2.0)], 2)
    if type(model).__name__ == "OBBModel":
        boxes = torch.cat([boxes, torch.linspace(-0.6, 0.6, each).unsqueeze(1)], 1)
    return {
        "img": torch.rand(images, 3, side, side, generator=generator),
        "batch_idx": torch.arange(images).repeat_interleave(each).float(),
        "cls": (torch.arange(images * each) % model.yaml["nc"]).float().unsqueeze(1),
        "bboxes": boxes.repeat(images, 1),
        "masks": masks,
        "sem_masks": masks,
        "keypoints": points.repeat(images, 1, 1),
    }


def _corners(boxes: Tensor, cells: int) -> list[list[int]]:
    """Return left, top, right and bottom in cells; at least one cell wide."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    ends = ((centre - half) * cells).floor(), ((centre + half) * cells).ceil()
    found: list[list[int]] = torch.cat(ends, 1).int().tolist()
    return found
