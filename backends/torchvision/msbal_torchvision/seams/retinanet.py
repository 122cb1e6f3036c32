"""RetinaNet: focal and box loss per level.

Stands in for ``RetinaNetHead.compute_loss``, that is for ``RetinaNetClassificationHead.compute_loss`` and
``RetinaNetRegressionHead.compute_loss`` of torchvision 0.19 to 0.26. torchvision normalises per image: each
image's loss by that image's positives, then by the images of the batch; so do the levels here.

Shapes: B images, R anchors of an image, level-major; n positives of one image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.retinanet import (
    RetinaNet,
    RetinaNetClassificationHead,
    RetinaNetHead,
    RetinaNetRegressionHead,
)
from torchvision.ops import sigmoid_focal_loss

from msbal_torchvision.seams.boxes import box_losses
from msbal_torchvision.seams.numerics import anchors_per_level, level_sums, spread
from msbal_torchvision.seams.part import OneStagePart
from msbal_torchvision.seams.seam import require_own_loss

TERMS = ("cls", "bbox")


class RetinaNetPart(OneStagePart):
    """The seam in one RetinaNet's head."""

    terms = TERMS
    keys = ("classification", "bbox_regression")

    @staticmethod
    def check(model: RetinaNet) -> None:
        """Refuse a model whose loss is the user's own, as `require_own_loss` says."""
        require_own_loss(model, RetinaNet, "compute_loss")
        require_own_loss(model.head, RetinaNetHead, "compute_loss")
        require_own_loss(model.head.classification_head, RetinaNetClassificationHead, "compute_loss")
        require_own_loss(model.head.regression_head, RetinaNetRegressionHead, "compute_loss")

    def install(self, model: RetinaNet) -> None:
        """Stand in for the head's `compute_loss`."""
        self.head = model.head
        self.watch_grids(model.head)
        self.seam.replace_method(model.head, "compute_loss", self.compute_loss)

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """``RetinaNetHead.compute_loss``, split into levels."""
        if not self.seam.active:
            return type(self.head).compute_loss(self.head, targets, head_outputs, anchors, matched_idxs)  # type: ignore[no-any-return]
        between_thresholds = self.head.classification_head.BETWEEN_THRESHOLDS
        regression = self.head.regression_head
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
        sizes = anchors_per_level(self.grids, total)
        positives = level_sums(torch.stack(foregrounds).unsqueeze(0).to(torch.float32), sizes)[0]
        return self.hand_out(level_sums(rows, sizes) / len(targets), positives)
