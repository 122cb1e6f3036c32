"""GLIP's head: class scores of image and text tokens, padding tokens masked away before the loss.

Shapes: N images, K levels, S positions of all levels, T tokens.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from msbal_mmdet.splitters.flattened import FlattenedSplitter
from msbal_mmdet.splitters.reduction import SplitRows
from msbal_mmdet.splitters.rows import RowLayout, split_sizes, sum_by_level


class ATSSVLFusionSplitter(FlattenedSplitter):
    """Image-major rows; its score maps come as ``[N, S_l, T]``, so the sizes are those of the boxes."""

    heads: ClassVar = ("ATSSVLFusionHead",)
    short: ClassVar = {"loss_cls": "cls", "loss_bbox": "bbox", "loss_centerness": "centerness"}
    level_major: ClassVar = False
    positive_rows: ClassVar = ("loss_bbox", "loss_centerness")

    def layout(self, *args: Any, **kwargs: Any) -> RowLayout:
        maps = args[1] if len(args) > 1 else kwargs["bbox_preds"]
        sizes = split_sizes(maps, self.head.num_base_priors)
        return RowLayout(maps[0].shape[0], sizes, level_major=False)

    def hear_targets(self, targets: Any) -> None:
        labels = torch.cat(targets[1], dim=1)  # [N, S, T], ones where a token names the box
        self._positive = (labels.sum(-1) > 0).reshape(-1)

    def _all(self, layout: RowLayout, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SplitRows:
        # [N, T] True for real tokens: each row of an image keeps the same ones, one value a token.
        tokens = (self.head.text_masks > 0).sum(dim=1)
        return partial(_sum_tokens, layout=layout, tokens=tokens)


def _sum_tokens(values: Tensor, layout: RowLayout, tokens: Tensor) -> Tensor:
    """``[sum_n S * tokens_n]`` in row order, ``[N]`` tokens an image -> ``[K]``."""
    sizes = torch.tensor(layout.sizes, device=values.device)
    ends = (tokens[:, None] * sizes[None, :]).flatten().cumsum(0)  # image after image, level after level
    position = torch.arange(values.shape[0], device=values.device)
    level = torch.bucketize(position, ends, right=True) % len(layout.sizes)
    return sum_by_level(values, level, len(layout.sizes))
