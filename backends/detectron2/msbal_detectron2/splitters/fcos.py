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
from torch import Tensor

from msbal.backend.kit.level_sums import spread, sum_levels
from msbal.engine.losses import LevelLosses
from msbal_detectron2.splitters.base import NormalizedSplitter, dense_box_losses, single


class FCOSSplitter(NormalizedSplitter):
    """Replaces ``FCOS.losses``."""

    def __init__(self, model: FCOS) -> None:
        keys = ("loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr")
        super().__init__(model, FCOS, ("cls", "bbox", "centerness"), keys)

    def own_terms(
        self, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Sequence[Tensor | None]:
        """detectron2 decodes boxes in the predictions' precision, and fails on a half one."""
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
        """Compute ``[3, K]`` losses from the arguments of ``FCOS.losses``.

        Args:
            anchors: K ``Boxes``, a square of the stride's size around each point.
            pred_logits, pred_anchor_deltas, pred_centerness: K tensors ``[N, R_k, C | 4 | 1]``.
            gt_labels: N tensors ``[R]``; label C is background. No point is ignored.
            gt_boxes: N ``Boxes`` of R boxes (0.6) or tensors ``[R, 4]`` (later).
        """
        labels = torch.stack(list(gt_labels))
        sizes = [part.shape[1] for part in pred_logits]
        positive = (labels >= 0) & (labels != self.owner.num_classes)
        normalizer = self.normalizer(positive, 300)

        where = positive.nonzero(as_tuple=True)
        targets = [box.tensor if isinstance(box, Boxes) else box for box in gt_boxes]
        bbox = dense_box_losses(self.owner, anchors, pred_anchor_deltas, targets, where)
        centerness = F.binary_cross_entropy_with_logits(
            torch.cat(list(pred_centerness), dim=1).squeeze(dim=2)[where],
            self.owner.compute_ctrness_targets(anchors, gt_boxes)[where],
            reduction="none",
        )
        rows = [
            self.focal_losses(torch.cat(list(pred_logits), dim=1), labels),
            *(spread(losses, where, labels.shape) for losses in (bbox, centerness)),
        ]
        return LevelLosses(sum_levels(torch.stack(rows), sizes) / normalizer, sum_levels(positive, sizes))
