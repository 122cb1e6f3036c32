"""What detectron2's splitters share: its form of a loss, its running normaliser, its focal and box losses by anchor.

Shapes: N images, R anchors (or points) of an image over all levels, K levels, T terms, P positive anchors or samples,
B box dimensions (4; 5 where rotated), C classes.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import cat, ciou_loss, diou_loss
from detectron2.utils.events import EventStorage, get_event_storage
from fvcore.nn import giou_loss, sigmoid_focal_loss_jit, smooth_l1_loss
from torch import Tensor, nn

from msbal.backend import LevelGroup
from msbal.backend.kit.parts import parts_by_name
from msbal.backend.kit.splitter import LossSplitter, Split, level_names, require_levels, require_own_loss
from msbal.engine.gradients import Parts
from msbal.engine.losses import LevelLosses
from msbal.errors import SpecError

# RetinaNet and FCOS divide by a moving average of the positives. detectron2 keeps it as a plain attribute of the model
# and forgets it on a resume.
_NORMALIZER = "loss_normalizer"
_IOU_LOSSES = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}


class DictSplitter(LossSplitter):
    """Replaces a ``losses`` method, which returns a dictionary of T scalars."""

    method = "losses"

    @abstractmethod
    def level_losses(self, *args: Any, **kwargs: Any) -> LevelLosses:
        """Compute ``[T, K]`` losses from the arguments of detectron2's method."""

    def split(self, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Split:
        return Split(self.level_losses(*args, **kwargs), self.named)

    def parts(self, model: Any) -> Parts:
        # An FPN is what detectron2 calls a backbone; the network below it is within.
        below = [f"backbone.{name}" for name in ("bottom_up", "net") if hasattr(model.backbone, name)]
        neck = {"neck": ["backbone"]} if below else {}
        return parts_by_name(model, {"backbone": below or ["backbone"], **neck})

    def aside(self) -> AbstractContextManager[Any]:
        """detectron2's losses log into the storage on top of a global stack."""
        return EventStorage()  # type: ignore[no-any-return]


class NormalizedSplitter(DictSplitter):
    """A splitter of a one-stage model, whose loss is divided by a moving average."""

    owner: Any

    def __init__(
        self, model: Any, framework: type[nn.Module], terms: Sequence[str], keys: Sequence[str]
    ) -> None:
        shapes = model.backbone.output_shape()
        strides = [int(shapes[name].stride) for name in model.head_in_features]
        require_own_loss(model, framework, "losses")
        super().__init__(model, level_group("all", model, strides, terms), keys)
        settle_focal_loss(model.device)

    def normalizer(self, positive: Tensor, initial: int) -> float:
        """Update and return the moving average of the positives, and log their number as detectron2 does.

        Args:
            positive: ``[N, R]`` mask.
            initial: what the average starts from.
        """
        count = positive.sum().item()
        get_event_storage().put_scalar("num_pos_anchors", count / len(positive))
        normalizer: float = self.owner._ema_update(_NORMALIZER, max(count, 1), initial)
        return normalizer

    def focal_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the focal loss of each anchor, summed over the classes.

        Args:
            logits: ``[..., C]``.
            labels: ``[...]``; C is background.
        """
        target = F.one_hot(labels, num_classes=self.owner.num_classes + 1)[..., :-1]
        losses: Tensor = sigmoid_focal_loss_jit(
            logits,
            target.to(logits.dtype),
            alpha=self.owner.focal_loss_alpha,
            gamma=self.owner.focal_loss_gamma,
            reduction="none",
        )
        return losses.sum(dim=-1)

    def state(self) -> dict[str, Any]:
        return {_NORMALIZER: getattr(self.owner, _NORMALIZER, None)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore `state`; None is that of a model that has not been trained yet."""
        vars(self.owner).pop(_NORMALIZER, None)
        if state.get(_NORMALIZER) is not None:
            setattr(self.owner, _NORMALIZER, state[_NORMALIZER])


def level_group(name: str, head: nn.Module, strides: Sequence[int], terms: Sequence[str]) -> LevelGroup:
    """Return the levels of a head.

    Raises:
        SpecError: for fewer than two levels, or levels that are not ordered from fine to coarse.
    """
    found = type(head).__name__
    require_levels(found, strides)
    if list(strides) != sorted(set(strides)):
        raise SpecError(
            "model", f"{found} has the strides {list(strides)}", "one level per stride, finest first",
            "order its input features by stride",
        )  # fmt: skip
    return LevelGroup(name, found, level_names(strides), tuple(strides), tuple(terms))


@functools.cache
def settle_focal_loss(device: torch.device) -> None:
    """Let TorchScript finish with its first call, which it profiles and computes with other kernels.

    Otherwise the first step of a run differs in its last bits from the same step computed again.
    """
    with torch.enable_grad():
        for reduction in ("sum", "none"):
            logits = torch.zeros(2, 2, device=device, requires_grad=True)
            targets = torch.zeros(2, 2, device=device)
            loss = sigmoid_focal_loss_jit(logits, targets, alpha=0.25, gamma=2.0, reduction=reduction)
            loss.sum().backward()


def box_losses(head: Any, boxes: Tensor, deltas: Tensor, targets: Tensor) -> Tensor:
    """Return the box loss of each sample, ``[P]``: detectron2's ``_dense_box_regression_loss`` without its sum.

    Args:
        head: with its ``box2box_transform``, ``box_reg_loss_type`` and ``smooth_l1_beta``.
        boxes: ``[P, B]`` anchors or proposals.
        deltas: ``[P, B]`` predictions.
        targets: ``[P, B]`` matched ground truth.

    Raises:
        ValueError: for a type of loss that is not known.
    """
    transform = head.box2box_transform
    if head.box_reg_loss_type == "smooth_l1":
        wanted = transform.get_deltas(boxes, targets)
        loss: Tensor = smooth_l1_loss(deltas, wanted, beta=head.smooth_l1_beta, reduction="none").sum(dim=1)
        return loss
    return _iou_losses(transform.apply_deltas(single(deltas), boxes), targets, head.box_reg_loss_type)


def dense_box_losses(
    head: Any,
    anchors: Sequence[Any],
    deltas: Sequence[Tensor],
    targets: Sequence[Tensor],
    where: tuple[Tensor, ...],
) -> Tensor:
    """Return the box loss of each positive anchor, ``[P]``.

    Args:
        head: see `box_losses`; FCOS, which has no type of loss, uses GIoU.
        anchors: K ``Boxes``, those of each level.
        deltas: K tensors ``[N, R_k, B]``.
        targets: N tensors ``[R, B]``.
        where: image and anchor of each positive.
    """
    boxes = type(anchors[0]).cat(list(anchors)).tensor
    predictions = cat(list(deltas), dim=1)
    wanted = torch.stack(list(targets))[where]
    kind = getattr(head, "box_reg_loss_type", "giou")
    if kind == "smooth_l1":
        return box_losses(head, boxes[where[1]], predictions[where], wanted)
    # Decoded before they are indexed, as in detectron2: on a CPU the last bit of exp() depends on where in a tensor the
    # element lies.
    decoded = [head.box2box_transform.apply_deltas(single(image), boxes) for image in predictions]
    return _iou_losses(torch.stack(decoded)[where], wanted, kind)


def single(deltas: Tensor) -> Tensor:
    """Return them in float32 or better: FCOS decodes in the predictions' precision, and IoU losses fail on a half."""
    return deltas.to(torch.promote_types(deltas.dtype, torch.float32))


def _iou_losses(boxes: Tensor, targets: Tensor, kind: str) -> Tensor:
    if kind not in _IOU_LOSSES:
        raise ValueError(f"box_reg_loss_type should be smooth_l1, {', '.join(_IOU_LOSSES)}. Found {kind!r}.")
    loss: Tensor = _IOU_LOSSES[kind](boxes, targets, reduction="none")
    return loss
