"""What the seams of one-stage heads share: the feature maps' sizes, and handing out the levels."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from msbal.backend import LevelGroup
from msbal.engine import LevelLosses
from msbal_torchvision.seams.seam import Seam


class Part:
    """The seam in one head.

    Args:
        seam: takes the level losses.
        group: whose levels they are.
        order: sorts the framework's levels finest first.
    """

    terms: ClassVar[tuple[str, ...]]
    keys: ClassVar[tuple[str, ...]]

    def __init__(self, seam: Seam, group: LevelGroup, order: tuple[int, ...]) -> None:
        self.seam, self.group = seam, group
        self.order = None if order == tuple(sorted(order)) else list(order)

    def stand_ins(self, values: Tensor) -> dict[str, Tensor]:
        """What the framework's loss dictionary shows: each term's sum over the levels."""
        return dict(zip(self.keys, values.sum(dim=1).unbind(), strict=True))

    def put(self, values: Tensor, positives: Tensor, stand_ins: dict[str, Tensor]) -> None:
        """Hand level losses to the seam.

        Args:
            values: ``[T, K]`` in the framework's order of levels.
            positives: ``[K]``, likewise.
            stand_ins: see `Seam.put`.
        """
        if self.order is not None:
            values, positives = values[:, self.order], positives[self.order]
        self.seam.put(self.group.name, LevelLosses(values, positives), stand_ins)


class OneStagePart(Part):
    """A part whose head gets all feature maps and whose loss sees only their concatenation."""

    head: Any
    grids: list[tuple[int, int]]

    def watch_grids(self, head: nn.Module) -> None:
        """Note the feature maps' sizes at each forward pass of `head`."""
        self.seam.keep(head.register_forward_pre_hook(self._note_grids))

    def _note_grids(self, head: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.grids = [(feature.shape[-2], feature.shape[-1]) for feature in inputs[0]]

    def hand_out(self, values: Tensor, positives: Tensor) -> dict[str, Tensor]:
        """Hand level losses to the seam, and return the framework's dictionary."""
        stand_ins = self.stand_ins(values)
        self.put(values, positives, stand_ins)
        return stand_ins
