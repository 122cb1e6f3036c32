"""The losses of one batch, as the framework has them and by level: what is proved and shown. Nothing counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from msbal.backend.kit.balanced import Balanced, balanced_of, group_names
from msbal.backend.kit.splitter import LossSplitter
from msbal.backend.protocol import SplitLosses
from msbal.engine import BalancerSet, Equal, LevelLosses

Losses = Callable[[], Mapping[str, Tensor]]
"""A training pass of the model: its losses as scalars, by the framework's names."""
MIN_REST = 1e-5
"""Of a loss, relative: less is what float32 sums differ by."""


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
    """For `Detector.split_losses`; see `framework_losses`.

    A level's loss is what the head gives times what the model multiplies it by afterwards: a cascade's stages, a
    subclass of the user's own.
    """
    with _measured(model, splitters) as balanced, balanced.collecting() as groups:
        found = losses()
    values = {name: group.values for name, group in groups.items() if group.values.requires_grad}
    factors = {name: torch.zeros_like(group.values) for name, group in groups.items()}
    rest = {}
    for key, loss in found.items():
        shares: Sequence[Tensor | None] = [None] * len(values)
        if loss.requires_grad and values:
            shares = torch.autograd.grad(loss, list(values.values()), retain_graph=True, allow_unused=True)
        parts = []
        for (name, value), factor in zip(values.items(), shares, strict=True):
            if factor is not None:
                factors[name] = factors[name] + factor
                parts.append((value * factor).sum())
        if not parts:
            rest[key] = loss
            continue
        other = loss - torch.stack(parts).sum().to(loss)
        if abs(float(other.detach())) > MIN_REST * max(abs(float(loss.detach())), MIN_REST):
            rest[key] = other  # something else was added under the same name
    return SplitLosses(
        {name: LevelLosses(group.values * factors[name], group.positives) for name, group in groups.items()},
        rest,
    )


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


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """Training mode, whose buffers are put back (running statistics, above all): a measurement is no training."""
    was_training = model.training
    model.train()
    kept = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    # Other tensors for the while, not other values afterwards: a backward may still need them.
    for module, name, buffer in kept:
        module._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for module, name, buffer in kept:
            module._buffers[name] = buffer
        model.train(was_training)
