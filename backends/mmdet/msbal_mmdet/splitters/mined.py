"""SSD and YOLACT: hard negatives are mined over all levels of an image, so their loss lists run over images.

The splitters mine first, as the heads do, and split after.

Shapes: R rows (anchors) of one image, level after level, C classes, K levels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msbal_mmdet.splitters.base import HeadSplitter, LossCall, Losses
from msbal_mmdet.splitters.prime import CarlTerm
from msbal_mmdet.splitters.reduction import (
    LevelReduction,
    irreducible,
    map_sizes,
    replace_method,
    row_levels,
    sum_rows,
)
from msbal_mmdet.splitters.registry import register


@register
class SSDSplitter(HeadSplitter):
    """``SSDHead.loss_by_feat_single``, with its three sums taken by level."""

    heads: ClassVar = ("SSDHead",)
    single: ClassVar[str] = "loss_by_feat_single"
    replaced: ClassVar[tuple[str, ...]] = ("loss_by_feat_single",)

    def by_level(self, own: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        maps = args[0] if args else kwargs["cls_scores"]
        # Each level has its own number of anchors to a position.
        counts = self.head.prior_generator.num_base_priors
        sizes = [map_sizes([m], count)[0] for m, count in zip(maps, counts, strict=True)]
        self._level = row_levels(sizes, 1, level_major=True, device=maps[0].device)
        with replace_method(self.head, self.single, self._single):
            losses = own(*args, **kwargs)
        self._images = len(losses["loss_cls"])
        for key in ("loss_cls", "loss_bbox"):
            losses[key] = torch.stack(list(losses[key])).sum(dim=0)
        return losses

    def framework_form(self, key: str, row: Tensor, found: Any) -> Any:
        """Return the head's list over images, with the sum over them at the first."""
        total = row.sum()
        if key not in ("loss_cls", "loss_bbox"):
            return total
        return [total, *(torch.zeros_like(total) for _ in range(self._images - 1))]

    def _single(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        anchor: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        bbox_weights: Tensor,
        avg_factor: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return ``[K]``, ``[K]`` of one image: ``[R, C + 1]`` scores, ``[R, 4]`` boxes and their targets."""
        head, level = self.head, self._level
        classify, locate = self.loss_modules()
        losses = classify(cls_score, labels, label_weights)
        positive = ((labels >= 0) & (labels < head.num_classes)).nonzero().reshape(-1)
        negative = (labels == head.num_classes).nonzero().reshape(-1)
        wanted = min(self.negatives(positive.numel(), negative.numel()), negative.numel())
        hardest, chosen = losses[negative].topk(wanted)
        loss_cls = sum_rows(losses[positive], level[positive], self.num_levels) + sum_rows(
            hardest, level[negative][chosen], self.num_levels
        )
        if head.reg_decoded_bbox:
            bbox_pred = head.bbox_coder.decode(anchor, bbox_pred)
        reduction = LevelReduction(locate, lambda _call, _options: level, self.num_levels)
        return loss_cls / avg_factor, reduction(bbox_pred, bbox_targets, bbox_weights, avg_factor=avg_factor)

    def loss_modules(self) -> tuple[nn.Module, nn.Module]:
        """Return the unreduced loss of the scores and the loss of the boxes, which SSD's head has as functions."""
        from mmdet.models.losses import CrossEntropyLoss, SmoothL1Loss

        return CrossEntropyLoss(reduction="none"), SmoothL1Loss(beta=self.head.train_cfg["smoothl1_beta"])

    def negatives(self, positives: int, negatives: int) -> int:
        """Return how many hard negatives are wanted."""
        return int(self.head.train_cfg["neg_pos_ratio"] * positives)


@register
class YOLACTSplitter(SSDSplitter):
    """YOLACT's boxes with OHEM (``YOLACTHead.OHEMloss_by_feat_single``); its masks stay as they are."""

    heads: ClassVar = ("YOLACTHead",)
    single: ClassVar = "OHEMloss_by_feat_single"
    replaced: ClassVar = ("OHEMloss_by_feat_single",)

    def refusal(self) -> str | None:
        return super().refusal() or irreducible(self.head.loss_bbox)

    def by_level(self, own: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        if self.head.use_ohem:
            return super().by_level(own, args, kwargs)
        return own(*args, **kwargs)  # without mining its lists do run over levels

    def framework_form(self, key: str, row: Tensor, found: Any) -> Any:
        return super().framework_form(key, row, found) if self.head.use_ohem else list(row)

    def loss_modules(self) -> tuple[nn.Module, nn.Module]:
        return self.head.loss_cls, self.head.loss_bbox

    def negatives(self, positives: int, negatives: int) -> int:
        return super().negatives(positives, negatives) if positives else negatives


@register
class PISASSDSplitter(CarlTerm, SSDSplitter):
    """SSD with prime samples: CARL over all rows of all images beside the mined losses."""

    heads: ClassVar = ("PISASSDHead",)
    functions: ClassVar = "mmdet.models.dense_heads.pisa_ssd_head"

    def carl_levels(self, rows: int) -> Tensor:
        return self._level.repeat(rows // len(self._level))
