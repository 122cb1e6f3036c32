"""RoI heads, balanced only where `scope` asks for it: a row's level is the one that its RoI was pooled from.

Shapes: R sampled RoIs, P positive ones, K levels.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from msbal.backend.kit.level_sums import sum_by_level
from msbal_mmdet.splitters.base import LossCall, Losses, strides_of
from msbal_mmdet.splitters.flattened import ReducingSplitter
from msbal_mmdet.splitters.reduction import RowLevels, levels_of_selected, replace_modules


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
        rows: dict[str, RowLevels] = {
            "loss_cls": lambda _call, _options: level,
            "loss_bbox": lambda call, _options: levels_of_selected(level, positive, len(call[0])),
        }
        with replace_modules(self.head, self.reductions(rows)):
            losses = own(*args, **kwargs)
        return self.spread_zeros(losses)
