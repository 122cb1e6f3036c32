"""Box losses, one value a box.

Stands for ``torchvision.models.detection._utils._box_loss``, which sums over the boxes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from msbal_torchvision.splitters.numerics import row_sums

_IOU_LOSSES = {
    "ciou": complete_box_iou_loss,
    "diou": distance_box_iou_loss,
    "giou": generalized_box_iou_loss,
}


def box_losses(kind: str, coder: Any, anchors: Tensor, boxes: Tensor, deltas: Tensor) -> Tensor:
    """The loss of each positive anchor.

    Args:
        kind: ``l1``, ``smooth_l1``, ``ciou``, ``diou`` or ``giou``.
        coder: torchvision's ``BoxCoder``.
        anchors, boxes: ``[n, 4]`` in pixels, x1, y1, x2, y2.
        deltas: ``[n, 4]`` predicted, in the coder's terms.

    Returns:
        ``[n]``.

    Raises:
        ValueError: where `kind` is none of them.
    """
    if kind == "l1":
        return row_sums(F.l1_loss(deltas, coder.encode_single(boxes, anchors), reduction="none"))
    if kind == "smooth_l1":
        return row_sums(F.smooth_l1_loss(deltas, coder.encode_single(boxes, anchors), reduction="none"))
    if kind in _IOU_LOSSES:
        losses: Tensor = _IOU_LOSSES[kind](coder.decode_single(deltas, anchors), boxes, reduction="none")
        return losses
    raise ValueError(f"The box loss should be l1, smooth_l1, ciou, diou or giou. Found {kind!r}.")
