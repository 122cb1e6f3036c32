"""The region proposal network of Faster, Mask and Keypoint R-CNN: losses per level.

Replaces ``RegionProposalNetwork.compute_loss`` of torchvision 0.19 to 0.26. The sampler draws once, in torchvision's
own way and from the same random state. Both terms are normalised by the anchors sampled in the whole batch.

Shapes: B images, R anchors of an image, level-major; S sampled anchors, P of them positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.rpn import RegionProposalNetwork

from msbal.backend.kit.level_sums import spread
from msbal_torchvision.splitters.numerics import divide_gradient, divide_value, row_sums
from msbal_torchvision.splitters.splitter import AnchorSplitter, Rows


class RPNSplitter(AnchorSplitter):
    """Splits the loss of one region proposal network."""

    framework = RegionProposalNetwork
    term_names = ("cls", "bbox")
    term_keys = ("loss_objectness", "loss_rpn_box_reg")

    def terms(self, result: Any) -> Sequence[Tensor | None]:
        return list(result)

    def named(self, weighted: Tensor) -> Any:
        """The method returns a pair."""
        objectness, boxes = weighted.sum(dim=1).unbind()
        return objectness, boxes

    def anchors_per_cell(self) -> Sequence[int]:
        numbers: list[int] = self.owner.anchor_generator.num_anchors_per_location()
        return numbers

    def rows(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> Rows:
        images, total = len(labels), labels[0].numel()
        positive_masks, negative_masks = self.owner.fg_bg_sampler(labels)
        positive = torch.where(torch.cat(positive_masks))[0]
        negative = torch.where(torch.cat(negative_masks))[0]
        sampled = torch.cat([positive, negative])
        count = sampled.numel()

        targets = torch.cat(regression_targets)[positive]
        box = row_sums(F.smooth_l1_loss(pred_bbox_deltas[positive], targets, beta=1 / 9, reduction="none"))
        # torchvision's mean divides the gradient after the sigmoid's derivative, not before it.
        logits = divide_gradient(objectness.flatten()[sampled], count)
        cls = F.binary_cross_entropy_with_logits(logits, torch.cat(labels)[sampled], reduction="none")

        everywhere = (images * total,)
        values = torch.stack(
            [
                divide_value(spread(cls, (sampled,), everywhere), count),
                spread(box, (positive,), everywhere) / count,
            ]
        )
        return Rows(values.view(2, images, total), torch.cat(positive_masks).view(images, total))
