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

from msbal.engine.losses import LevelLosses
from msbal_detectron2.splitters.base import DictSplitter, check_own, level_group, spread, sum_levels
from msbal_detectron2.splitters.boxes import dense_box_losses


class RPNSplitter(DictSplitter):
    """Stands for ``RPN.losses``."""

    owner: RPN

    def __init__(self, rpn: RPN, shapes: Mapping[str, ShapeSpec]) -> None:
        strides = [int(shapes[name].stride) for name in rpn.in_features]
        group = level_group("rpn", rpn, strides, ("cls", "bbox"))
        check_own(rpn, RPN.losses)
        super().__init__(rpn, group, ("loss_rpn_cls", "loss_rpn_loc"))

    def level_losses(
        self,
        anchors: Sequence[Any],
        pred_objectness_logits: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
    ) -> LevelLosses:
        """``[2, K]``; arguments as those of ``RPN.losses``.

        Args:
            anchors: K ``Boxes`` (or ``RotatedBoxes``).
            pred_objectness_logits, pred_anchor_deltas: K tensors ``[N, R_k]`` and ``[N, R_k, B]``.
            gt_labels, gt_boxes: N tensors ``[R]`` and ``[R, B]``; label 1 is an object, 0 none, -1 not sampled.
        """
        module, num_images = self.owner, len(gt_labels)
        labels = torch.stack(list(gt_labels))
        sizes = [part.shape[1] for part in pred_objectness_logits]
        positive = labels == 1
        storage = get_event_storage()
        storage.put_scalar("rpn/num_pos_anchors", positive.sum().item() / num_images)
        storage.put_scalar("rpn/num_neg_anchors", (labels == 0).sum().item() / num_images)

        where = positive.nonzero(as_tuple=True)
        bbox = dense_box_losses(
            module.box2box_transform,
            anchors,
            pred_anchor_deltas,
            gt_boxes,
            where,
            module.box_reg_loss_type,
            module.smooth_l1_beta,
        )
        sampled = (labels >= 0).nonzero(as_tuple=True)
        cls = F.binary_cross_entropy_with_logits(
            cat(list(pred_objectness_logits), dim=1)[sampled],
            labels[sampled].to(torch.float32),
            reduction="none",
        )
        shape = (num_images, sum(sizes))
        normalizer = module.batch_size_per_image * num_images
        values = torch.stack(
            [
                sum_levels(spread(cls, sampled, shape), sizes)
                / normalizer
                * module.loss_weight.get("loss_rpn_cls", 1.0),
                sum_levels(spread(bbox, where, shape), sizes)
                / normalizer
                * module.loss_weight.get("loss_rpn_loc", 1.0),
            ]
        )
        return LevelLosses(values, sum_levels(positive, sizes))
