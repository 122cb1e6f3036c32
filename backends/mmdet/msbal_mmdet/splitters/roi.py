"""RoI heads, balanced only where `scope` asks for it: the level of a row is the one that its RoI's
features were pooled from.

Shapes: R sampled RoIs, P positive ones, K levels.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msbal_mmdet.splitters.base import LossCall, Losses, strides_of
from msbal_mmdet.splitters.flattened import ReducingSplitter
from msbal_mmdet.splitters.reduction import LevelReduction, stand_in
from msbal_mmdet.splitters.rows import sum_by_level


class RoISplitter(ReducingSplitter):
    """``BBoxHead.loss`` and the heads that inherit it.

    Args:
        head: one stage's box head.
        extractor: its ``SingleRoIExtractor``.
        group: see `HeadSplitter`.
    """

    heads: ClassVar = ("BBoxHead",)
    method = "loss"
    called: ClassVar = ("loss_and_target",)
    reduced: ClassVar = ("loss_cls", "loss_bbox")

    def __init__(self, head: nn.Module, extractor: Any, group: str = "roi") -> None:
        self.extractor = extractor
        self._positives: Tensor | None = None
        super().__init__(head, group)

    def head_strides(self) -> list[float]:
        return strides_of(self.extractor)

    def refusal(self) -> str | None:
        if not hasattr(self.extractor, "map_roi_levels"):
            return f"{type(self.extractor).__name__} pools every RoI from all levels"
        return super().refusal()

    def positives(self) -> Tensor | None:
        positives, self._positives = self._positives, None
        return positives

    def by_level(self, own: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
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
            losses = own(*args, **kwargs)
        return self.spread_zeros(losses)

    def _positive_rows(self, values: Tensor, level: Tensor, positive: Tensor) -> Tensor:
        """``[P, ...]`` values of the positive RoIs -> ``[K]``, without asking the device where they are."""
        rows = torch.argsort((~positive).to(torch.uint8), stable=True)[: values.shape[0]]
        return sum_by_level(values, level[rows], self.num_levels)
