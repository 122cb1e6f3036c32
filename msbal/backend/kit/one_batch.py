"""The losses of one batch, as the framework has them and by level: what is proved and shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

from torch import Tensor, nn

from msbal.backend.kit.balanced import Balanced, balanced_of, group_names
from msbal.backend.kit.splitter import LossSplitter
from msbal.backend.proof import measuring
from msbal.backend.protocol import SplitLosses
from msbal.engine import BalancerSet, Equal


def framework_losses(model: nn.Module, losses: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """For `Detector.framework_losses`.

    Args:
        model: balanced or not.
        losses: a training pass of it: its losses as scalars, by the framework's names.
    """
    balanced = balanced_of(model)
    with measuring(model), nullcontext() if balanced is None else balanced.paused():
        return dict(losses())


def split_losses(
    model: nn.Module, splitters: Sequence[LossSplitter], losses: Callable[[], Mapping[str, Tensor]]
) -> SplitLosses:
    """For `Detector.split_losses`: nothing is weighed or counted.

    Args:
        model: balanced by these splitters or not at all.
        losses: as for `framework_losses`.
    """
    balanced = found = balanced_of(model)
    if balanced is None:
        unit = BalancerSet(group_names([splitter.group for splitter in splitters]), Equal(), interval=2)
        balanced = Balanced(model, splitters, unit)
    keys = {key for splitter in splitters for key in splitter.keys}
    try:
        with measuring(model), balanced.collecting() as groups:
            rest = {key: loss for key, loss in losses().items() if key not in keys}
        return SplitLosses(groups, rest)
    finally:
        if found is None:
            balanced.remove()
