"""PISA's classification-aware regression loss (CARL), by level.

Shapes: M rows, P positive rows, C classes, K levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor

from msbal_mmdet.splitters.base import LossCall, Losses
from msbal_mmdet.splitters.flattened import AnchorRowsSplitter
from msbal_mmdet.splitters.reduction import SplitRows
from msbal_mmdet.splitters.rows import RowLayout, on_first_level


def carl_by_level(
    cls_score: Tensor,
    labels: Tensor,
    bbox_pred: Tensor,
    bbox_targets: Tensor,
    loss_bbox: Any,
    layout: RowLayout,
    *,
    avg_factor: Any,
    sigmoid: bool,
    num_class: int,
    k: float = 1,
    bias: float = 0.2,
) -> Tensor:
    """``carl_loss`` of ``mmdet/models/losses/pisa_loss.py`` with its last sum taken by level: ``[K]``.

    The scores' normaliser spans all levels, as there: so a level's share has small gradients in other
    levels' scores too.

    Args:
        cls_score: ``[M, C]``, or ``[M, C + 1]`` for softmax.
        labels: ``[M]``; a label outside ``[0, C)`` is background.
        bbox_pred, bbox_targets: ``[M, 4]``.
        loss_bbox: the head's, unreduced on request.
        avg_factor: the head's number of samples.
        k, bias: the exponent and the offset of the paper (arXiv 1904.04821).
    """
    positive = (labels >= 0) & (labels < num_class)
    rows = positive.nonzero().reshape(-1)
    if rows.numel() == 0:
        return on_first_level(cls_score.sum() * 0.0, len(layout.sizes))
    scores = cls_score.sigmoid() if sigmoid else cls_score.softmax(-1)
    weights = (bias + (1 - bias) * scores[rows, labels[rows]]).pow(k)
    weights = weights * (float(rows.numel()) / weights.sum())
    loss = loss_bbox(bbox_pred[rows], bbox_targets[rows], reduction_override="none") / avg_factor
    return layout.sum_selected(loss * weights[:, None], positive)


@contextmanager
def without_carl(head: Any) -> Iterator[Mapping[str, Any] | None]:
    """Keep the head from computing CARL itself; gives the settings that it would have used."""
    before = head.train_cfg
    carl = (before or {}).get("carl")
    if carl is None:
        yield None
        return
    head.train_cfg = type(before)({key: value for key, value in before.items() if key != "carl"})
    try:
        yield carl
    finally:
        head.train_cfg = before


class CarlTerm:
    """The extra term, where the head is configured to have it."""

    head: Any
    short: ClassVar[Mapping[str, str]] = {"loss_cls": "cls", "loss_bbox": "bbox", "loss_carl": "carl"}

    def head_terms(self) -> Mapping[str, str]:
        carl = (self.head.train_cfg or {}).get("carl") is not None
        return {key: term for key, term in self.short.items() if term != "carl" or carl}


class PISARetinaSplitter(CarlTerm, AnchorRowsSplitter):
    """RetinaNet with prime samples: the rows are anchors, image by image."""

    heads: ClassVar = ("PISARetinaHead",)
    level_major: ClassVar = False
    all_rows: ClassVar = ("loss_cls", "loss_bbox")
    positive_rows: ClassVar = ()
    targets: ClassVar = ""

    def by_level(self, own: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        with without_carl(self.head) as carl:
            losses = super().by_level(own, args, kwargs)
        if carl is not None and losses and len(self._calls) == 1:
            # The box loss took its short cut for rows without any weight: there are no positives.
            losses["loss_carl"] = on_first_level(self._calls[0][0][0].sum() * 0.0, self.num_levels)
        elif carl is not None and losses:
            (((cls_score, labels, *_), options), ((bbox_pred, bbox_targets, *_), _)) = self._calls
            losses["loss_carl"] = carl_by_level(
                cls_score,
                labels,
                bbox_pred,
                bbox_targets,
                self.head.loss_bbox,
                self.layout(*args, **kwargs),
                avg_factor=options["avg_factor"],
                sigmoid=True,
                num_class=self.head.num_classes,
                **carl,
            )
        self._calls = []
        return losses

    def _all(self, layout: RowLayout, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SplitRows:
        self._calls.append((args, kwargs))
        return layout.sum_all
