"""SSD and YOLACT: hard negatives are mined over all levels of an image, so their loss lists run over
images. Mined first, split after.

Shapes: R rows (anchors) of one image, level after level, C classes, K levels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from msbal_mmdet.splitters.base import HeadSplitter, LossCall, Losses
from msbal_mmdet.splitters.prime import CarlTerm, carl_by_level, without_carl
from msbal_mmdet.splitters.reduction import LevelReduction, irreducible, replace_method
from msbal_mmdet.splitters.rows import RowLayout, split_sizes, sum_by_level

_EPS = torch.finfo(torch.float32).eps  # of mmdet's weight_reduce_loss


class SSDSplitter(HeadSplitter):
    """``SSDHead.loss_by_feat_single``, with its three sums taken by level."""

    heads: ClassVar = ("SSDHead",)
    single: ClassVar[str] = "loss_by_feat_single"
    replaced: ClassVar[tuple[str, ...]] = ("loss_by_feat_single",)

    def by_level(self, own: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        maps = args[0] if args else kwargs["cls_scores"]
        # A level has its own number of anchors to a position.
        sizes = tuple(
            split_sizes([m], count)[0]
            for m, count in zip(maps, self.head.prior_generator.num_base_priors, strict=True)
        )
        self._image = RowLayout(1, sizes, level_major=True)
        self._level = torch.repeat_interleave(
            torch.arange(len(sizes), device=maps[0].device),
            torch.tensor(sizes, device=maps[0].device),
            output_size=sum(sizes),
        )
        with replace_method(self.head, self.single, self._single):
            losses = own(*args, **kwargs)
        self._images = len(losses["loss_cls"])
        for key in ("loss_cls", "loss_bbox"):
            losses[key] = torch.stack(list(losses[key])).sum(dim=0)
        return losses

    def framework_form(self, key: str, row: Tensor, found: Any) -> Any:
        """The head's lists run over images; what was summed over them stands at the first."""
        if key not in ("loss_cls", "loss_bbox"):
            return row.sum()
        total = row.sum()
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
        """One image: ``[R, C + 1]`` scores, ``[R, 4]`` boxes and their targets -> ``[K]``, ``[K]``."""
        head = self.head
        losses = self.class_losses(cls_score, labels, label_weights)
        positive = ((labels >= 0) & (labels < head.num_classes)).nonzero().reshape(-1)
        negative = (labels == head.num_classes).nonzero().reshape(-1)
        wanted = min(self.negatives(positive.numel(), negative.numel()), negative.numel())
        hardest, chosen = losses[negative].topk(wanted)
        k = self.num_levels
        loss_cls = sum_by_level(losses[positive], self._level[positive], k) + sum_by_level(
            hardest, self._level[negative][chosen], k
        )
        if head.reg_decoded_bbox:
            bbox_pred = head.bbox_coder.decode(anchor, bbox_pred)
        boxes = self.box_losses(bbox_pred, bbox_targets, bbox_weights, avg_factor)
        return loss_cls / avg_factor, boxes

    def class_losses(self, cls_score: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """``[R]``"""
        return F.cross_entropy(cls_score, labels, reduction="none") * weights

    def negatives(self, positives: int, negatives: int) -> int:
        """How many hard negatives are wanted."""
        return int(self.head.train_cfg["neg_pos_ratio"] * positives)

    def box_losses(self, pred: Tensor, targets: Tensor, weights: Tensor, avg_factor: Any) -> Tensor:
        """``[K]``"""
        from mmdet.models.losses import smooth_l1_loss

        beta = self.head.train_cfg["smoothl1_beta"]
        values = smooth_l1_loss(pred, targets, weights, beta=beta, reduction="none")
        boxes: Tensor = self._image.sum_all(values) / (avg_factor + _EPS)
        return boxes


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

    def class_losses(self, cls_score: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        loss: Tensor = self.head.loss_cls(cls_score, labels, weights)
        return loss

    def negatives(self, positives: int, negatives: int) -> int:
        return super().negatives(positives, negatives) if positives else negatives

    def box_losses(self, pred: Tensor, targets: Tensor, weights: Tensor, avg_factor: Any) -> Tensor:
        reduce = LevelReduction(self.head.loss_bbox, lambda _args, _kw: self._image.sum_all, self.num_levels)
        boxes: Tensor = reduce(pred, targets, weights, avg_factor=avg_factor)
        return boxes


class PISASSDSplitter(CarlTerm, SSDSplitter):
    """SSD with prime samples: CARL over all rows of all images beside the mined losses."""

    heads: ClassVar = ("PISASSDHead",)

    def by_level(self, own: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        from mmdet.models.losses import SmoothL1Loss

        self._rows: list[tuple[Tensor, ...]] = []
        with without_carl(self.head) as carl:
            losses = super().by_level(own, args, kwargs)
        if carl is not None:
            cls_score, labels, bbox_pred, bbox_targets = (
                torch.cat(parts) for parts in zip(*self._rows, strict=True)
            )
            losses["loss_carl"] = carl_by_level(
                cls_score,
                labels,
                bbox_pred,
                bbox_targets,
                SmoothL1Loss(beta=1.0),
                RowLayout(len(self._rows), self._image.sizes, level_major=False),
                avg_factor=self._avg_factor,
                sigmoid=False,
                num_class=self.head.num_classes,
                **carl,
            )
        self._rows = []
        return losses

    def _single(self, cls_score: Tensor, bbox_pred: Tensor, anchor: Tensor, labels: Tensor,
                label_weights: Tensor, bbox_targets: Tensor, bbox_weights: Tensor,
                avg_factor: Any) -> tuple[Tensor, Tensor]:  # fmt: skip
        self._rows.append((cls_score, labels, bbox_pred, bbox_targets))
        self._avg_factor = avg_factor
        return super()._single(cls_score, bbox_pred, anchor, labels, label_weights, bbox_targets,
                               bbox_weights, avg_factor)  # fmt: skip
