"""The levels of a model: their strides.

torchvision lists feature maps in the order in which the backbone returns them, finest first in all of
its own models; msbal wants finest first always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_PROBE_SIZE = 256  # pixels: two cells at stride 128


@dataclass(frozen=True)
class Levels:
    """The feature maps of a model.

    Attributes:
        keys: the names under which the backbone returns them, in its order.
        strides: pixels per cell, in the backbone's order.
    """

    keys: tuple[str, ...]
    strides: tuple[int, ...]

    @property
    def order(self) -> tuple[int, ...]:
        """Indices that sort the backbone's levels finest first."""
        return tuple(sorted(range(len(self.strides)), key=lambda level: self.strides[level]))


@torch.no_grad()
def find_levels(model: Any) -> Levels:
    """Run the backbone once, in evaluation mode, on an empty image, and read off the strides.

    Args:
        model: with torchvision's `backbone`, `transform` and anchor generator.
    """
    parameter = next(model.parameters())
    height, width = getattr(model.transform, "fixed_size", None) or (_PROBE_SIZE, _PROBE_SIZE)
    image = torch.zeros(1, 3, height, width, device=parameter.device, dtype=parameter.dtype)
    training = {module: module.training for module in model.backbone.modules()}
    model.backbone.eval()
    try:
        features = model.backbone(image)
    finally:
        for module, mode in training.items():
            module.training = mode
    if isinstance(features, Tensor):
        features = {"0": features}
    strides = [max(1, round(height / feature.shape[-2])) for feature in features.values()]
    # SSD's own steps where it has them: its grids are no exact fractions of the image.
    steps = getattr(getattr(model, "anchor_generator", None), "steps", None)
    if steps is not None and len(steps) == len(strides):
        strides = [round(step) for step in steps]
    return Levels(tuple(features), tuple(strides))
