"""SSD: cross-entropy and smooth L1 loss per level.

Replaces ``SSD.compute_loss`` of torchvision 0.19 to 0.26. Hard negatives are mined first, over all levels of an image
together; only then are the losses split. Both terms are normalised by the positives of the batch.

Shapes: B images, R default boxes of an image, level-major.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.ssd import SSD, SSDFeatureExtractorVGG

from msbal.backend.kit.level_sums import spread
from msbal.backend.kit.parts import parts_by_name
from msbal.engine.gradients import Parts
from msbal_torchvision.splitters.numerics import row_sums
from msbal_torchvision.splitters.splitter import AnchorSplitter, Outputs, Rows, Targets


class SSDSplitter(AnchorSplitter):
    """Splits the loss of one SSD."""

    framework = SSD
    term_names = ("cls", "bbox")
    term_keys = ("classification", "bbox_regression")

    def parts(self, model: nn.Module) -> Parts:
        # torchvision's own SSD has further layers in an FPN's place. VGG's last ones are the first of them.
        of_vgg = ["backbone.extra.0"] if isinstance(self.owner.backbone, SSDFeatureExtractorVGG) else []
        neck = ["backbone.fpn", "backbone.extra", "backbone.scale_weight"]
        return parts_by_name(model, {"backbone": ["backbone", *of_vgg], "neck": neck})

    def watched(self) -> nn.Module:
        head: nn.Module = self.owner.head
        return head

    def anchors_per_cell(self) -> Sequence[int]:
        numbers: list[int] = self.owner.anchor_generator.num_anchors_per_location()
        return numbers

    def named(self, weighted: Tensor) -> Any:
        """SSD names its boxes first."""
        return dict(reversed(super().named(weighted).items()))

    def rows(
        self, targets: Targets, head_outputs: Outputs, anchors: list[Tensor], matched_idxs: list[Tensor]
    ) -> Rows:
        model, cls_logits = self.owner, head_outputs["cls_logits"]
        images, total, classes = cls_logits.shape

        positives = 0
        bbox_rows, cls_targets = [], []
        for target, deltas, anchor, matched in zip(
            targets, head_outputs["bbox_regression"], anchors, matched_idxs, strict=True
        ):
            positive = torch.where(matched >= 0)[0]
            own = matched[positive]
            positives += positive.numel()
            wanted = model.box_coder.encode_single(target["boxes"][own], anchor[positive])
            box = row_sums(F.smooth_l1_loss(deltas[positive], wanted, reduction="none"))
            bbox_rows.append(spread(box, (positive,), matched.shape))
            cls_target = torch.zeros(total, dtype=target["labels"].dtype, device=target["labels"].device)
            cls_target[positive] = target["labels"][own]
            cls_targets.append(cls_target)
        cls_target = torch.stack(cls_targets)
        cls = F.cross_entropy(cls_logits.view(-1, classes), cls_target.view(-1), reduction="none")
        cls = cls.view(images, total)

        foreground = cls_target > 0
        wanted_negatives = model.neg_to_pos_ratio * foreground.sum(1, keepdim=True)
        negative_loss = cls.detach().masked_fill(foreground, -float("inf"))
        background = negative_loss.argsort(1, descending=True).argsort(1) < wanted_negatives
        # A positive is counted twice where an image runs out of negatives, as in torchvision.
        cls_rows = torch.where(foreground, cls, 0.0) + torch.where(background, cls, 0.0)

        values = torch.stack([cls_rows.to(bbox_rows[0].dtype), torch.stack(bbox_rows)])
        return Rows(values, foreground, max(1, positives))
