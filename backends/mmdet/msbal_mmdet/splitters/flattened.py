"""Heads that put all levels into one tensor before the loss.

Targets, matching and normalisers are the head's own and computed once; while it runs, its loss modules
reduce by level (`LevelReduction`).

Shapes: N images, K levels, M rows of all positions, P positive rows.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msbal_mmdet.splitters.base import HeadSplitter, LossCall, Losses, cat_labels
from msbal_mmdet.splitters.reduction import (
    LevelReduction,
    SplitRows,
    irreducible,
    listen,
    nothing_to_learn,
    stand_in,
)
from msbal_mmdet.splitters.rows import RowLayout, split_sizes

_CLS_BBOX = {"loss_cls": "cls", "loss_bbox": "bbox"}


class ReducingSplitter(HeadSplitter):
    """A head whose loss modules reduce by level while it runs.

    Attributes:
        reduced: the names of those modules.
    """

    reduced: ClassVar[tuple[str, ...]] = ()

    def refusal(self) -> str | None:
        return super().refusal() or next(
            (why for name in self.reduced if (why := irreducible(getattr(self.head, name, None)))), None
        )

    def spread_zeros(self, losses: Losses) -> Losses:
        """Heads without positives return a zero from outside their loss modules: one scalar."""
        for term, key in zip(self.group.terms, self.keys, strict=True):
            if losses and key in losses and losses[key].dim() == 0:
                module = self.loss_module(term) or self.head
                losses[key] = nothing_to_learn(losses[key], self.num_levels, module)
        return losses


class FlattenedSplitter(ReducingSplitter):
    """The common course: classification over all rows, the rest over the positive ones.

    Attributes:
        level_major: see `RowLayout`.
        all_rows, positive_rows: the names of the head's loss modules by the rows that they get.
        targets: the method of the head that decides which rows are positive.
    """

    level_major: ClassVar[bool] = True
    all_rows: ClassVar[tuple[str, ...]] = ("loss_cls",)
    positive_rows: ClassVar[tuple[str, ...]] = ("loss_bbox",)
    targets: ClassVar[str] = "get_targets"

    def __init__(self, head: nn.Module, group: str = "all") -> None:
        super().__init__(head, group)
        self._positive: Tensor | None = None
        self._layout: RowLayout | None = None

    @property
    def reduced(self) -> tuple[str, ...]:  # type: ignore[override]
        return (*self.all_rows, *self.positive_rows)

    def layout(self, *args: Any, **kwargs: Any) -> RowLayout:
        """The rows of this call, from the arguments of ``loss_by_feat``."""
        maps = args[0] if args else kwargs["cls_scores"]
        return RowLayout(maps[0].shape[0], split_sizes(maps, 1), self.level_major)

    def hear_targets(self, targets: Any) -> None:
        """Keep ``[M]`` bool, which rows are positive, from what `targets` returned."""
        labels = cat_labels(targets[0])
        self._positive = (labels >= 0) & (labels < self.head.num_classes)

    def positive(self) -> Tensor:
        assert self._positive is not None, "the head took its losses before its targets"
        return self._positive

    def positives(self) -> Tensor | None:
        if self._positive is None or self._layout is None:
            return None
        return self._layout.count(self._positive)

    def by_level(self, own: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        layout = self.layout(*args, **kwargs)
        self._layout, self._positive = layout, None
        with ExitStack() as stack:
            stack.enter_context(stand_in(self.head, self.reductions(layout)))
            if self.targets:
                stack.enter_context(listen(self.head, self.targets, self.hear_targets))
            losses = own(*args, **kwargs)
        return self.spread_zeros(losses)

    def reductions(self, layout: RowLayout) -> dict[str, nn.Module]:
        """What takes the place of the head's loss modules for one call, by name."""
        modules: dict[str, nn.Module] = {}
        for name in self.reduced:
            inner = getattr(self.head, name, None)
            if inner is not None:
                rows = self._all if name in self.all_rows else self._selected
                modules[name] = LevelReduction(inner, partial(rows, layout), self.num_levels)
        return modules

    def _all(self, layout: RowLayout, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SplitRows:
        return layout.sum_all

    def _selected(self, layout: RowLayout, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SplitRows:
        return partial(layout.sum_selected, selected=self.positive())


class FCOSSplitter(FlattenedSplitter):
    heads: ClassVar = ("FCOSHead", "NASFCOSHead", "CondInstBboxHead", "BoxInstBboxHead")
    short: ClassVar = {**_CLS_BBOX, "loss_centerness": "centerness"}
    positive_rows: ClassVar = ("loss_bbox", "loss_centerness")


class FoveaSplitter(FlattenedSplitter):
    heads: ClassVar = ("FoveaHead",)


class VFNetSplitter(FlattenedSplitter):
    """VarifocalNet: the box loss before and after refinement, each over the positive rows."""

    heads: ClassVar = ("VFNetHead",)
    short: ClassVar = {**_CLS_BBOX, "loss_bbox_rf": "bbox_rf"}
    positive_rows: ClassVar = ("loss_bbox", "loss_bbox_refine")
    module_of: ClassVar = {"loss_bbox_rf": "loss_bbox_refine"}


class CenterNetUpdateSplitter(FlattenedSplitter):
    """CenterNet2's first stage: a heatmap loss with extra positives, boxes where they were assigned."""

    heads: ClassVar = ("CenterNetUpdateHead",)
    all_rows: ClassVar = ()

    def hear_targets(self, targets: Any) -> None:
        self._positive = targets[1].max(dim=1)[0] >= 0

    def reductions(self, layout: RowLayout) -> dict[str, nn.Module]:
        return {**super().reductions(layout), "loss_cls": HeatmapReduction(self.head.loss_cls, layout)}


class HeatmapReduction(nn.Module):
    """``GaussianFocalLoss`` level by level: its positives are named by row, and are cut too."""

    def __init__(self, inner: nn.Module, layout: RowLayout) -> None:
        super().__init__()
        object.__setattr__(self, "inner", inner)  # registered in the head, not here
        self.layout = layout

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        pos_inds: Tensor | None = None,
        pos_labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """``[M, C]`` heatmap and target, ``[P]`` rows and labels of the positives -> ``[K]``."""
        inner: Any = self.__dict__["inner"]
        start, levels = 0, []
        for size in self.layout.sizes:
            end = start + self.layout.images * size
            inds, labels = pos_inds, pos_labels
            if pos_inds is not None and pos_labels is not None:
                inside = (pos_inds >= start) & (pos_inds < end)
                inds, labels = pos_inds[inside] - start, pos_labels[inside]
            levels.append(inner(pred[start:end], target[start:end], inds, labels, **kwargs))
            start = end
        return torch.stack(levels)


class YOLOXSplitter(FlattenedSplitter):
    """YOLOX: objectness over all rows; its L1 term appears when augmentation is switched off."""

    heads: ClassVar = ("YOLOXHead",)
    short: ClassVar = {**_CLS_BBOX, "loss_obj": "obj", "loss_l1": "l1"}
    level_major: ClassVar = False
    all_rows: ClassVar = ("loss_obj",)
    positive_rows: ClassVar = ("loss_cls", "loss_bbox", "loss_l1")
    targets: ClassVar = "_get_targets_single"

    def by_level(self, own: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        self._masks: list[Tensor] = []
        return super().by_level(own, args, kwargs)

    def hear_targets(self, targets: Any) -> None:
        self._masks.append(targets[0])
        self._positive = None

    def positive(self) -> Tensor:
        if self._positive is None:
            self._positive = torch.cat(self._masks)
        return self._positive

    def positives(self) -> Tensor | None:
        return self._layout.count(self.positive()) if self._layout is not None and self._masks else None


class AnchorRowsSplitter(FlattenedSplitter):
    """Rows are anchors, several to a position."""

    def layout(self, *args: Any, **kwargs: Any) -> RowLayout:
        maps = args[0] if args else kwargs["cls_scores"]
        per_position = self.head.num_base_priors
        return RowLayout(maps[0].shape[0], split_sizes(maps, per_position), self.level_major)


class PAASplitter(AnchorRowsSplitter):
    """PAA and LAD: positives are decided twice, last by a mixture fitted to the losses; the labels that
    the classification loss gets are the final ones. Losses taken before that are unreduced and pass."""

    heads: ClassVar = ("PAAHead", "LADHead")
    short: ClassVar = {**_CLS_BBOX, "loss_iou": "iou"}
    level_major: ClassVar = False
    positive_rows: ClassVar = ("loss_bbox", "loss_centerness")
    module_of: ClassVar = {"loss_iou": "loss_centerness"}
    targets: ClassVar = ""

    def _all(self, layout: RowLayout, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SplitRows:
        labels = args[1]
        self._positive = (labels >= 0) & (labels < self.head.num_classes)
        return layout.sum_all
