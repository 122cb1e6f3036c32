"""A forward pass of a training step that counts for nothing: for proofs, and to look at the losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from msbal.backend import SplitLosses
from msbal.backend.kit.balanced import Balanced, balanced_of, put_balancers
from msbal_detectron2.splitters import DictSplitter


def framework_losses(model: nn.Module, splitters: Sequence[DictSplitter], batch: Any) -> dict[str, Tensor]:
    """detectron2's own loss dict."""
    with _balanced(model, splitters) as balanced, balanced.paused(), _training(balanced):
        losses: dict[str, Tensor] = model(batch)
    return losses


def split_losses(model: nn.Module, splitters: Sequence[DictSplitter], batch: Any) -> SplitLosses:
    """The same by level."""
    with _balanced(model, splitters) as balanced, balanced.collecting() as groups, _training(balanced):
        losses: dict[str, Tensor] = model(batch)
    split = {key for splitter in splitters for key in splitter.keys}
    return SplitLosses(dict(groups), {key: loss for key, loss in losses.items() if key not in split})


@contextmanager
def _balanced(model: nn.Module, splitters: Sequence[DictSplitter]) -> Iterator[Balanced]:
    """The handle of the model; where it is not balanced, one for this moment."""
    found = balanced_of(model)
    if found is not None:
        yield found
        return
    balanced = put_balancers(
        model, splitters, "equal", interval=100, per_term=False, seed=0, rescale=False
    )  # fmt: skip
    try:
        yield balanced
    finally:
        balanced.remove()


@contextmanager
def _training(balanced: Balanced) -> Iterator[None]:
    """In training mode; what the losses remember stays as it was."""
    states = [splitter.state() for splitter in balanced.splitters]
    training = balanced.model.training
    balanced.model.train()
    try:
        with EventStorage():  # detectron2's losses log into the one on top of a global stack
            yield
    finally:
        balanced.model.train(training)
        for splitter, state in zip(balanced.splitters, states, strict=True):
            splitter.load_state(state)
