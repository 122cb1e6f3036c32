"""Heads that put all levels into one tensor before the loss: their loss modules reduce by level (`LevelReduction`).

Shapes: N images, K levels, M rows of all positions, P positive rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msbal.backend.kit.level_sums import sum_by_level
from msbal_mmdet.splitters.base import CLS_BBOX, HeadSplitter, LossCall, Losses, cat_labels
from msbal_mmdet.splitters.reduction import (
    LevelReduction,
    RowLevels,
    irreducible,
    levels_of_selected,
    listen,
    map_sizes,
    nothing_to_learn,
    replace_modules,
    row_levels,
)
from msbal_mmdet.splitters.registry import register


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

    def reductions(self, rows: Mapping[str, RowLevels]) -> dict[str, nn.Module]:
        """Return what replaces the head's loss modules for one call, of those names that it has."""
        return {
            name: LevelReduction(inner, levels, self.num_levels)
            for name, levels in rows.items()
            if (inner := getattr(self.head, name, None)) is not None
        }

    def spread_zeros(self, losses: Losses) -> Losses:
        """Give levels to the zeros that a head without positives returns from outside its loss modules."""
        for term, key in zip(self.group.terms, self.keys, strict=True):
            if losses and key in losses and losses[key].dim() == 0:
                module = self.loss_module(term) or self.head
                losses[key] = nothing_to_learn(losses[key], self.num_levels, module)
        return losses


class FlattenedSplitter(ReducingSplitter):
    """A head that classifies all rows, and computes its other losses on the positive ones.

    Attributes:
        level_major: see `row_levels`.
        anchors: whether a row is an anchor; a position may have several.
        all_rows, positive_rows: the names of the head's loss modules by the rows that they get.
        targets: the method of the head that decides which rows are positive; empty where `all_rows` tell.
    """

    level_major: ClassVar[bool] = True
    anchors: ClassVar[bool] = False
    all_rows: ClassVar[tuple[str, ...]] = ("loss_cls",)
    positive_rows: ClassVar[tuple[str, ...]] = ("loss_bbox",)
    targets: ClassVar[str] = "get_targets"

    def __init__(self, head: nn.Module, group: str = "all") -> None:
        super().__init__(head, group)
        self._level: Tensor | None = None  # [M]
        self._positive: Tensor | None = None  # [M] bool

    @property
    def reduced(self) -> tuple[str, ...]:  # type: ignore[override]
        return (*self.all_rows, *self.positive_rows)

    def maps(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """Return ``[N, C, H, W]`` predictions of each level, from the arguments of ``loss_by_feat``."""
        return args[0] if args else kwargs["cls_scores"]  # type: ignore[no-any-return]

    def hear_targets(self, targets: Any) -> None:
        """Keep ``[M]`` bool, which rows are positive, from what `targets` returned."""
        labels = cat_labels(targets[0])
        self._positive = (labels >= 0) & (labels < self.head.num_classes)

    def positive(self) -> Tensor:
        assert self._positive is not None, "targets come before losses"
        return self._positive

    def positives(self) -> Tensor | None:
        level, positive = self._level, self._positive
        self._level = self._positive = None
        if level is None or positive is None:
            return None
        return sum_by_level(positive.float(), level, self.num_levels)

    def by_level(self, own: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        maps = self.maps(args, kwargs)
        self._images = len(maps[0])
        self._sizes = map_sizes(maps, self.head.num_base_priors if self.anchors else 1)
        self._level = row_levels(self._sizes, self._images, self.level_major, maps[0].device)
        self._positive = None
        rows = {
            **dict.fromkeys(self.all_rows, self._all),
            **dict.fromkeys(self.positive_rows, self._selected),
        }
        with ExitStack() as stack:
            stack.enter_context(replace_modules(self.head, self.reductions(rows)))
            if self.targets:
                stack.enter_context(listen(self.head, self.targets, self.hear_targets))
            losses = own(*args, **kwargs)
        return self.spread_zeros(losses)

    def _all(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        assert self._level is not None
        return self._level

    def _selected(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        assert self._level is not None
        return levels_of_selected(self._level, self.positive(), len(args[0]))


@register
class FCOSSplitter(FlattenedSplitter):
    heads: ClassVar = ("FCOSHead", "NASFCOSHead", "CondInstBboxHead", "BoxInstBboxHead")
    short: ClassVar = {**CLS_BBOX, "loss_centerness": "centerness"}
    positive_rows: ClassVar = ("loss_bbox", "loss_centerness")


@register
class FoveaSplitter(FlattenedSplitter):
    heads: ClassVar = ("FoveaHead",)


@register
class VFNetSplitter(FlattenedSplitter):
    """VarifocalNet: the box loss before and after refinement, each over the positive rows."""

    heads: ClassVar = ("VFNetHead",)
    short: ClassVar = {**CLS_BBOX, "loss_bbox_rf": "bbox_rf"}
    positive_rows: ClassVar = ("loss_bbox", "loss_bbox_refine")
    module_of: ClassVar = {"loss_bbox_rf": "loss_bbox_refine"}


@register
class CenterNetUpdateSplitter(FlattenedSplitter):
    """CenterNet2's first stage: a heatmap loss with extra positives, boxes where they were assigned."""

    heads: ClassVar = ("CenterNetUpdateHead",)
    all_rows: ClassVar = ()

    def hear_targets(self, targets: Any) -> None:
        self._positive = targets[1].max(dim=1)[0] >= 0

    def reductions(self, rows: Mapping[str, RowLevels]) -> dict[str, nn.Module]:
        heatmap = HeatmapReduction(self.head.loss_cls, [self._images * size for size in self._sizes])
        return {**super().reductions(rows), "loss_cls": heatmap}


class HeatmapReduction(nn.Module):
    """``GaussianFocalLoss`` level by level; its positives are named by row, and are split too.

    Args:
        rows: how many each level has, one level after the other.
    """

    def __init__(self, inner: nn.Module, rows: list[int]) -> None:
        super().__init__()
        object.__setattr__(self, "inner", inner)  # registered in the head, not here
        self.rows = rows

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        pos_inds: Tensor | None = None,
        pos_labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return ``[K]`` from ``[M, C]`` heatmap and target, ``[P]`` rows and labels of the positives."""
        inner: Any = self.__dict__["inner"]
        start, levels = 0, []
        for rows in self.rows:
            end = start + rows
            inds, labels = pos_inds, pos_labels
            if pos_inds is not None and pos_labels is not None:
                inside = (pos_inds >= start) & (pos_inds < end)
                inds, labels = pos_inds[inside] - start, pos_labels[inside]
            levels.append(inner(pred[start:end], target[start:end], inds, labels, **kwargs))
            start = end
        return torch.stack(levels)


@register
class YOLOXSplitter(FlattenedSplitter):
    """YOLOX: objectness over all rows; its L1 term appears when augmentation is switched off."""

    heads: ClassVar = ("YOLOXHead",)
    short: ClassVar = {**CLS_BBOX, "loss_obj": "obj", "loss_l1": "l1"}
    level_major: ClassVar = False
    all_rows: ClassVar = ("loss_obj",)
    positive_rows: ClassVar = ("loss_cls", "loss_bbox", "loss_l1")
    targets: ClassVar = "_get_targets_single"  # called for one image after the other

    def hear_targets(self, targets: Any) -> None:
        self._positive = targets[0] if self._positive is None else torch.cat([self._positive, targets[0]])


@register
class PAASplitter(FlattenedSplitter):
    """PAA and LAD: positives are decided twice, last by a mixture fitted to the losses.

    The labels that the classification loss gets are the final ones. Losses taken before that are unreduced and pass.
    """

    heads: ClassVar = ("PAAHead", "LADHead")
    short: ClassVar = {**CLS_BBOX, "loss_iou": "iou"}
    level_major: ClassVar = False
    anchors: ClassVar = True
    positive_rows: ClassVar = ("loss_bbox", "loss_centerness")
    module_of: ClassVar = {"loss_iou": "loss_centerness"}
    targets: ClassVar = ""

    def _all(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        self.hear_targets((args[1],))
        return super()._all(args, kwargs)


@register
class ATSSVLFusionSplitter(FlattenedSplitter):
    """GLIP's head: class scores of image and text tokens, padding tokens masked away before the loss.

    Its score maps come as ``[N, S_l, T]`` (T tokens), so the sizes are those of the boxes.
    """

    heads: ClassVar = ("ATSSVLFusionHead",)
    short: ClassVar = {**CLS_BBOX, "loss_centerness": "centerness"}
    level_major: ClassVar = False
    anchors: ClassVar = True
    positive_rows: ClassVar = ("loss_bbox", "loss_centerness")

    def maps(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        return args[1] if len(args) > 1 else kwargs["bbox_preds"]  # type: ignore[no-any-return]

    def hear_targets(self, targets: Any) -> None:
        labels = torch.cat(targets[1], dim=1)  # [N, S, T], ones where a token names the box
        self._positive = (labels.sum(-1) > 0).reshape(-1)

    def _all(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        # One value for each real token of a row, whose number is the same for all rows of an image.
        level = super()._all(args, kwargs)
        tokens = (self.head.text_masks > 0).sum(dim=1).repeat_interleave(len(level) // self._images)
        return level.repeat_interleave(tokens, output_size=len(args[0]))
