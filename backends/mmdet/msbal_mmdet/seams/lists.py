"""Heads that already return one loss a level: a list under each key, summed by mmengine's
``parse_losses`` (``mmengine/model/base_model/base_model.py``). The seam only takes the lists out.
"""

from __future__ import annotations

from typing import Any, ClassVar

from msbal_mmdet.seams.base import HeadSeam, LossCall, Losses, as_scalar

_CLS_BBOX = {"loss_cls": "cls", "loss_bbox": "bbox"}


class ListSeam(HeadSeam):
    """The lists as they come. Covers heads whose ``loss_by_feat`` ends in a ``multi_apply`` over levels."""

    heads: ClassVar[tuple[str, ...]] = (
        "AnchorHead", "RetinaHead", "RetinaSepBNHead", "TOODHead", "FSAFHead", "RTMDetHead", "RTMDetSepBNHead",
    )  # fmt: skip

    def split(self, compute: LossCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Losses:
        losses = compute(*args, **kwargs)
        for key in self.terms:
            if key in losses:
                losses[key] = [as_scalar(value) for value in losses[key]]
        return losses


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
