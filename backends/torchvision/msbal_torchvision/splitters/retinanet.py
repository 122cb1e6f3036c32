"""RetinaNet: focal and box loss per level.

Stands for ``RetinaNetHead.compute_loss``, that is for ``RetinaNetClassificationHead.compute_loss`` and
``RetinaNetRegressionHead.compute_loss`` of torchvision 0.19 to 0.26. torchvision normalises per image: each
image's loss by that image's positives, then by the images of the batch; so do the levels here.

Shapes: B images, R anchors of an image, level-major; n positives of one image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.retinanet import (
    RetinaNetClassificationHead,
    RetinaNetHead,
    RetinaNetRegressionHead,
)
from torchvision.ops import sigmoid_focal_loss

from msbal.backend.kit.splitter import Split
from msbal_torchvision.splitters.boxes import box_losses
from msbal_torchvision.splitters.numerics import level_sums, spread
from msbal_torchvision.splitters.own import require_own_loss
from msbal_torchvision.splitters.splitter import AnchorSplitter


class RetinaNetSplitter(AnchorSplitter):
    """Of one RetinaNet's head."""

    framework, method = RetinaNetHead, "compute_loss"
    term_names = ("cls", "bbox")
    term_keys = ("classification", "bbox_regression")

    def check_parts(self) -> None:
        """See `LevelSplitter.check_parts`."""
        require_own_loss(self.owner.classification_head, RetinaNetClassificationHead, "compute_loss")
        require_own_loss(self.owner.regression_head, RetinaNetRegressionHead, "compute_loss")

    def split_call(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> Split:
        """``RetinaNetHead.compute_loss``, split into levels."""
        between_thresholds = self.owner.classification_head.BETWEEN_THRESHOLDS
        regression = self.owner.regression_head
        cls_logits, bbox_regression = head_outputs["cls_logits"], head_outputs["bbox_regression"]
        total = cls_logits.shape[1]

        # Image by image, on the tensors that torchvision takes: on CPU the last elements of a tensor go
        # through other code than those that fill a vector register, so other shapes would have other bits.
        cls_rows, bbox_rows, foregrounds = [], [], []
        for target, logits, deltas, anchor, matched in zip(
            targets, cls_logits, bbox_regression, anchors, matched_idxs, strict=True
        ):
            foreground = matched >= 0
            positive = torch.where(foreground)[0]
            valid = torch.where(matched != between_thresholds)[0]
            one_hot = torch.zeros_like(logits)
            one_hot[positive, target["labels"][matched[positive]]] = 1.0
            focal = sigmoid_focal_loss(logits[valid], one_hot[valid], reduction="none").sum(dim=1)
            cls_rows.append(spread(focal, valid, total) / foreground.sum().clamp(min=1))
            box = box_losses(
                regression._loss_type,
                regression.box_coder,
                anchor[positive],
                target["boxes"][matched[positive]],
                deltas[positive],
            )
            bbox_rows.append(spread(box / max(1, positive.numel()), positive, total))
            foregrounds.append(foreground)

        rows = torch.stack([torch.stack(cls_rows), torch.stack(bbox_rows)])
        sizes = self.sizes(total)
        positives = level_sums(torch.stack(foregrounds).unsqueeze(0).to(torch.float32), sizes)[0]
        return Split(self.losses(level_sums(rows, sizes) / len(targets), positives), self.named)
