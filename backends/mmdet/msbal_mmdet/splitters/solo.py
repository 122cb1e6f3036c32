"""SOLO and its kin: mask losses come level by level and are joined, class scores are flattened.

Shapes: K levels (grids), M = N * sum(grid^2) cells.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msbal_mmdet.splitters.base import LossCall, Losses
from msbal_mmdet.splitters.flattened import ReducingSplitter
from msbal_mmdet.splitters.reduction import LevelReduction, listen, nothing_to_learn, stand_in
from msbal_mmdet.splitters.rows import RowLayout


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
        layout = RowLayout(images, tuple(g * g for g in self.head.num_grids), level_major=True)
        kept = _Kept(self.head.loss_mask)
        cls = _KeepFactor(self.head.loss_cls, lambda _args, _kw: layout.sum_all, self.num_levels)
        masks_by_image: list[Any] = []
        with (
            stand_in(self.head, {"loss_mask": kept, "loss_cls": cls}),
            listen(self.head, "_get_targets_single", lambda t: masks_by_image.append(t[0])),
        ):
            losses = own(*args, **kwargs)
        # A level without positives has no call: tell by the targets, whose shapes the host knows.
        filled = [
            level
            for level in range(self.num_levels)
            if sum(image[level].shape[0] for image in masks_by_image) > 0
        ]
        losses["loss_mask"] = self._mask_by_level(losses["loss_mask"], kept.values, filled, cls.factor)
        return losses

    def _mask_by_level(
        self, total: Tensor, values: list[Tensor], filled: list[int], cls_factor: Any
    ) -> Tensor:
        """``cat(values).sum() / num_pos`` by level; `cls_factor` is the head's ``num_pos + 1``."""
        if not values:
            return nothing_to_learn(total, self.num_levels, self.head.loss_mask)
        assert len(values) == len(filled), "one mask loss for each level that has positives"
        num_pos = cls_factor - 1
        sums = dict(zip(filled, (value.sum() for value in values), strict=True))
        zero = total.detach().new_zeros(())
        by_level: Tensor = torch.stack([sums.get(level, zero) for level in range(self.num_levels)]) / num_pos
        return by_level


class _Kept(nn.Module):
    """Passes a mask loss through and keeps what it returned."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "inner", inner)
        self.values: list[Tensor] = []

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        value: Tensor = self.__dict__["inner"](*args, **kwargs)
        self.values.append(value)
        return value


class _KeepFactor(LevelReduction):
    factor: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        self.factor = kwargs.get("avg_factor")
        return super().forward(*args, **kwargs)
