"""Which level each row of a flattened batch belongs to.

Shapes: N images, K levels, S_l positions of level l in one image (anchors included), M = N * sum(S_l)
rows, P <= M selected rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowLayout:
    """The order of the rows that a head flattened its predictions into.

    Args:
        images: N.
        sizes: S_l of each level, in the head's own order.
        level_major: True where all images of the first level come first (FCOS), False where all levels
            of the first image do (YOLOX).
    """

    images: int
    sizes: tuple[int, ...]
    level_major: bool

    @property
    def rows(self) -> int:
        return self.images * sum(self.sizes)

    def sum_all(self, values: Tensor) -> Tensor:
        """``[M, ...]`` values of all rows, or ``[M * c]`` flattened likewise -> ``[K]``."""
        if values.dim() > 1 and values.shape[0] != self.rows:
            values = values.flatten()
        width = values.numel() // self.rows
        if self.level_major:
            parts = torch.split(values.reshape(-1), [self.images * size * width for size in self.sizes])
        else:
            by_image = values.reshape(self.images, -1)
            parts = torch.split(by_image, [size * width for size in self.sizes], dim=1)
        return torch.stack([part.sum() for part in parts])

    def count(self, selected: Tensor) -> Tensor:
        """``[M]`` bool -> ``[K]`` how many of each level's rows are selected."""
        return self._segment_counts(selected).sum(dim=1 if self.level_major else 0)

    def sum_selected(self, values: Tensor, selected: Tensor) -> Tensor:
        """``[P, ...]`` values of the selected rows, in row order -> ``[K]``.

        The level of a row comes from the counts, which stay on the device: asking for the indices of
        the selected rows would wait for it.

        Args:
            values: of the P rows where `selected` is True.
            selected: ``[M]`` bool.
        """
        ends = self._segment_counts(selected).flatten().cumsum(0)
        row = torch.arange(values.shape[0], device=values.device)
        segment = torch.bucketize(row, ends, right=True)
        level = segment // self.images if self.level_major else segment % len(self.sizes)
        return sum_by_level(values, level, len(self.sizes))

    def _segment_counts(self, selected: Tensor) -> Tensor:
        """Per run of rows of one level and image, in row order: ``[K, N]``, or ``[N, K]`` image-major."""
        if self.level_major:
            parts = torch.split(selected, [self.images * size for size in self.sizes])
            return torch.stack([part.view(self.images, -1).sum(dim=1) for part in parts])
        parts = torch.split(selected.view(self.images, -1), list(self.sizes), dim=1)
        return torch.stack([part.sum(dim=1) for part in parts], dim=1)


def sum_by_level(values: Tensor, level: Tensor, num_levels: int) -> Tensor:
    """``[P, ...]`` values, ``[P]`` their levels -> ``[K]``.

    `where` and a sum rather than `index_add`: on CUDA the latter adds in any order, and a product with a
    one-hot matrix would spread one level's NaN over all.
    """
    per_row = values.flatten(1).sum(dim=1) if values.dim() > 1 else values
    levels = torch.arange(num_levels, device=level.device).unsqueeze(1)
    return torch.where(level.unsqueeze(0) == levels, per_row.unsqueeze(0), per_row.new_zeros(())).sum(dim=1)


def on_first_level(scalar: Tensor, num_levels: int) -> Tensor:
    """A loss that is zero whatever the predictions (a head without positives) -> ``[K]``.

    It keeps its place in the graph, so that the same parameters get a gradient (of zero) as in the
    framework: DistributedDataParallel counts them.
    """
    return torch.cat([scalar.reshape(1), scalar.new_zeros(num_levels - 1)])


def split_sizes(maps: Sequence[Tensor], per_position: int) -> tuple[int, ...]:
    """Rows of each level in one image, from its ``[N, C, H, W]`` predictions."""
    return tuple(m.shape[-2] * m.shape[-1] * per_position for m in maps)
