"""Heads that already return one loss a level: a list under each key, summed by mmengine's
``parse_losses`` (``mmengine/model/base_model/base_model.py``). The seam only takes the lists out.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msbal_mmdet.seams.base import HeadSeam, LossCall, Losses, as_scalar

_CLS_BBOX = {"loss_cls": "cls", "loss_bbox": "bbox"}


class ListSeam(HeadSeam):
    """The lists as they come. Covers heads whose ``loss_by_feat`` ends in a ``multi_apply`` over levels.

    Attributes:
        single: the head's method that is called once a level with the targets, from which the positives are
            counted; empty where they do not tell.
    """

    heads: ClassVar[tuple[str, ...]] = (
        "AnchorHead", "RetinaHead", "RetinaSepBNHead", "TOODHead", "RTMDetHead", "RTMDetSepBNHead",
    )  # fmt: skip
    single: ClassVar[str] = "loss_by_feat_single"

    def __init__(self, head: nn.Module, group: str = "all", prefix: str = "") -> None:
        super().__init__(head, group, prefix)
        self._counts: list[Tensor] = []

    def positives(self) -> Tensor | None:
        counts, self._counts = self._counts, []
        return torch.stack(counts) if len(counts) == self.num_levels else None

    def positive(self, targets: Mapping[str, Any]) -> Tensor:
        """Which samples of one level are positive, from the arguments of `single`."""
        labels: Tensor = targets["labels"]
        return (labels >= 0) & (labels < self.head.num_classes)

    @contextmanager
    def _counting(self) -> Iterator[None]:
        self._counts = []
        single = getattr(self.head, self.single, None) if self.single else None
        if single is None or self.single in vars(self.head):
            yield  # somebody else stands there already
            return
        signature = inspect.signature(single)

        def counted(*args: Any, **kwargs: Any) -> Any:
            targets = signature.bind(*args, **kwargs).arguments
            self._counts.append(self.positive(targets).sum().float())
            return single(*args, **kwargs)

        setattr(self.head, self.single, counted)
        try:
            yield
        finally:
            delattr(self.head, self.single)

    def split(self, compute: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        with self._counting():
            losses = compute(*args, **kwargs)
        for key in self.terms:
            if key in losses:
                losses[key] = [as_scalar(value) for value in losses[key]]
        return losses


class FSAFSeam(ListSeam):
    """FSAF gives each object to every level, and chooses one of them by their losses."""

    heads: ClassVar = ("FSAFHead",)
    single: ClassVar = ""


class RPNSeam(ListSeam):
    """The region proposal network of two-stage detectors."""

    heads: ClassVar = ("RPNHead",)
    terms: ClassVar = {"loss_rpn_cls": "cls", "loss_rpn_bbox": "bbox"}


class ATSSSeam(ListSeam):
    heads: ClassVar = ("ATSSHead",)
    terms: ClassVar = {**_CLS_BBOX, "loss_centerness": "centerness"}


class GFLSeam(ListSeam):
    heads: ClassVar = ("GFLHead",)
    terms: ClassVar = {**_CLS_BBOX, "loss_dfl": "dfl"}


class LDSeam(ListSeam):
    """GFL with localisation distillation; the teacher's share is a loss of its level too."""

    heads: ClassVar = ("LDHead",)
    terms: ClassVar = {**GFLSeam.terms, "loss_ld": "ld"}


class DDODSeam(ListSeam):
    heads: ClassVar = ("DDODHead",)
    single: ClassVar = "loss_cls_by_feat_single"
    terms: ClassVar = {**_CLS_BBOX, "loss_iou": "iou"}


class GuidedAnchorSeam(ListSeam):
    heads: ClassVar = ("GuidedAnchorHead", "GARetinaHead")
    terms: ClassVar = {**_CLS_BBOX, "loss_shape": "shape", "loss_loc": "loc"}


class GuidedAnchorRPNSeam(ListSeam):
    heads: ClassVar = ("GARPNHead",)
    terms: ClassVar = {
        "loss_rpn_cls": "cls",
        "loss_rpn_bbox": "bbox",
        "loss_anchor_shape": "shape",
        "loss_anchor_loc": "loc",
    }


class CascadeRPNStageSeam(ListSeam):
    """One stage of Cascade RPN. All stages predict on the same levels: each adds its terms to one group."""

    heads: ClassVar = ("StageCascadeRPNHead",)
    terms: ClassVar = {"loss_rpn_cls": "cls", "loss_rpn_reg": "bbox"}

    def positives(self) -> Tensor | None:
        found = super().positives()
        # A stage that classifies nothing has the label of a positive on every anchor.
        return found if self.head.with_cls else None

    def term_names(self) -> tuple[str, ...]:
        names = ("cls", "bbox") if self.head.with_cls else ("bbox",)
        return tuple(self.prefix + name for name in names)


class RepPointsSeam(ListSeam):
    heads: ClassVar = ("RepPointsHead",)
    terms: ClassVar = {"loss_cls": "cls", "loss_pts_init": "pts_init", "loss_pts_refine": "pts_refine"}


class SABLRetinaSeam(ListSeam):
    heads: ClassVar = ("SABLRetinaHead",)
    terms: ClassVar = {"loss_cls": "cls", "loss_bbox_cls": "bbox_cls", "loss_bbox_reg": "bbox_reg"}


class RTMDetInsSeam(ListSeam):
    """RTMDet-Ins: its mask loss is one scalar over all levels' kernels and stays as it is."""

    heads: ClassVar = ("RTMDetInsHead", "RTMDetInsSepBNHead")


class YOLOV3Seam(ListSeam):
    """YOLOv3 lists its levels coarsest first (strides 32, 16, 8)."""

    heads: ClassVar = ("YOLOV3Head",)
    terms: ClassVar = {"loss_cls": "cls", "loss_conf": "conf", "loss_xy": "xy", "loss_wh": "wh"}

    def positive(self, targets: Mapping[str, Any]) -> Tensor:
        target: Tensor = targets["target_map"]
        return target[..., 4] > 0  # as the head itself weighs its box losses
