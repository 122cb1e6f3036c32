"""The region proposal network of every R-CNN: objectness and box regression over P2 to P6.

Shapes: N images, R anchors of an image over all levels, K levels, B box dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.utils.events import get_event_storage
from torch import Tensor

from msbal.backend.kit.level_sums import spread, sum_levels
from msbal.backend.kit.splitter import require_own_loss
from msbal.engine.losses import LevelLosses
from msbal_detectron2.splitters.base import DictSplitter, dense_box_losses, level_group


class RPNSplitter(DictSplitter):
    """Replaces ``RPN.losses``."""

    owner: RPN

    def __init__(self, rpn: RPN, shapes: Mapping[str, ShapeSpec]) -> None:
        strides = [int(shapes[name].stride) for name in rpn.in_features]
        require_own_loss(rpn, RPN, "losses")
        super().__init__(
            rpn, level_group("rpn", rpn, strides, ("cls", "bbox")), ("loss_rpn_cls", "loss_rpn_loc")
        )

    def level_losses(
        self,
        anchors: Sequence[Any],
        pred_objectness_logits: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
    ) -> LevelLosses:
        """Compute ``[2, K]`` losses from the arguments of ``RPN.losses``.

        Args:
            anchors: K ``Boxes`` (or ``RotatedBoxes``).
            pred_objectness_logits, pred_anchor_deltas: K tensors ``[N, R_k]`` and ``[N, R_k, B]``.
            gt_labels, gt_boxes: N tensors ``[R]`` and ``[R, B]``; label 1 is an object, 0 none, -1 not sampled.
        """
        module, labels = self.owner, torch.stack(list(gt_labels))
        images, sizes = len(labels), [part.shape[1] for part in pred_objectness_logits]
        positive = labels == 1
        storage = get_event_storage()
        storage.put_scalar("rpn/num_pos_anchors", positive.sum().item() / images)
        storage.put_scalar("rpn/num_neg_anchors", (labels == 0).sum().item() / images)

        where, sampled = positive.nonzero(as_tuple=True), (labels >= 0).nonzero(as_tuple=True)
        bbox = dense_box_losses(module, anchors, pred_anchor_deltas, gt_boxes, where)
        cls = F.binary_cross_entropy_with_logits(
            cat(list(pred_objectness_logits), dim=1)[sampled],
            labels[sampled].to(torch.float32),
            reduction="none",
        )
        normalizer = module.batch_size_per_image * images
        values = [
            sum_levels(spread(losses, places, labels.shape), sizes)
            / normalizer
            * module.loss_weight.get(key, 1.0)
            for key, losses, places in zip(self.keys, (cls, bbox), (sampled, where), strict=True)
        ]
        return LevelLosses(torch.stack(values), sum_levels(positive, sizes))
