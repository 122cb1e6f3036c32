"""The losses of a built model on one batch, as mmdet sums them and by level, for proofs and `inspect`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from mmengine.logging import MessageHub
from torch import Tensor, nn

from msbal.backend import LevelGroup, SplitLosses
from msbal.backend.kit import one_batch
from msbal.backend.kit.balanced import balanced_of
from msbal.backend.kit.splitter import LossSplitter
from msbal.engine import Strategy
from msbal_mmdet.splitters.base import HeadSplitter, loss_total
from msbal_mmdet.splitters.find import find
from msbal_mmdet.splitters.reduction import replace_method

Batch = dict[str, Any]
Predictions = dict[str, list[list[Tensor]]]


class ModelLosses:
    """A built mmdet model, with what `msbal.backend.proof.prove` asks of a detector.

    Attributes:
        groups: what is balanced.
        notes: see `Found`.
        coupled: terms whose levels mmdet itself couples, by a normaliser with a gradient.
        counters: ``iter`` and ``epoch`` of a training loop, which some heads and preprocessors ask for: TOOD assigns in
            another way in its first epochs.
    """

    coupled: Collection[str] = ("carl",)

    def __init__(self, model: nn.Module, scope: Sequence[str] | None = None) -> None:
        self.model: Any = model
        self.scope = scope
        found = find(model, scope)
        self.groups: tuple[LevelGroup, ...] = found.groups
        self.notes = found.notes
        self.counters = {"iter": 0, "epoch": 0}
        self._predictions: Predictions = {}

    def framework_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses as mmdet's own ``parse_losses`` would add them up."""
        return one_batch.framework_losses(self.model, self._splitters(), lambda: self._losses(batch))

    def split_losses(self, batch: Batch) -> SplitLosses:
        """Return the same losses by level."""
        splitters = self._splitters()
        with _watched(splitters) as self._predictions:
            return one_batch.split_losses(self.model, splitters, lambda: self._losses(batch))

    def balanced_losses(self, batch: Batch, strategy: Strategy) -> dict[str, Tensor]:
        """Return the losses of a training pass that a strategy balances."""
        return one_batch.balanced_losses(self.model, self._splitters(), lambda: self._losses(batch), strategy)

    def level_predictions(self) -> Mapping[str, Sequence[Sequence[Tensor]]]:
        """Return, by group, the lists of K predictions, finest level first, that the last split was computed from."""
        return self._predictions

    def _splitters(self) -> Sequence[LossSplitter]:
        balanced = balanced_of(self.model)
        return find(self.model, self.scope).splitters if balanced is None else balanced.splitters

    def _losses(self, batch: Batch, augment: bool = True) -> dict[str, Tensor]:
        # The preprocessor pads boxes and images in place, and where it is training may resize the batch at random.
        with _counting(self.counters):
            data = self.model.data_preprocessor(copy.deepcopy(batch), augment)
            losses: dict[str, Any] = self.model._run_forward(data, mode="loss")
        return {key: loss_total(value) for key, value in losses.items() if "loss" in key}


@contextmanager
def _counting(counters: Mapping[str, int]) -> Iterator[None]:
    """Give mmengine the counters that a training loop keeps there, for a while, where none does."""
    hub = MessageHub.get_current_instance()
    absent = [name for name in counters if hub.get_info(name) is None]
    for name in absent:
        hub.update_info(name, counters[name])
    try:
        yield
    finally:
        for name in absent:
            hub.pop_info(name)


@contextmanager
def _watched(splitters: Sequence[LossSplitter]) -> Iterator[Predictions]:
    """Keep the lists of predictions by level that each group's loss is computed from."""
    seen: Predictions = {}
    with ExitStack() as stack:
        for splitter in splitters:
            assert isinstance(splitter, HeadSplitter)
            watching = _watching(splitter, splitter.split, seen)
            stack.enter_context(replace_method(splitter, "split", watching))
        yield seen


def _watching(splitter: HeadSplitter, split: Callable[..., Any], seen: Predictions) -> Callable[..., Any]:
    def watched(own: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = [
            [value[i] for i in splitter.order]
            for value in (*args, *kwargs.values())
            if isinstance(value, list | tuple)
            and len(value) == splitter.num_levels
            and all(isinstance(level, Tensor) and level.requires_grad for level in value)
        ]
        seen[splitter.group.name] = found
        return split(own, args, kwargs)

    return watched
