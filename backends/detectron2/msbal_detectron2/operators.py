"""A substitute for ``detectron2._C``, detectron2's C++ operators, where they were not compiled.

RetinaNet, FCOS and the R-CNNs need none of them: detectron2 takes `nms` and `roi_align` from torchvision, and so does
this module for deformable convolution, with its gradients. What torchvision lacks (rotated boxes, the C++ COCO
evaluation) raises `MissingOperator` when it is called, and only then.

`msbal_detectron2.installer` copies this file into detectron2 as ``_C.py``, so it imports only torch and torchvision.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

_HELP = (
    "detectron2 was installed without its C++ operators, and `{name}` has no substitute: {advice}"
    "build detectron2 from its repository (see its INSTALL.md) to have it"
)


class MissingOperator(NotImplementedError):
    """A C++ operator of detectron2 was called, and this installation lacks it."""

    def __init__(self, name: str, advice: str = "") -> None:
        super().__init__(_HELP.format(name=name, advice=advice))


def deform_conv(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    deformable_groups: int = 1,
    im2col_step: int = 64,
) -> Tensor:
    """Compute ``detectron2.layers.deform_conv.deform_conv`` by `torchvision.ops.deform_conv2d`.

    In both, `offset` has (y, x) pairs per kernel cell and deformable group, and the shapes tell the number of groups.
    `im2col_step` only tunes detectron2's CUDA kernel.
    """
    out: Tensor = deform_conv2d(input, offset, weight, stride=stride, padding=padding, dilation=dilation)
    return out


def modulated_deform_conv(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    deformable_groups: int = 1,
) -> Tensor:
    """Compute ``detectron2.layers.deform_conv.modulated_deform_conv`` (deformable v2), as above."""
    out: Tensor = deform_conv2d(
        input, offset, weight, bias, stride=stride, padding=padding, dilation=dilation, mask=mask
    )
    return out


def get_compiler_version() -> str:
    """For ``detectron2.utils.collect_env``."""
    return "none (C++ operators not compiled)"


def get_cuda_version() -> str:
    """For ``detectron2.utils.collect_env``."""
    return "none (C++ operators not compiled)"


def has_cuda() -> bool:
    """For ``detectron2.utils.collect_env``."""
    return False


_ADVICE = {
    "InstanceAnnotation": "pass `use_fast_impl=False` to COCOEvaluator, or ",
    "COCOevalEvaluateImages": "pass `use_fast_impl=False` to COCOEvaluator, or ",
    "COCOevalAccumulate": "pass `use_fast_impl=False` to COCOEvaluator, or ",
}


def __getattr__(name: str) -> Any:
    """Return any other operator: importable, so that detectron2 loads, but an error when it is called."""
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> NoReturn:
        raise MissingOperator(name, _ADVICE.get(name, ""))

    missing.__name__ = name
    return missing


# Newer detectron2 calls its rotated operators as torch.ops.detectron2.*, so they must exist there too.
_SCHEMAS = (
    "nms_rotated(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor",
    "box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor",
    "roi_align_rotated_forward(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
    "SymInt pooled_width, SymInt sampling_ratio) -> Tensor",
    "roi_align_rotated_backward(Tensor grad, Tensor rois, float spatial_scale, SymInt pooled_height, "
    "SymInt pooled_width, SymInt batch_size, SymInt channels, SymInt height, SymInt width, "
    "SymInt sampling_ratio) -> Tensor",
)


def _define_missing(library: torch.library.Library) -> None:
    for schema in _SCHEMAS:
        name = schema.split("(", 1)[0]
        if hasattr(torch.ops.detectron2, name):
            continue
        library.define(schema)  # type: ignore[no-untyped-call]
        library.impl(name, __getattr__(name), "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]


_LIBRARY = torch.library.Library("detectron2", "FRAGMENT")  # type: ignore[no-untyped-call]
_define_missing(_LIBRARY)
