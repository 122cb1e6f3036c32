"""Box regression losses per sample: detectron2's ``_dense_box_regression_loss`` without its sum.

Shapes: P samples, N images, R anchors of an image over all levels, B box dimensions (4; 5 where rotated).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.layers import cat, ciou_loss, diou_loss
from fvcore.nn import giou_loss, smooth_l1_loss
from torch import Tensor

_IOU_LOSSES = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}


def box_losses(
    transform: Any, boxes: Tensor, deltas: Tensor, targets: Tensor, kind: str, beta: float
) -> Tensor:
    """The loss of each sample, ``[P]``.

    Args:
        transform: the head's ``Box2BoxTransform``.
        boxes: ``[P, B]`` anchors or proposals.
        deltas: ``[P, B]`` predictions.
        targets: ``[P, B]`` matched ground truth.
        kind: ``smooth_l1``, ``giou``, ``diou`` or ``ciou``.
        beta: of ``smooth_l1``.

    Raises:
        ValueError: for another kind.
    """
    if kind == "smooth_l1":
        loss: Tensor = smooth_l1_loss(
            deltas, transform.get_deltas(boxes, targets), beta=beta, reduction="none"
        ).sum(dim=1)
        return loss
    return _iou_losses(transform.apply_deltas(single(deltas), boxes), targets, kind)


def dense_box_losses(
    transform: Any,
    anchors: Sequence[Any],
    deltas: Sequence[Tensor],
    targets: Sequence[Tensor],
    where: tuple[Tensor, ...],
    kind: str,
    beta: float,
) -> Tensor:
    """The loss of each positive anchor, ``[P]``.

    Args:
        anchors: K ``Boxes``, of each level.
        deltas: K tensors ``[N, R_k, B]``.
        targets: N tensors ``[R, B]``.
        where: image and anchor of each positive.
        transform, kind, beta: see `box_losses`.
    """
    boxes = type(anchors[0]).cat(list(anchors)).tensor
    predictions = cat(list(deltas), dim=1)
    wanted = torch.stack(list(targets))[where]
    if kind == "smooth_l1":
        return box_losses(transform, boxes[where[1]], predictions[where], wanted, kind, beta)
    # Decoded before they are indexed, as in detectron2: a CPU's exp() depends, in the last bit, on where in
    # a tensor the element lies.
    decoded = torch.stack([transform.apply_deltas(single(image), boxes) for image in predictions])
    return _iou_losses(decoded[where], wanted, kind)


def single(deltas: Tensor) -> Tensor:
    """In float32 or better. FCOS decodes in the predictions' precision, and fvcore's IoU losses fail on a half one."""
    return deltas.to(torch.promote_types(deltas.dtype, torch.float32))


def _iou_losses(boxes: Tensor, targets: Tensor, kind: str) -> Tensor:
    if kind not in _IOU_LOSSES:
        raise ValueError(f"box_reg_loss_type should be smooth_l1, {', '.join(_IOU_LOSSES)}. Found {kind!r}.")
    loss: Tensor = _IOU_LOSSES[kind](boxes, targets, reduction="none")
    return loss
