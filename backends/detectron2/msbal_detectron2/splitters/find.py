"""Finds the loss splitters of a model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.modeling.roi_heads.roi_heads import Res5ROIHeads, StandardROIHeads

from msbal.errors import SpecError, suggest
from msbal_detectron2.splitters.base import DictSplitter
from msbal_detectron2.splitters.fcos import FCOSSplitter
from msbal_detectron2.splitters.retinanet import RetinaNetSplitter
from msbal_detectron2.splitters.roi import roi_splitters
from msbal_detectron2.splitters.rpn import RPNSplitter

SCOPES = ("rpn", "roi")


def find(model: Any, scope: Collection[str] = ("rpn",)) -> list[DictSplitter]:
    """Return the splitters of a detectron2 model, by the classes of its parts; the model stays as it is.

    Args:
        model: not wrapped in DDP.
        scope: which heads of a two-stage model: ``rpn``, ``roi``. A one-stage head is always balanced whole.

    Raises:
        SpecError: where a head that is asked for cannot be balanced, with the reason.
    """
    for name in scope:
        if name not in SCOPES:
            raise SpecError("balance.scope", f"`{name}`", suggest(name, SCOPES))
    if isinstance(model, FCOS):
        return [FCOSSplitter(model)]
    if isinstance(model, RetinaNet):
        return [RetinaNetSplitter(model)]
    if not scope:
        raise SpecError("balance.scope", "nothing", f"one or more of {', '.join(SCOPES)}")
    proposals, heads = getattr(model, "proposal_generator", None), getattr(model, "roi_heads", None)
    if not isinstance(proposals, RPN) and heads is None:
        raise SpecError(
            "model",
            f"{type(model).__name__} has no head whose loss is a sum over pyramid levels",
            "RetinaNet, FCOS or an R-CNN with an FPN",
        )
    found: list[DictSplitter] = []
    if "rpn" in scope:
        found.append(_of_proposals(model, proposals))
    if "roi" in scope:
        found += _of_heads(model, heads)
    return found


def _of_proposals(model: Any, proposals: Any) -> DictSplitter:
    if isinstance(proposals, RPN):
        return RPNSplitter(proposals, model.backbone.output_shape())
    what = "its proposals are precomputed" if proposals is None else f"but {type(proposals).__name__}"
    raise SpecError(
        "balance.scope",
        f"{type(model).__name__} has no RPN ({what})",
        fix="balance its RoI losses: `scope: [roi]`",
    )


def _of_heads(model: Any, heads: Any) -> Sequence[DictSplitter]:
    if isinstance(heads, StandardROIHeads):
        return roi_splitters(heads)
    if heads is None:
        found, expected = f"{type(model).__name__} has no RoI heads", "`scope: [rpn]` for it"
    elif isinstance(heads, Res5ROIHeads):
        found = f"{type(heads).__name__} pools every RoI from one level"
        expected = "RoIs pooled from two levels or more"
    else:
        found = f"{type(heads).__name__} is not one of detectron2's own"
        expected = "StandardROIHeads or CascadeROIHeads"
    raise SpecError("balance.scope", found, expected, "leave `roi` out of the scope")
