"""RetinaNet: focal loss and box regression over the anchors of P3 to P7.

Shapes: N images, R anchors of an image over all levels, K levels, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.layers import cat
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes
from torch import Tensor

from msbal.backend.kit.level_sums import spread, sum_levels
from msbal.engine.losses import LevelLosses
from msbal_detectron2.splitters.base import NormalizedSplitter, dense_box_losses


class RetinaNetSplitter(NormalizedSplitter):
    """Replaces ``RetinaNet.losses``."""

    def __init__(self, model: RetinaNet) -> None:
        super().__init__(model, RetinaNet, ("cls", "bbox"), ("loss_cls", "loss_box_reg"))

    def level_losses(
        self,
        anchors: Sequence[Boxes],
        pred_logits: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
    ) -> LevelLosses:
        """Compute ``[2, K]`` losses from the arguments of ``RetinaNet.losses``.

        Args:
            anchors: K ``Boxes``.
            pred_logits, pred_anchor_deltas: K tensors ``[N, R_k, C]`` and ``[N, R_k, 4]``.
            gt_labels, gt_boxes: N tensors ``[R]`` and ``[R, 4]``; label C is background, -1 ignored.
        """
        labels = torch.stack(list(gt_labels))
        sizes = [part.shape[1] for part in pred_logits]
        valid = labels >= 0
        positive = valid & (labels != self.owner.num_classes)
        normalizer = self.normalizer(positive, 100)

        # Indexed as in detectron2, so that the element losses are the same to the last bit.
        kept, where = valid.nonzero(as_tuple=True), positive.nonzero(as_tuple=True)
        cls = self.focal_losses(cat(list(pred_logits), dim=1)[kept], labels[kept])
        bbox = dense_box_losses(self.owner, anchors, pred_anchor_deltas, gt_boxes, where)
        rows = torch.stack([spread(cls, kept, labels.shape), spread(bbox, where, labels.shape)])
        return LevelLosses(sum_levels(rows, sizes) / normalizer, sum_levels(positive, sizes))
