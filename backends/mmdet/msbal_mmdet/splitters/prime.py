"""PISA's classification-aware regression loss (CARL), by level; and RetinaNet with it.

Shapes: M rows, P positive rows, C classes, K levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any, ClassVar

from torch import Tensor

from msbal_mmdet.splitters.base import CLS_BBOX, HeadSplitter, LossCall, Losses
from msbal_mmdet.splitters.flattened import FlattenedSplitter
from msbal_mmdet.splitters.reduction import on_first_level, replace_method, sum_rows
from msbal_mmdet.splitters.registry import register


class CarlTerm(HeadSplitter):
    """The extra term, of a head that is configured to have it: ``carl_loss`` by level replaces mmdet's for the call.

    Attributes:
        functions: the module from which the head's method takes ``carl_loss``.
    """

    short: ClassVar[Mapping[str, str]] = {**CLS_BBOX, "loss_carl": "carl"}
    functions: ClassVar[str]

    def head_terms(self) -> Mapping[str, str]:
        carl = (self.head.train_cfg or {}).get("carl") is not None
        return {key: term for key, term in self.short.items() if term != "carl" or carl}

    def carl_levels(self, rows: int) -> Tensor:
        """Return ``[M]``, the level of each of `rows` rows."""
        raise NotImplementedError

    def by_level(self, own: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        by_level = partial(carl_loss, levels=self.carl_levels, num_levels=self.num_levels)
        with replace_method(import_module(self.functions), "carl_loss", by_level):
            return super().by_level(own, args, kwargs)


def carl_loss(
    cls_score: Tensor,
    labels: Tensor,
    bbox_pred: Tensor,
    bbox_targets: Tensor,
    loss_bbox: Any,
    k: float = 1,
    bias: float = 0.2,
    avg_factor: Any = None,
    sigmoid: bool = False,
    num_class: int = 80,
    *,
    levels: Any,
    num_levels: int,
) -> dict[str, Tensor]:
    """``carl_loss`` of ``mmdet/models/losses/pisa_loss.py`` with its last sum taken by level: ``[K]``.

    As there, the normaliser of the scores spans all levels, so that a level's loss has small gradients in the scores
    of others too.

    Args:
        cls_score: ``[M, C]``, or ``[M, C + 1]`` for softmax.
        labels: ``[M]``; a label outside ``[0, C)`` is background.
        bbox_pred, bbox_targets: ``[M, 4]``.
        loss_bbox: the head's, unreduced on request.
        avg_factor: the head's number of samples.
        k, bias: the exponent and the offset of the paper (arXiv 1904.04821).
        levels: returns ``[M]``, the level of each row.
        num_levels: K.
    """
    rows = ((labels >= 0) & (labels < num_class)).nonzero().reshape(-1)
    if rows.numel() == 0:
        return {"loss_carl": on_first_level(cls_score.sum() * 0.0, num_levels)}
    scores = cls_score.sigmoid() if sigmoid else cls_score.softmax(-1)
    weights = (bias + (1 - bias) * scores[rows, labels[rows]]).pow(k)
    weights = weights * (float(rows.numel()) / weights.sum())
    loss = loss_bbox(bbox_pred[rows], bbox_targets[rows], reduction_override="none") / avg_factor
    return {"loss_carl": sum_rows(loss * weights[:, None], levels(len(labels))[rows], num_levels)}


@register
class PISARetinaSplitter(CarlTerm, FlattenedSplitter):
    """RetinaNet with prime samples: the rows are anchors, image by image."""

    heads: ClassVar = ("PISARetinaHead",)
    level_major: ClassVar = False
    anchors: ClassVar = True
    all_rows: ClassVar = ("loss_cls", "loss_bbox")
    positive_rows: ClassVar = ()
    targets: ClassVar = ""
    functions: ClassVar = "mmdet.models.dense_heads.pisa_retinanet_head"

    def carl_levels(self, rows: int) -> Tensor:
        return self._all((), {})
