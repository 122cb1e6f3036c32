"""RetinaNet: focal and box loss per level.

Replaces ``RetinaNetHead.compute_loss``, that is ``RetinaNetClassificationHead.compute_loss`` and
``RetinaNetRegressionHead.compute_loss``, of torchvision 0.19 to 0.26. torchvision normalises per image: each image's
loss by that image's positives, then by the images of the batch. So do the levels here.

Shapes: B images, R anchors of an image, level-major; n positives of one image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.retinanet import (
    RetinaNetClassificationHead,
    RetinaNetHead,
    RetinaNetRegressionHead,
)
from torchvision.ops import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

from msbal.backend.kit.level_sums import spread
from msbal.backend.kit.splitter import require_own_loss
from msbal_torchvision.splitters.numerics import row_sums
from msbal_torchvision.splitters.splitter import AnchorSplitter, Outputs, Rows, Targets

_ENCODED = {"l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}
_IOU = {"ciou": complete_box_iou_loss, "diou": distance_box_iou_loss, "giou": generalized_box_iou_loss}


class RetinaNetSplitter(AnchorSplitter):
    """Splits the loss of one RetinaNet's head."""

    framework = RetinaNetHead
    term_names = ("cls", "bbox")
    term_keys = ("classification", "bbox_regression")

    def check_parts(self) -> None:
        require_own_loss(self.owner.classification_head, RetinaNetClassificationHead, "compute_loss")
        require_own_loss(self.owner.regression_head, RetinaNetRegressionHead, "compute_loss")

    def rows(
        self, targets: Targets, head_outputs: Outputs, anchors: list[Tensor], matched_idxs: list[Tensor]
    ) -> Rows:
        between_thresholds = self.owner.classification_head.BETWEEN_THRESHOLDS
        regression = self.owner.regression_head
        outputs = head_outputs["cls_logits"], head_outputs["bbox_regression"]

        # Image by image, on the tensors that torchvision takes: on a CPU the last elements of a tensor take another
        # path than those that fill a vector register, so that other shapes would have other bits.
        cls_rows, bbox_rows, foregrounds = [], [], []
        for target, logits, deltas, anchor, matched in zip(
            targets, *outputs, anchors, matched_idxs, strict=True
        ):
            foreground = matched >= 0
            positive = torch.where(foreground)[0]
            valid = torch.where(matched != between_thresholds)[0]
            one_hot = torch.zeros_like(logits)
            one_hot[positive, target["labels"][matched[positive]]] = 1.0
            focal = sigmoid_focal_loss(logits[valid], one_hot[valid], reduction="none").sum(dim=1)
            cls_rows.append(spread(focal, (valid,), matched.shape) / foreground.sum().clamp(min=1))
            box = box_losses(
                regression._loss_type,
                regression.box_coder,
                anchor[positive],
                target["boxes"][matched[positive]],
                deltas[positive],
            )
            bbox_rows.append(spread(box / max(1, positive.numel()), (positive,), matched.shape))
            foregrounds.append(foreground)

        values = torch.stack([torch.stack(cls_rows), torch.stack(bbox_rows)])
        return Rows(values, torch.stack(foregrounds), len(targets))


def box_losses(kind: str, coder: Any, anchors: Tensor, boxes: Tensor, deltas: Tensor) -> Tensor:
    """Return the loss of each positive anchor, ``[n]``: torchvision's ``_box_loss`` without its sum.

    Args:
        kind: ``l1``, ``smooth_l1``, ``ciou``, ``diou`` or ``giou``.
        coder: torchvision's ``BoxCoder``.
        anchors, boxes: ``[n, 4]`` in pixels, x1, y1, x2, y2.
        deltas: ``[n, 4]`` predicted, in the coder's terms.

    Raises:
        ValueError: where `kind` is none of them.
    """
    if kind in _ENCODED:
        return row_sums(_ENCODED[kind](deltas, coder.encode_single(boxes, anchors), reduction="none"))
    if kind in _IOU:
        losses: Tensor = _IOU[kind](coder.decode_single(deltas, anchors), boxes, reduction="none")
        return losses
    raise ValueError(f"The box loss should be l1, smooth_l1, ciou, diou or giou. Found {kind!r}.")
