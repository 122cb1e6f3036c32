"""SOLO and its kin: mask losses come level by level and are joined, class scores are flattened.

Shapes: K levels (grids), M = N * sum(grid^2) cells.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from msbal_mmdet.splitters.base import LossCall, Losses
from msbal_mmdet.splitters.flattened import ReducingSplitter
from msbal_mmdet.splitters.reduction import listen, nothing_to_learn, replace_modules, row_levels
from msbal_mmdet.splitters.registry import register


@register
class SOLOSplitter(ReducingSplitter):
    """SOLO, Decoupled SOLO (and Light), SOLOv2.

    Their levels share strides after resizing (8, 8, 16, 32, 32): a level is known by its grid.
    """

    heads: ClassVar = ("SOLOHead", "DecoupledSOLOHead", "DecoupledSOLOLightHead", "SOLOV2Head")
    short: ClassVar = {"loss_mask": "mask", "loss_cls": "cls"}
    reduced: ClassVar = ("loss_cls",)

    def head_strides(self) -> list[float]:
        # By grid: the finer the grid, the smaller the objects. Only the order is of use here.
        finest = max(self.head.num_grids)
        return [
            float(s) + (1 - g / finest) for s, g in zip(self.head.strides, self.head.num_grids, strict=False)
        ]

    def level_names(self) -> tuple[str, ...]:
        return tuple(f"grid{self.head.num_grids[i]}" for i in self.order)

    def by_level(self, own: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        images = len(kwargs["batch_img_metas"]) if "batch_img_metas" in kwargs else args[0][0].shape[0]
        cells = [grid * grid for grid in self.head.num_grids]
        num_masks: list[Any] = []

        def levels(call: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
            num_masks.append(options["avg_factor"] - 1)  # as the head averages its class scores
            return row_levels(cells, images, level_major=True, device=call[0].device)

        values: list[Tensor] = []
        targets: list[Any] = []
        keep = self.head.loss_mask.register_forward_hook(lambda _module, _args, value: values.append(value))
        try:
            with (
                replace_modules(self.head, self.reductions({"loss_cls": levels})),
                listen(self.head, "_get_targets_single", lambda image: targets.append(image[0])),
            ):
                losses = own(*args, **kwargs)
        finally:
            keep.remove()
        if not values:
            losses["loss_mask"] = nothing_to_learn(losses["loss_mask"], self.num_levels, self.head.loss_mask)
            return losses
        # ``cat(values).sum() / num_masks``, by level. A level without positives has no call: its targets tell, whose
        # shapes the host knows.
        filled = [k for k in range(self.num_levels) if any(image[k].shape[0] for image in targets)]
        sums = dict(zip(filled, (value.sum() for value in values), strict=True))
        zero = values[0].detach().new_zeros(())
        losses["loss_mask"] = torch.stack([sums.get(k, zero) for k in range(self.num_levels)]) / num_masks[0]
        return losses
