"""The losses of a built model on one batch, as mmdet sums them and by level: what a proof compares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from msbal.backend import LevelGroup, SplitLosses
from msbal.backend.kit.balanced import Balanced, balanced_of, put_balancers
from msbal.backend.kit.untouched import untouched
from msbal.backend.proof import measuring
from msbal.engine import LevelLosses
from msbal_mmdet.find import find
from msbal_mmdet.splitters.base import HeadSplitter, loss_total
from msbal_mmdet.splitters.reduction import replace_method

Batch = dict[str, Any]
Predictions = dict[str, list[list[Tensor]]]


class ModelLosses:
    """What `msbal.backend.proof.prove` asks of a detector, for any built model of mmdet's.

    Attributes:
        groups: what is balanced.
        coupled: terms whose levels mmdet itself couples, by a normaliser with a gradient.
    """

    coupled: Collection[str] = ("carl",)

    def __init__(self, model: nn.Module, scope: Sequence[str] | None = None) -> None:
        self.model: Any = model
        self.scope = scope
        found = find(model, scope)
        self.groups: tuple[LevelGroup, ...] = found.groups
        self.notes = found.notes
        self._predictions: Predictions = {}

    def framework_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses as mmdet's own ``parse_losses`` would add them up."""
        balanced = balanced_of(self.model)
        if balanced is None:
            return self._losses(batch)
        with balanced.paused():
            return self._losses(batch)

    def split_losses(self, batch: Batch) -> SplitLosses:
        """The losses by level, times what the model multiplies them by after its heads (a cascade's stages)."""
        with self._balanced() as balanced, balanced.collecting() as groups, _watched(balanced) as predictions:
            losses = self._losses(batch)
        self._predictions = predictions
        return _split(losses, groups)

    def level_predictions(self) -> Mapping[str, Sequence[Sequence[Tensor]]]:
        """By group: lists of K predictions, finest level first, that the last split was computed from."""
        return self._predictions

    @contextmanager
    def _balanced(self) -> Iterator[Balanced]:
        """The model's own balancing, or one for the while."""
        balanced = balanced_of(self.model)
        if balanced is not None:
            yield balanced
            return
        splitters = find(self.model, self.scope).splitters
        balanced = put_balancers(
            self.model, splitters, "equal", interval=2, per_term=False, seed=0, rescale=False
        )
        try:
            yield balanced
        finally:
            balanced.remove()

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        splitters = find(self.model, self.scope).splitters
        # Some heads count what they have seen (DDOD).
        with untouched([splitter.owner for splitter in splitters]), measuring(self.model):
            # The preprocessor pads boxes and images in place.
            data = self.model.data_preprocessor(_copied(batch), True)
            losses: dict[str, Any] = self.model._run_forward(data, mode="loss")
        return {key: loss_total(value) for key, value in losses.items() if "loss" in key}


def _split(losses: Mapping[str, Tensor], groups: Mapping[str, LevelLosses]) -> SplitLosses:
    """What the heads gave by level, times what became of it, and what else was added."""
    values = {name: group.values for name, group in groups.items() if group.values.requires_grad}
    factors = {name: torch.zeros_like(group.values) for name, group in groups.items()}
    rest = {}
    for key, loss in losses.items():
        found: Sequence[Tensor | None] = [None] * len(values)
        if loss.requires_grad and values:
            found = torch.autograd.grad(loss, list(values.values()), retain_graph=True, allow_unused=True)
        share = torch.zeros((), dtype=torch.float64)
        for (name, value), factor in zip(values.items(), found, strict=True):
            if factor is not None:
                factors[name] = factors[name] + factor
                share = share + (value.detach() * factor).double().sum().cpu()
        if all(factor is None for factor in found):
            rest[key] = loss
        elif abs(float(loss.detach()) - float(share)) > 1e-5 * max(abs(float(share)), 1e-6):
            parts = [(v * f).sum() for v, f in zip(values.values(), found, strict=True) if f is not None]
            rest[key] = loss - torch.stack(parts).sum()
    return SplitLosses(
        {name: LevelLosses(group.values * factors[name], group.positives) for name, group in groups.items()},
        rest,
    )


@contextmanager
def _watched(balanced: Balanced) -> Iterator[Predictions]:
    """Keep the lists of predictions by level that each group's loss is computed from."""
    seen: Predictions = {}
    with ExitStack() as stack:
        for splitter in balanced.splitters:
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


def _copied(batch: Batch) -> Batch:
    return {
        "inputs": [image.clone() for image in batch["inputs"]],
        "data_samples": [sample.clone() for sample in batch["data_samples"]],
    }
