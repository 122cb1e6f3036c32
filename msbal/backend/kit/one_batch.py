"""The losses of one batch, as the framework has them and by level, for proofs and for people. Nothing is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from msbal.backend.kit.balanced import Balanced, balanced_of, group_names
from msbal.backend.kit.splitter import LossSplitter
from msbal.backend.protocol import LevelGroup, SplitLosses
from msbal.engine import BalancerSet, Equal, LevelLosses, Strategy

Losses = Callable[[], Mapping[str, Tensor]]
"""A training pass of the model: its losses as scalars, by the framework's names."""
MIN_REST = 1e-5
"""Relative to a loss: less than this is float32's rounding of sums."""


class SplitModel:
    """A model and its loss splitters: the part of a `Detector` that deals with one batch. It may be balanced or not."""

    def __init__(self, model: nn.Module, splitters: Sequence[LossSplitter]) -> None:
        self.model, self.splitters = model, tuple(splitters)
        self.groups: tuple[LevelGroup, ...] = tuple(splitter.group for splitter in splitters)

    def training_losses(self, batch: Any) -> Mapping[str, Tensor]:
        """Return the losses of a training pass as scalars, by the framework's names."""
        losses: Mapping[str, Tensor] = self.model(*batch)
        return losses

    def framework_losses(self, batch: Any) -> dict[str, Tensor]:
        """Return the framework's own losses."""
        return framework_losses(self.model, self.splitters, lambda: self.training_losses(batch))

    def split_losses(self, batch: Any) -> SplitLosses:
        """Return the same losses by level."""
        return split_losses(self.model, self.splitters, lambda: self.training_losses(batch))

    def balanced_losses(self, batch: Any, strategy: Strategy) -> dict[str, Tensor]:
        """Return the losses of a training pass that a strategy balances."""
        return balanced_losses(self.model, self.splitters, lambda: self.training_losses(batch), strategy)


def framework_losses(
    model: nn.Module, splitters: Sequence[LossSplitter], losses: Losses
) -> dict[str, Tensor]:
    """Compute `Detector.framework_losses`.

    Args:
        model: balanced by these splitters, or not at all.
    """
    with own_passes(model, splitters):
        return dict(losses())


@contextmanager
def own_passes(model: nn.Module, splitters: Sequence[LossSplitter]) -> Iterator[None]:
    """Let training passes of the model be the framework's own for a while, and leave no trace in the model.

    Args:
        model: balanced by these splitters, or not at all.
    """
    with _measured(model, splitters) as balanced, balanced.paused():
        yield


def split_losses(model: nn.Module, splitters: Sequence[LossSplitter], losses: Losses) -> SplitLosses:
    """Compute `Detector.split_losses`; for the arguments see `framework_losses`.

    A level's loss is what the head returns, times what the model multiplies it by afterwards (a cascade's stages, a
    user's subclass).
    """
    with _measured(model, splitters) as balanced, balanced.collecting() as groups:
        found = losses()
    calls = [losses for of_group in groups.values() for losses in of_group]
    attached = [losses.values for losses in calls if losses.values.requires_grad]
    factors = {id(values): torch.zeros_like(values) for values in attached}
    rest = {}
    for key, loss in found.items():
        shares: Sequence[Tensor | None] = [None] * len(attached)
        if loss.requires_grad and attached:
            shares = torch.autograd.grad(loss, attached, retain_graph=True, allow_unused=True)
        balanced_parts = []
        for values, factor in zip(attached, shares, strict=True):
            if factor is not None:
                factors[id(values)] += factor
                balanced_parts.append((values * factor).sum())
        if not balanced_parts:
            rest[key] = loss
            continue
        other = loss - torch.stack(balanced_parts).sum().to(loss)
        if abs(float(other.detach())) > MIN_REST * max(abs(float(loss.detach())), MIN_REST):
            rest[key] = other  # something else was added under the same name
    parts = {splitter.group.name: splitter.parts(model) for splitter in balanced.splitters}
    return SplitLosses({name: _summed(of_group, factors) for name, of_group in groups.items()}, rest, parts)


def _summed(calls: Sequence[LevelLosses], factors: Mapping[int, Tensor]) -> LevelLosses:
    """Return one group's losses, summed over the calls of its method in a pass: one, or two of a student's."""
    values = [losses.values * factors.get(id(losses.values), 0.0) for losses in calls]
    positives = [losses.positives for losses in calls if losses.positives is not None]
    known = sum(positives[1:], positives[0]) if len(positives) == len(calls) else None
    return LevelLosses(sum(values[1:], values[0]), known)


def balanced_losses(
    model: nn.Module, splitters: Sequence[LossSplitter], losses: Losses, strategy: Strategy
) -> dict[str, Tensor]:
    """Compute `msbal.backend.proof.BalancesLosses.balanced_losses`; for the arguments see `framework_losses`."""
    with _measured(model, splitters) as balanced:
        groups = group_names([splitter.group for splitter in balanced.splitters])
        with balanced.weighing(BalancerSet(groups, strategy, interval=2)):
            return dict(losses())


@contextmanager
def _measured(model: nn.Module, splitters: Sequence[LossSplitter]) -> Iterator[Balanced]:
    """Put the model into training mode; yield its handle, or a temporary one. Neither losses nor model change state."""
    found = balanced_of(model)
    balanced = found
    if balanced is None:
        unit = BalancerSet(group_names([splitter.group for splitter in splitters]), Equal(), interval=2)
        balanced = Balanced(model, splitters, unit)
    states = [splitter.state() for splitter in balanced.splitters]
    try:
        with _buffers_kept(model):
            yield balanced
    finally:
        for splitter, state in zip(balanced.splitters, states, strict=True):
            splitter.load_state(state)
        if found is None:
            balanced.remove()


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put the model into training mode, and restore mode and buffers (running statistics) afterwards."""
    was_training = model.training
    model.train()
    kept = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    # Clones take the buffers' place for the while: a pending backward may need the ones that the pass has changed.
    for module, name, buffer in kept:
        module._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for module, name, buffer in kept:
            module._buffers[name] = buffer
        model.train(was_training)
