"""Heads that already return one loss a level, a list under each key: the splitter only weighs its entries.

mmengine's ``parse_losses`` adds them up (``mmengine/model/base_model/base_model.py``).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msbal_mmdet.splitters.base import CLS_BBOX, HeadSplitter, LossCall, Losses
from msbal_mmdet.splitters.reduction import replace_method
from msbal_mmdet.splitters.registry import register


@register
class ListSplitter(HeadSplitter):
    """A head whose ``loss_by_feat`` ends in a ``multi_apply`` over levels.

    Attributes:
        single: the head's method that is called once a level with the targets, from which the positives are counted;
            empty where they do not tell.
    """

    heads: ClassVar[tuple[str, ...]] = (
        "AnchorHead", "RetinaHead", "RetinaSepBNHead", "TOODHead", "RTMDetHead", "RTMDetSepBNHead",
    )  # fmt: skip
    computes = False
    single: ClassVar[str] = "loss_by_feat_single"

    def __init__(self, head: nn.Module, group: str = "all") -> None:
        super().__init__(head, group)
        self._counts: list[Tensor] = []

    def positives(self) -> Tensor | None:
        counts, self._counts = self._counts, []
        return torch.stack(counts) if len(counts) == self.num_levels else None

    def positive(self, targets: Mapping[str, Any]) -> Tensor:
        """Return which samples of one level are positive, from the arguments of `single`."""
        labels: Tensor = targets["labels"]
        positive: Tensor = (labels >= 0) & (labels < self.head.num_classes)
        return positive

    def by_level(self, own: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        self._counts = []
        if not self.single or not hasattr(self.head, self.single):
            return own(*args, **kwargs)
        single = getattr(self.head, self.single)
        signature = self._signature()

        def counted(*args: Any, **kwargs: Any) -> Any:
            try:
                targets = signature.bind(self.head, *args, **kwargs).arguments
                self._counts.append(self.positive(targets).sum().float())
            except (TypeError, KeyError):  # a head of the user's own that calls it in another way
                pass
            return single(*args, **kwargs)

        with replace_method(self.head, self.single, counted):
            return own(*args, **kwargs)

    def _signature(self) -> inspect.Signature:
        """Return the signature of mmdet's own method: an override may take ``*args``."""
        own = next(
            cls for cls in type(self.head).__mro__
            if self.single in vars(cls) and self.package in (cls.__module__.partition(".")[0], "")
        )  # fmt: skip
        return inspect.signature(vars(own)[self.single])

    def framework_form(self, key: str, row: Tensor, found: Any) -> Any:
        return [
            value.expand(was.shape) if was.dim() else value for value, was in zip(row, found, strict=True)
        ]


@register
class FSAFSplitter(ListSplitter):
    """FSAF gives each object to every level, and chooses one of the levels by their losses."""

    heads: ClassVar = ("FSAFHead",)
    single: ClassVar = ""


@register
class RPNSplitter(ListSplitter):
    """The region proposal network of two-stage detectors."""

    heads: ClassVar = ("RPNHead",)
    short: ClassVar = {"loss_rpn_cls": "cls", "loss_rpn_bbox": "bbox"}


@register
class ATSSSplitter(ListSplitter):
    heads: ClassVar = ("ATSSHead",)
    short: ClassVar = {**CLS_BBOX, "loss_centerness": "centerness"}


@register
class GFLSplitter(ListSplitter):
    heads: ClassVar = ("GFLHead",)
    short: ClassVar = {**CLS_BBOX, "loss_dfl": "dfl"}


@register
class LDSplitter(ListSplitter):
    """GFL with localisation distillation; the loss against the teacher is one of its level too."""

    heads: ClassVar = ("LDHead",)
    short: ClassVar = {**GFLSplitter.short, "loss_ld": "ld"}


@register
class DDODSplitter(ListSplitter):
    heads: ClassVar = ("DDODHead",)
    single: ClassVar = "loss_cls_by_feat_single"
    short: ClassVar = {**CLS_BBOX, "loss_iou": "iou"}

    def state(self) -> dict[str, Any]:
        """Return the positives of each level since the run began, by which the head weighs its levels."""
        return {"cls_num_pos_samples_per_level": list(self.head.cls_num_pos_samples_per_level)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        vars(self.head).update(state)


@register
class GuidedAnchorSplitter(ListSplitter):
    heads: ClassVar = ("GuidedAnchorHead", "GARetinaHead")
    short: ClassVar = {**CLS_BBOX, "loss_shape": "shape", "loss_loc": "loc"}


@register
class GuidedAnchorRPNSplitter(ListSplitter):
    heads: ClassVar = ("GARPNHead",)
    short: ClassVar = {**RPNSplitter.short, "loss_anchor_shape": "shape", "loss_anchor_loc": "loc"}


@register
class CascadeRPNStageSplitter(ListSplitter):
    """One stage of Cascade RPN: each is a group of its own."""

    heads: ClassVar = ("StageCascadeRPNHead",)
    short: ClassVar = {"loss_rpn_cls": "cls", "loss_rpn_reg": "bbox"}

    def positives(self) -> Tensor | None:
        found = super().positives()
        # A stage that classifies nothing has the label of a positive on every anchor.
        return found if self.head.with_cls else None

    def head_terms(self) -> Mapping[str, str]:
        return {key: term for key, term in self.short.items() if term != "cls" or self.head.with_cls}


@register
class RepPointsSplitter(ListSplitter):
    heads: ClassVar = ("RepPointsHead",)
    short: ClassVar = {"loss_cls": "cls", "loss_pts_init": "pts_init", "loss_pts_refine": "pts_refine"}


@register
class SABLRetinaSplitter(ListSplitter):
    heads: ClassVar = ("SABLRetinaHead",)
    short: ClassVar = {"loss_cls": "cls", "loss_bbox_cls": "bbox_cls", "loss_bbox_reg": "bbox_reg"}


@register
class RTMDetInsSplitter(ListSplitter):
    """RTMDet-Ins: its mask loss is one scalar over the kernels of all levels and stays as it is."""

    heads: ClassVar = ("RTMDetInsHead", "RTMDetInsSepBNHead")


@register
class YOLOV3Splitter(ListSplitter):
    """YOLOv3 lists its levels coarsest first (strides 32, 16, 8)."""

    heads: ClassVar = ("YOLOV3Head",)
    short: ClassVar = {"loss_cls": "cls", "loss_conf": "conf", "loss_xy": "xy", "loss_wh": "wh"}

    def positive(self, targets: Mapping[str, Any]) -> Tensor:
        target: Tensor = targets["target_map"]
        return target[..., 4] > 0  # as the head itself weighs its box losses
