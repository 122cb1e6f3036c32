"""The losses of one batch, as torchvision has them and by level: what is proved and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn

from msbal.backend import LevelGroup, SplitLosses
from msbal.backend.kit.balanced import Balanced, balanced_of, group_names
from msbal.backend.kit.splitter import LossSplitter
from msbal.backend.proof import measuring
from msbal.engine import BalancerSet, Equal


class Measurable:
    """A model and the splitters that `find` found in it; it may be balanced or not."""

    def __init__(self, model: nn.Module, splitters: Sequence[LossSplitter]) -> None:
        self.model, self.splitters = model, tuple(splitters)
        self.groups: tuple[LevelGroup, ...] = tuple(splitter.group for splitter in splitters)

    def framework_losses(self, batch: Any) -> dict[str, Tensor]:
        """torchvision's own losses, as if nothing was balanced."""
        balanced = balanced_of(self.model)
        with measuring(self.model), nullcontext() if balanced is None else balanced.paused():
            losses: dict[str, Tensor] = self.model(*batch)
            return losses

    def split_losses(self, batch: Any) -> SplitLosses:
        """The same losses by level."""
        balanced = own = balanced_of(self.model)
        if balanced is None:
            unit = BalancerSet(group_names(self.groups), Equal(), interval=2)
            balanced = Balanced(self.model, self.splitters, unit)
        try:
            with measuring(self.model), balanced.collecting() as groups:
                return SplitLosses(groups, self.rest(self.model(*batch)))
        finally:
            if own is None:
                balanced.remove()

    def rest(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What in the model's dictionary is not balanced."""
        balanced = {key for splitter in self.splitters for key in splitter.keys}
        return {key: loss for key, loss in losses.items() if key not in balanced}
