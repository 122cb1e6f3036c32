"""What torchvision's splitters share: the order of the levels, and the sizes of the feature maps.

Shapes: T terms, K levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from msbal.backend import LevelGroup
from msbal.backend.kit.splitter import LossSplitter, Split
from msbal.engine import LevelLosses
from msbal.errors import SpecError
from msbal_torchvision.splitters.own import FIX, require_own_loss

Grids = list[tuple[int, int]]


class LevelSplitter(LossSplitter):
    """A splitter whose method returns a dictionary of one scalar a term.

    Args:
        owner: see `LossSplitter`; of the class `framework`, whose method it keeps.
        group: whose levels they are.
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

    def losses(self, values: Tensor, positives: Tensor) -> LevelLosses:
        """``[T, K]`` and ``[K]`` in the framework's order of levels, sorted finest first."""
        if self.order != sorted(self.order):
            values, positives = values[:, self.order], positives[self.order]
        return LevelLosses(values, positives)

    def named(self, weighted: Tensor) -> dict[str, Tensor]:
        """Each term's sum over the levels, under torchvision's name."""
        return dict(zip(self.keys, weighted.sum(dim=1).unbind(), strict=True))

    def terms(self, result: Any) -> Sequence[Tensor | None]:
        """See `LossSplitter.terms`."""
        return [result[key] for key in self.keys]


class AnchorSplitter(LevelSplitter):
    """A splitter whose loss sees the anchors of all levels in one row, so that the levels' sizes have to be noted."""

    split_call: Callable[..., Split]
    """`split`, with the arguments of the method itself."""
    grids: Grids | None = None

    def split(self, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Split:
        """See `LossSplitter.split`."""
        self.check_parts()
        return self.split_call(*args, **kwargs)

    def has_state(self) -> Iterable[nn.Module]:
        """See `LossSplitter.has_state`: torchvision's losses remember nothing."""
        return []

    def watched(self) -> nn.Module:
        """The module that gets the feature maps of a pass, all of them."""
        module: nn.Module = self.owner
        return module

    def prepare(self) -> None:
        """See `LossSplitter.prepare`."""
        # A bound method and no closure, so that copies and pickles of the model note for their own splitter.
        self._noted = self.watched()
        self._hook = self._noted.register_forward_pre_hook(self._note, with_kwargs=True)

    def release(self) -> None:
        """See `LossSplitter.release`."""
        self._hook.remove()

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.grids = _grids([*args, *kwargs.values()]) or self.grids

    def sizes(self, total: int, per_cell: Sequence[int] | None = None) -> list[int]:
        """Anchors of each level, in the framework's order.

        torchvision's heads recover them in the same way for inference (``RetinaNet.forward``).

        Args:
            total: anchors of an image.
            per_cell: anchors of a cell of each level; by default as many on all.

        Raises:
            SpecError: where the feature maps that were seen have not so many anchors.
        """
        if self.watched() is not self._noted:
            kind = type(self._noted).__name__
            raise SpecError(
                f"model: {type(self.watched()).__name__}", "put there after balance()", f"the {kind} that was there",
                "call balance() when the model is complete",
            )  # fmt: skip
        cells = [height * width for height, width in self.grids or ()]
        if per_cell is None:
            per_cell = [total // max(1, sum(cells))] * len(cells)
        sizes = [n * each for n, each in zip(cells, per_cell, strict=False)]
        if sum(sizes) != total or len(sizes) != len(self.group.levels):
            raise SpecError(
                f"model: {self.name}",
                f"{total} anchors an image, where {type(self._noted).__name__} got feature maps of "
                f"{self.grids or 'no size'} with {list(per_cell)} anchors a cell",
                f"all anchors of the {len(self.group.levels)} levels",
                FIX,
            )
        return sizes


def _grids(values: Iterable[Any]) -> Grids:
    """Height and width of each map in the first of `values` that is a list or a dictionary of feature maps."""
    for value in values:
        maps = list(value.values()) if isinstance(value, Mapping) else value
        if (
            isinstance(maps, list | tuple)
            and maps
            and all(isinstance(x, Tensor) and x.dim() == 4 for x in maps)
        ):
            return [(x.shape[-2], x.shape[-1]) for x in maps]
    return []
