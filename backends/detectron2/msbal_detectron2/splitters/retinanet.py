"""RetinaNet: focal loss and box regression over the anchors of P3 to P7.

Shapes: N images, R anchors of an image over all levels, K levels, C classes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import cat
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes
from detectron2.utils.events import get_event_storage
from fvcore.nn import sigmoid_focal_loss_jit
from torch import Tensor

from msbal.engine.losses import LevelLosses
from msbal_detectron2.splitters.base import NormalizedSplitter, check_own, level_group, spread, sum_levels
from msbal_detectron2.splitters.boxes import dense_box_losses


@functools.cache
def settle_focal_loss(device: torch.device) -> None:
    """Let TorchScript finish with its first call, which it profiles and computes with other kernels.

    Without this the first step of a run differs in its last bits from the same step computed again.
    """
    with torch.enable_grad():
        for reduction in ("sum", "none"):
            logits = torch.zeros(2, 2, device=device, requires_grad=True)
            targets = torch.zeros(2, 2, device=device)
            sigmoid_focal_loss_jit(
                logits, targets, alpha=0.25, gamma=2.0, reduction=reduction
            ).sum().backward()


class RetinaNetSplitter(NormalizedSplitter):
    """Stands for ``RetinaNet.losses``."""

    owner: RetinaNet

    def __init__(self, model: RetinaNet) -> None:
        shapes = model.backbone.output_shape()
        strides = [int(shapes[name].stride) for name in model.head_in_features]
        group = level_group("all", model, strides, ("cls", "bbox"))
        check_own(model, RetinaNet.losses)
        super().__init__(model, group, ("loss_cls", "loss_box_reg"))
        settle_focal_loss(model.device)

    def level_losses(
        self,
        anchors: Sequence[Boxes],
        pred_logits: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
    ) -> LevelLosses:
        """``[2, K]``; arguments as those of ``RetinaNet.losses``.

        Args:
            anchors: K ``Boxes``.
            pred_logits, pred_anchor_deltas: K tensors ``[N, R_k, C]`` and ``[N, R_k, 4]``.
            gt_labels, gt_boxes: N tensors ``[R]`` and ``[R, 4]``; label C is background, -1 ignored.
        """
        module, labels = self.owner, torch.stack(list(gt_labels))
        sizes = [part.shape[1] for part in pred_logits]
        valid = labels >= 0
        positive = valid & (labels != module.num_classes)
        num_positive = positive.sum().item()
        get_event_storage().put_scalar("num_pos_anchors", num_positive / len(gt_labels))
        normalizer = module._ema_update("loss_normalizer", max(num_positive, 1), 100)

        # Indexed as in detectron2, so that the element losses are the same to the last bit.
        kept = valid.nonzero(as_tuple=True)
        target = F.one_hot(labels[kept], num_classes=module.num_classes + 1)[:, :-1]
        focal = sigmoid_focal_loss_jit(
            cat(list(pred_logits), dim=1)[kept],
            target.to(pred_logits[0].dtype),
            alpha=module.focal_loss_alpha,
            gamma=module.focal_loss_gamma,
            reduction="none",
        )
        cls = spread(focal.sum(dim=-1), kept, (len(labels), sum(sizes)))

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
        values = torch.stack(
            [sum_levels(cls, sizes), sum_levels(spread(bbox, where, (len(labels), sum(sizes))), sizes)]
        )
        return LevelLosses(values / normalizer, sum_levels(positive, sizes))
