"""What torchvision's splitters share: the order of the levels, and the sizes of the feature maps.

Shapes: T terms, K levels, B images, R anchors of an image over all levels, level-major.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from msbal.backend import LevelGroup
from msbal.backend.kit.level_sums import sum_levels
from msbal.backend.kit.parts import parts_by_name
from msbal.backend.kit.splitter import USE_BALANCER, LossSplitter, Split, require_own_loss
from msbal.engine import LevelLosses
from msbal.engine.gradients import Parts
from msbal.errors import SpecError

Grids = list[tuple[int, int]]
Targets = list[dict[str, Tensor]]
Outputs = dict[str, Tensor]
"""What torchvision's loss methods take: an image's ``boxes`` and ``labels``; a head's outputs by name."""


class LevelSplitter(LossSplitter):
    """A splitter of one of torchvision's heads.

    Args:
        owner: see `LossSplitter`; it is a `framework` and keeps that class's method.
        order: sorts the framework's levels finest first.

    Raises:
        SpecError: where the loss is the user's own.
    """

    framework: ClassVar[type[nn.Module]]
    term_names: ClassVar[tuple[str, ...]]
    term_keys: ClassVar[tuple[str, ...]]
    owner: Any

    def __init__(self, owner: nn.Module, group: LevelGroup, order: Sequence[int]) -> None:
        super().__init__(owner, group, self.term_keys)
        self.order = list(order)
        require_own_loss(owner, self.framework, self.method)
        self.check_parts()

    def check_parts(self) -> None:
        """Refuse parts of the head that compute the loss in a way of their own.

        Called at each pass too, as users replace parts after balance().
        """

    def parts(self, model: nn.Module) -> Parts:
        return parts_by_name(model, {"backbone": ["backbone"], "neck": ["backbone.fpn"]})

    def losses(self, values: Tensor, positives: Tensor) -> LevelLosses:
        """Sort ``[T, K]`` and ``[K]`` from the framework's order of levels to finest first."""
        if self.order != sorted(self.order):
            values, positives = values[:, self.order], positives[self.order]
        return LevelLosses(values, positives)


class Rows(NamedTuple):
    """The losses of one call, by anchor.

    Attributes:
        values: ``[T, B, R]``, before they are divided by `divisor`.
        positive: ``[B, R]`` mask.
        divisor: of the sums, after which they add up to the framework's loss.
    """

    values: Tensor
    positive: Tensor
    divisor: int = 1


class AnchorSplitter(LevelSplitter):
    """A splitter whose loss sees the anchors of all levels in one row, so that it has to note the levels' sizes."""

    method = "compute_loss"
    grids: Grids | None = None
    rows: Callable[..., Rows]
    """Computes what the method computes, from the same arguments, but for its sums."""

    def split(self, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Split:
        self.check_parts()
        rows = self.rows(*args, **kwargs)
        sizes = self.sizes(rows.values.shape[2])
        positives = sum_levels(rows.positive.to(torch.float32), sizes)
        values = sum_levels(rows.values, sizes)
        if rows.divisor != 1:
            values = values / rows.divisor
        return Split(self.losses(values, positives), self.named)

    def has_state(self) -> Iterable[nn.Module]:
        """torchvision's losses remember nothing."""
        return []

    def watched(self) -> nn.Module:
        """Return the module that receives all feature maps of a pass."""
        module: nn.Module = self.owner
        return module

    def anchors_per_cell(self) -> Sequence[int] | None:
        """Return each level's number of anchors in a cell; None where all levels have as many."""
        return None

    def prepare(self) -> None:
        # A bound method and no closure, so that copies and pickles of the model note for their own splitter.
        self._noted = self.watched()
        self._hook = self._noted.register_forward_pre_hook(self._note, with_kwargs=True)

    def release(self) -> None:
        self._hook.remove()

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.grids = _grids([*args, *kwargs.values()]) or self.grids

    def sizes(self, total: int) -> list[int]:
        """Return the number of anchors of each level, in the framework's order.

        torchvision's heads recover them in the same way for inference (``RetinaNet.forward``).

        Args:
            total: anchors of an image.

        Raises:
            SpecError: where the feature maps that were seen have another number of anchors.
        """
        if self.watched() is not self._noted:
            kind = type(self._noted).__name__
            raise SpecError(
                f"model: {type(self.watched()).__name__}", "put there after balance()", f"the {kind} that was there",
                "call balance() when the model is complete",
            )  # fmt: skip
        cells = [height * width for height, width in self.grids or ()]
        per_cell = self.anchors_per_cell() or [total // max(1, sum(cells))] * len(cells)
        sizes = [n * each for n, each in zip(cells, per_cell, strict=False)]
        if sum(sizes) != total or len(sizes) != len(self.group.levels):
            raise SpecError(
                f"model: {self.name}",
                f"{total} anchors an image, where {type(self._noted).__name__} got feature maps of "
                f"{self.grids or 'no size'} with {list(per_cell)} anchors a cell",
                f"all anchors of the {len(self.group.levels)} levels",
                USE_BALANCER,
            )
        return sizes


def _grids(values: Iterable[Any]) -> Grids:
    """Return height and width of each map in the first of `values` that is a list or dictionary of feature maps."""
    for value in values:
        maps = list(value.values()) if isinstance(value, Mapping) else value
        if not isinstance(maps, list | tuple) or not maps:
            continue
        if all(isinstance(x, Tensor) and x.dim() == 4 for x in maps):
            return [(x.shape[-2], x.shape[-1]) for x in maps]
    return []
