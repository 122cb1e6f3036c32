"""Which seams a model has."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.modeling.roi_heads.roi_heads import Res5ROIHeads, StandardROIHeads
from torch import nn

from msbal.errors import SpecError, suggest
from msbal_detectron2.seams.base import Seam
from msbal_detectron2.seams.fcos import FCOSSeam
from msbal_detectron2.seams.retinanet import RetinaNetSeam
from msbal_detectron2.seams.roi import RoISeam
from msbal_detectron2.seams.rpn import RPNSeam

SCOPES = ("rpn", "roi")


def find(model: Any, scope: Collection[str] = ("rpn",)) -> list[Seam]:
    """The seams of a detectron2 model, by the classes of its parts; none is installed yet.

    Args:
        model: not wrapped in DDP.
        scope: which heads of a two-stage model: ``rpn``, ``roi``. A one-stage head is always balanced whole.

    Raises:
        SpecError: where there is nothing to balance, with the reason.
    """
    for name in scope:
        if name not in SCOPES:
            raise SpecError("balance.scope", f"`{name}`", suggest(name, SCOPES))
    if isinstance(model, FCOS):
        return [FCOSSeam(model)]
    if isinstance(model, RetinaNet):
        return [RetinaNetSeam(model)]
    seams: list[Seam] = []
    proposals = getattr(model, "proposal_generator", None)
    if "rpn" in scope and isinstance(proposals, RPN):
        seams.append(RPNSeam(proposals, model.backbone.output_shape()))
    heads = getattr(model, "roi_heads", None)
    if "roi" in scope and heads is not None:
        seams.append(_roi_seam(heads))
    if not seams:
        raise _refusal(model, scope)
    return seams


def _roi_seam(heads: nn.Module) -> Seam:
    if isinstance(heads, Res5ROIHeads):
        raise SpecError(
            "balance.scope",
            f"{type(heads).__name__} pools every RoI from one level",
            "RoIs pooled from two levels or more",
            "choose a config with an FPN",
        )
    if not isinstance(heads, StandardROIHeads):
        raise SpecError(
            "balance.scope",
            f"{type(heads).__name__} is not one of detectron2's own",
            "StandardROIHeads or CascadeROIHeads",
            "leave `roi` out of the scope",
        )
    return RoISeam(heads)


def _refusal(model: nn.Module, scope: Collection[str]) -> SpecError:
    name = type(model).__name__
    if getattr(model, "roi_heads", None) is not None and "rpn" in scope:
        return SpecError(
            "balance.scope",
            f"{name} has no RPN (its proposals are precomputed)",
            fix="balance its RoI losses: `scope: [roi]`",
        )
    return SpecError(
        "model",
        f"{name} has no head whose loss is a sum over pyramid levels",
        "RetinaNet, FCOS or an R-CNN with an FPN",
    )
