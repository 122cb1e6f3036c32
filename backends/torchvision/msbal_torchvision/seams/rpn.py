"""The region proposal network of Faster, Mask and Keypoint R-CNN: losses per level.

Stands in for ``RegionProposalNetwork.compute_loss`` of torchvision 0.19 to 0.26. The sampler draws once, in
torchvision's own way and from the same random state. Both terms are normalised by the anchors sampled in the
whole batch.

Shapes: B images, R anchors of an image, level-major; S sampled anchors, P of them positive.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.rpn import RegionProposalNetwork

from msbal_torchvision.seams.numerics import divide_gradient, divide_value, level_sums, row_sums, spread
from msbal_torchvision.seams.part import Part
from msbal_torchvision.seams.seam import require_own_loss


class RPNPart(Part):
    """The seam in one region proposal network."""

    terms = ("cls", "bbox")
    keys = ("loss_objectness", "loss_rpn_box_reg")
    sizes: list[int]

    @staticmethod
    def check(model: Any) -> None:
        """Refuse a model whose loss is the user's own, as `require_own_loss` says."""
        require_own_loss(model.rpn, RegionProposalNetwork, "compute_loss")
        require_own_loss(model.rpn, RegionProposalNetwork, "forward")

    def install(self, model: Any) -> None:
        """Stand in for the RPN's `compute_loss`."""
        self.rpn = model.rpn
        self.seam.keep(self.rpn.head.register_forward_hook(self._note_sizes))
        self.seam.replace_method(self.rpn, "compute_loss", self.compute_loss)

    def _note_sizes(self, head: nn.Module, inputs: Any, outputs: tuple[list[Tensor], list[Tensor]]) -> None:
        # [B, A, H, W] objectness of each level.
        self.sizes = [level.shape[1] * level.shape[2] * level.shape[3] for level in outputs[0]]

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """``RegionProposalNetwork.compute_loss``, split into levels."""
        if not self.seam.active:
            return type(self.rpn).compute_loss(  # type: ignore[no-any-return]
                self.rpn, objectness, pred_bbox_deltas, labels, regression_targets
            )
        images, total = len(labels), sum(self.sizes)
        positive_masks, negative_masks = self.rpn.fg_bg_sampler(labels)
        positive = torch.where(torch.cat(positive_masks))[0]
        negative = torch.where(torch.cat(negative_masks))[0]
        sampled = torch.cat([positive, negative])
        count = sampled.numel()

        targets = torch.cat(regression_targets)[positive]
        box = row_sums(F.smooth_l1_loss(pred_bbox_deltas[positive], targets, beta=1 / 9, reduction="none"))
        # torchvision's mean divides the gradient after the sigmoid's derivative, not before it.
        logits = divide_gradient(objectness.flatten()[sampled], count)
        cls = F.binary_cross_entropy_with_logits(logits, torch.cat(labels)[sampled], reduction="none")

        everywhere = images * total
        rows = torch.stack(
            [
                divide_value(spread(cls, sampled, everywhere), count),
                spread(box, positive, everywhere) / count,
            ]
        )
        values = level_sums(rows.view(2, images, total), self.sizes)
        mask = torch.cat(positive_masks).view(1, images, total).to(torch.float32)
        stand_ins = self.stand_ins(values)
        self.put(values, level_sums(mask, self.sizes)[0], stand_ins)
        return stand_ins["loss_objectness"], stand_ins["loss_rpn_box_reg"]
