"""The losses of one batch, as torchvision has them and by level: what is proved and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from msbal.backend import LevelGroup, SplitLosses
from msbal.backend.kit import one_batch
from msbal.backend.kit.splitter import LossSplitter


class Measurable:
    """A model and the splitters that `find` found in it; it may be balanced or not."""

    def __init__(self, model: nn.Module, splitters: Sequence[LossSplitter]) -> None:
        self.model, self.splitters = model, tuple(splitters)
        self.groups: tuple[LevelGroup, ...] = tuple(splitter.group for splitter in splitters)

    def framework_losses(self, batch: Any) -> dict[str, Tensor]:
        """torchvision's own losses, as if nothing was balanced."""
        return one_batch.framework_losses(self.model, self.splitters, lambda: self.model(*batch))

    def split_losses(self, batch: Any) -> SplitLosses:
        """The same losses by level."""
        return one_batch.split_losses(self.model, self.splitters, lambda: self.model(*batch))

    def rest(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What in the model's dictionary is not balanced."""
        balanced = {key for splitter in self.splitters for key in splitter.keys}
        return {key: loss for key, loss in losses.items() if key not in balanced}
