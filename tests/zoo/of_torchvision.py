"""The detectors that the installed torchvision builds."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torchvision.models import detection, get_model, list_models

from msbal.backend.kit.one_batch import SplitModel
from msbal.errors import SpecError
from msbal_torchvision.splitters import find
from zoo.outcome import REFUSED, Outcome, one_line, unusable
from zoo.proving import prove_outcome

SIDE = 128  # pixels
CLASSES = 4  # with the background


class Zoo:
    """See `zoo.workers.Zoo`. A name is that of ``torchvision.models.get_model``."""

    def names(self) -> list[str]:
        return [str(name) for name in list_models(module=detection)]

    def digest(self, name: str) -> str:
        return name

    def check(self, name: str) -> Outcome:
        torch.manual_seed(0)
        try:
            model = get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES)
        except Exception as error:
            return unusable("build", error)
        kind = type(model).__name__
        if not name.startswith("ssd"):  # whose anchors are made for its own size
            model.transform.min_size, model.transform.max_size = (SIDE,), SIDE
        batch = small_batch()
        try:
            model.train()(*batch)
        except Exception as error:
            return replace(unusable("step", error), detector=kind)
        reason = ""
        for scope in (("rpn", "roi"), ("rpn",)):
            try:
                splitters = find(model, scope)
                break
            except SpecError as error:
                reason = one_line(str(error))
        else:
            return Outcome("", REFUSED, reason, kind)
        return prove_outcome(SplitModel(model, splitters), batch, kind)


def small_batch(side: int = SIDE) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Two images of different size with boxes from small to the whole image, masks and keypoints."""
    generator = torch.Generator().manual_seed(0)
    images, targets = [], []
    for height, width in ((side, side), (side * 3 // 4, side)):
        boxes = torch.tensor([[2, 2, 14, 12], [20, 8, 50, 40], [40, 30, 110, 90]]) * (side / SIDE)
        boxes = torch.cat([boxes, torch.tensor([[0.0, 0.0, width, height]])])
        masks = torch.zeros(len(boxes), height, width, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        points = torch.ones(len(boxes), 17, 3)
        points[..., :2] = ((boxes[:, :2] + boxes[:, 2:]) / 2).unsqueeze(1)
        images.append(torch.rand(3, height, width, generator=generator))
        labels = torch.arange(len(boxes)) % (CLASSES - 1) + 1
        targets.append({"boxes": boxes, "labels": labels, "masks": masks, "keypoints": points})
    return images, targets
