"""The losses of one batch, as the framework has them and by level: what is proved and shown. Nothing counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from msbal.backend.kit.balanced import Balanced, balanced_of, group_names
from msbal.backend.kit.splitter import LossSplitter
from msbal.backend.proof import measuring
from msbal.backend.protocol import SplitLosses
from msbal.engine import BalancerSet, Equal

Losses = Callable[[], Mapping[str, Tensor]]
"""A training pass of the model: its losses as scalars, by the framework's names."""


def framework_losses(
    model: nn.Module, splitters: Sequence[LossSplitter], losses: Losses
) -> dict[str, Tensor]:
    """For `Detector.framework_losses`.

    Args:
        model: balanced by these splitters, or not at all.
    """
    with _measured(model, splitters) as balanced, balanced.paused():
        return dict(losses())


def split_losses(model: nn.Module, splitters: Sequence[LossSplitter], losses: Losses) -> SplitLosses:
    """For `Detector.split_losses`; see `framework_losses`."""
    keys = {key for splitter in splitters for key in splitter.keys}
    with _measured(model, splitters) as balanced, balanced.collecting() as groups:
        rest = {key: loss for key, loss in losses().items() if key not in keys}
    return SplitLosses(groups, rest)


@contextmanager
def _measured(model: nn.Module, splitters: Sequence[LossSplitter]) -> Iterator[Balanced]:
    """Training mode, in which what the losses and the model remember stays as it was; and the model's handle, or one
    for the while."""
    found = balanced_of(model)
    balanced = found
    if balanced is None:
        unit = BalancerSet(group_names([splitter.group for splitter in splitters]), Equal(), interval=2)
        balanced = Balanced(model, splitters, unit)
    states = [splitter.state() for splitter in balanced.splitters]
    try:
        with measuring(model):
            yield balanced
    finally:
        for splitter, state in zip(balanced.splitters, states, strict=True):
            splitter.load_state(state)
        if found is None:
            balanced.remove()
