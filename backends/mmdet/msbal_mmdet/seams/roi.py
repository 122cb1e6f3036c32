"""RoI heads, balanced only where `scope` asks for it: the level of a row is the one that its RoI's
features were pooled from.

Shapes: R sampled RoIs, P positive ones, K levels.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msbal_mmdet.seams.base import HeadSeam, LossCall, Losses, strides_of
from msbal_mmdet.seams.layout import on_first_level, sum_by_level
from msbal_mmdet.seams.reduction import LevelReduction, stand_in


class RoISeam(HeadSeam):
    """``BBoxHead.loss`` and the heads that inherit it.

    Args:
        head: one stage's box head.
        extractor: its ``SingleRoIExtractor``.
        group, prefix: see `HeadSeam`.
    """

    heads: ClassVar = ("BBoxHead", "ConvFCBBoxHead", "Shared2FCBBoxHead", "Shared4Conv1FCBBoxHead",
                       "DoubleConvFCBBoxHead", "SCNetBBoxHead")  # fmt: skip
    method: ClassVar = "loss"

    def __init__(self, head: nn.Module, extractor: Any, group: str = "roi", prefix: str = "") -> None:
        self.extractor = extractor
        self._positives: Tensor | None = None
        super().__init__(head, group, prefix)

    def head_strides(self) -> list[float]:
        return strides_of(self.extractor)

    def refusal(self) -> str | None:
        if not hasattr(self.extractor, "map_roi_levels"):
            return f"{type(self.extractor).__name__} pools every RoI from all levels"
        return super().refusal()

    def positives(self) -> Tensor | None:
        return self._positives

    def split(self, compute: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        rois = kwargs["rois"] if "rois" in kwargs else args[2]
        labels = kwargs["labels"] if "labels" in kwargs else args[3]
        level = self.extractor.map_roi_levels(rois, self.num_levels)
        positive = (labels >= 0) & (labels < self.head.num_classes)
        self._positives = sum_by_level(positive.float(), level, self.num_levels)

        modules: dict[str, nn.Module] = {}
        for name, rows in (
            ("loss_cls", lambda _a, _k: partial(sum_by_level, level=level, num_levels=self.num_levels)),
            ("loss_bbox", lambda _a, _k: partial(self._positive_rows, level=level, positive=positive)),
        ):
            if hasattr(self.head, name):
                modules[name] = LevelReduction(getattr(self.head, name), rows, self.num_levels)
        with stand_in(self.head, modules):
            losses = compute(*args, **kwargs)
        for key in self.terms:
            if key in losses and losses[key].dim() == 0:
                losses[key] = on_first_level(losses[key], self.num_levels)
        return losses

    def _positive_rows(self, values: Tensor, level: Tensor, positive: Tensor) -> Tensor:
        """``[P, ...]`` values of the positive RoIs -> ``[K]``, without asking the device where they are."""
        rows = torch.argsort((~positive).to(torch.uint8), stable=True)[: values.shape[0]]
        return sum_by_level(values, level[rows], self.num_levels)
