"""The box heads of Fast, Faster, Mask and Cascade R-CNN, by the level that each RoI was pooled from.

Mask, keypoint and semantic losses stay as they are.

Shapes: P sampled RoIs of the batch, K levels, C classes, B box dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import cat, cross_entropy, nonzero_tuple
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.modeling.roi_heads import fast_rcnn
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.roi_heads import StandardROIHeads
from torch import Tensor

from msbal.backend.kit.level_sums import sum_by_level
from msbal.backend.kit.splitter import require_own_loss
from msbal.engine.losses import LevelLosses
from msbal_detectron2.splitters.base import DictSplitter, box_losses, level_group

# Later versions add losses of their own beside cross entropy; older ones lack the methods.
_LOSS_METHODS = [
    name
    for name in ("losses", "box_reg_loss", "sigmoid_cross_entropy_loss")
    if hasattr(FastRCNNOutputLayers, name)
]


class RoISplitter(DictSplitter):
    """Replaces ``FastRCNNOutputLayers.losses``, of the one box head or of one cascade stage.

    Args:
        stage: of a cascade, from 0; None in other models.
    """

    owner: FastRCNNOutputLayers

    def __init__(self, heads: StandardROIHeads, predictor: FastRCNNOutputLayers, stage: int | None) -> None:
        self.pooler: ROIPooler = heads.box_pooler
        strides = [2**level for level in range(self.pooler.min_level, self.pooler.max_level + 1)]
        suffix = "" if stage is None else f"_stage{stage}"
        group = level_group("roi" + suffix, heads, strides, ("cls", "bbox"))
        require_own_loss(predictor, FastRCNNOutputLayers, *_LOSS_METHODS)
        names = ("loss_cls", "loss_box_reg")
        super().__init__(predictor, group, [name + suffix for name in names], names)

    def level_losses(self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Any]) -> LevelLosses:
        """Compute ``[2, K]`` losses from the arguments of ``FastRCNNOutputLayers.losses``.

        Args:
            predictions: scores ``[P, C + 1]`` and deltas ``[P, B]`` or ``[P, C * B]``.
            proposals: one ``Instances`` per image, with ``proposal_boxes``, ``gt_classes`` and, where the image
                has any, ``gt_boxes``.
        """
        module, levels = self.owner, len(self.group.levels)
        scores, deltas = predictions
        if not sum(len(p) for p in proposals):
            # As in detectron2: zeros, attached, for a batch without RoIs.
            zero = (scores.sum() + deltas.sum()) * 0.0
            return LevelLosses(zero.expand(2, levels), zero.detach().expand(levels))
        classes = cat([p.gt_classes for p in proposals], dim=0)
        fast_rcnn._log_classification_stats(scores, classes)
        boxes = cat([p.proposal_boxes.tensor for p in proposals], dim=0)
        # Without ground truth all RoIs are background, and their targets are never read.
        targets = cat(
            [(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in proposals], dim=0
        )
        level = roi_levels(self.pooler, [p.proposal_boxes for p in proposals])
        count = classes.numel()
        foreground = nonzero_tuple((classes >= 0) & (classes < module.num_classes))[0]
        if deltas.shape[1] == boxes.shape[1]:
            chosen = deltas[foreground]
        else:
            by_class = deltas.view(-1, module.num_classes, boxes.shape[1])
            chosen = by_class[foreground, classes[foreground]]
        bbox = box_losses(module, boxes[foreground], chosen, targets[foreground])
        cls = _class_losses(module, scores, classes)
        values = [
            sum_by_level(losses, of, levels) / count * module.loss_weight.get(name, 1.0)
            for name, losses, of in zip(self.names, (cls, bbox), (level, level[foreground]), strict=True)
        ]
        ones = torch.ones_like(foreground, dtype=values[0].dtype)
        return LevelLosses(torch.stack(values), sum_by_level(ones, level[foreground], levels))


def roi_splitters(heads: StandardROIHeads) -> list[RoISplitter]:
    """Return one splitter, or one for each stage of a cascade."""
    if isinstance(heads.box_predictor, torch.nn.ModuleList):
        return [RoISplitter(heads, predictor, stage) for stage, predictor in enumerate(heads.box_predictor)]
    return [RoISplitter(heads, heads.box_predictor, None)]


def roi_levels(pooler: ROIPooler, boxes: Sequence[Any]) -> Tensor:
    """Return ``[P]``, the level of each box of all images by the pooler's own rule; 0 is the finest."""
    level: Tensor = assign_boxes_to_levels(
        list(boxes), pooler.min_level, pooler.max_level, pooler.canonical_box_size, pooler.canonical_level
    )
    return level


def _class_losses(module: FastRCNNOutputLayers, scores: Tensor, classes: Tensor) -> Tensor:
    """Return ``[P]`` losses: cross entropy, or the sigmoid losses of later versions (federated for LVIS)."""
    if not getattr(module, "use_sigmoid_ce", False):
        loss: Tensor = cross_entropy(scores, classes, reduction="none")
        return loss
    count, num_classes = scores.shape[0], scores.shape[1] - 1
    target = scores.new_zeros(count, num_classes + 1)
    target[torch.arange(count, device=scores.device), classes] = 1
    losses = F.binary_cross_entropy_with_logits(
        scores[:, :num_classes], target[:, :num_classes], reduction="none"
    )
    if module.use_fed_loss and count:
        kept = module.get_fed_loss_classes(
            classes,
            num_fed_loss_classes=module.fed_loss_num_classes,
            num_classes=num_classes,
            weight=module.fed_loss_cls_weights,
        )
        mask = kept.new_zeros(num_classes + 1)
        mask[kept] = 1
        losses = losses * mask[:num_classes].to(losses.dtype)
    return losses.sum(dim=1)
