"""FCOS: focal, GIoU and centerness loss per level.

Replaces ``FCOSHead.compute_loss`` of torchvision 0.19 to 0.26, which normalises all three by the positives of the
whole batch.

Shapes: B images, R points of an image, level-major; n positives of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from msbal.backend.kit.level_sums import spread
from msbal_torchvision.splitters.splitter import AnchorSplitter, Outputs, Rows, Targets


class FCOSSplitter(AnchorSplitter):
    """Splits the loss of one FCOS head."""

    framework = FCOSHead
    term_names = ("cls", "bbox", "centerness")
    term_keys = ("classification", "bbox_regression", "bbox_ctrness")

    def rows(
        self, targets: Targets, head_outputs: Outputs, anchors: list[Tensor], matched_idxs: list[Tensor]
    ) -> Rows:
        cls_logits, matched = head_outputs["cls_logits"], torch.stack(matched_idxs)
        foreground = matched >= 0
        image, point = torch.where(foreground)
        # Boxes of all images in one list, so that one index finds a point's own.
        counts = torch.tensor([0] + [len(target["labels"]) for target in targets[:-1]])
        own = matched[image, point] + counts.cumsum(0).to(matched.device)[image]
        boxes = torch.cat([target["boxes"] for target in targets])[own]
        labels = torch.cat([target["labels"] for target in targets])[own]
        anchor = torch.stack(anchors)[image, point]

        one_hot = torch.zeros_like(cls_logits)
        one_hot[image, point, labels] = 1.0
        cls = sigmoid_focal_loss(cls_logits, one_hot, reduction="none").sum(dim=2)

        predicted = self.owner.box_coder.decode(head_outputs["bbox_regression"][image, point], anchor)
        bbox = generalized_box_iou_loss(predicted, boxes, reduction="none")

        distances = self.owner.box_coder.encode(anchor, boxes)
        left_right, top_bottom = distances[:, [0, 2]], distances[:, [1, 3]]
        centerness_target = torch.sqrt(
            (left_right.amin(dim=1) / left_right.amax(dim=1))
            * (top_bottom.amin(dim=1) / top_bottom.amax(dim=1))
        )
        logits = head_outputs["bbox_ctrness"].squeeze(dim=2)[image, point]
        centerness = F.binary_cross_entropy_with_logits(logits, centerness_target, reduction="none")

        cls = cls.to(torch.promote_types(cls.dtype, torch.float32))
        values = [cls, *(spread(loss, (image, point), cls.shape) for loss in (bbox, centerness))]
        return Rows(torch.stack(values), foreground, max(1, point.numel()))
