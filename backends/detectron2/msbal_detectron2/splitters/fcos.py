"""FCOS: focal loss, GIoU and centerness over the points of P3 to P7.

Shapes: N images, R points of an image over all levels, K levels, C classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.structures import Boxes
from detectron2.utils.events import get_event_storage
from fvcore.nn import sigmoid_focal_loss_jit
from torch import Tensor

from msbal.engine.losses import LevelLosses
from msbal_detectron2.splitters.base import NormalizedSplitter, check_own, level_group, spread, sum_levels
from msbal_detectron2.splitters.boxes import dense_box_losses, single
from msbal_detectron2.splitters.retinanet import settle_focal_loss


class FCOSSplitter(NormalizedSplitter):
    """Stands for ``FCOS.losses``."""

    owner: FCOS

    def __init__(self, model: FCOS) -> None:
        shapes = model.backbone.output_shape()
        strides = [int(shapes[name].stride) for name in model.head_in_features]
        group = level_group("all", model, strides, ("cls", "bbox", "centerness"))
        check_own(model, FCOS.losses)
        super().__init__(model, group, ("loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr"))
        settle_focal_loss(model.device)

    def own_terms(
        self, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Sequence[Tensor | None]:
        """See `LossSplitter`. detectron2 decodes boxes in the predictions' precision, and fails on a half one."""
        call = inspect.signature(FCOS.losses).bind(self.owner, *args, **kwargs)
        deltas = call.arguments["pred_anchor_deltas"]
        call.arguments["pred_anchor_deltas"] = [single(level) for level in deltas]
        return super().own_terms(own, call.args[1:], call.kwargs)

    def level_losses(
        self,
        anchors: Sequence[Boxes],
        pred_logits: Sequence[Tensor],
        gt_labels: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        gt_boxes: Sequence[Any],
        pred_centerness: Sequence[Tensor],
    ) -> LevelLosses:
        """``[3, K]``; arguments as those of ``FCOS.losses``.

        Args:
            anchors: K ``Boxes``, a square of the stride's size around each point.
            pred_logits, pred_anchor_deltas, pred_centerness: K tensors ``[N, R_k, C | 4 | 1]``.
            gt_labels: N tensors ``[R]``; label C is background. No point is ignored.
            gt_boxes: N ``Boxes`` of R boxes (0.6) or tensors ``[R, 4]`` (later).
        """
        module, labels = self.owner, torch.stack(list(gt_labels))
        sizes = [part.shape[1] for part in pred_logits]
        positive = (labels >= 0) & (labels != module.num_classes)
        num_positive = positive.sum().item()
        get_event_storage().put_scalar("num_pos_anchors", num_positive / len(gt_labels))
        normalizer = module._ema_update("loss_normalizer", max(num_positive, 1), 300)

        target = F.one_hot(labels, num_classes=module.num_classes + 1)[..., :-1]
        focal = sigmoid_focal_loss_jit(
            torch.cat(list(pred_logits), dim=1),
            target.to(pred_logits[0].dtype),
            alpha=module.focal_loss_alpha,
            gamma=module.focal_loss_gamma,
            reduction="none",
        )

        where = positive.nonzero(as_tuple=True)
        bbox = dense_box_losses(
            module.box2box_transform,
            anchors,
            pred_anchor_deltas,
            [box.tensor if isinstance(box, Boxes) else box for box in gt_boxes],
            where,
            "giou",
            0.0,
        )
        centerness = F.binary_cross_entropy_with_logits(
            torch.cat(list(pred_centerness), dim=1).squeeze(dim=2)[where],
            module.compute_ctrness_targets(anchors, gt_boxes)[where],
            reduction="none",
        )
        shape = (len(labels), sum(sizes))
        values = torch.stack(
            [
                sum_levels(focal.sum(dim=-1), sizes),
                sum_levels(spread(bbox, where, shape), sizes),
                sum_levels(spread(centerness, where, shape), sizes),
            ]
        )
        return LevelLosses(values / normalizer, sum_levels(positive, sizes))
