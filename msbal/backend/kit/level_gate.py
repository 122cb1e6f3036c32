"""`LevelGate`: balancing for any code base, between a detector's predictions and its own loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msbal.backend.kit.script_records import ScriptRecords
from msbal.engine import BalancerSet, GroupNames, IntervalRecord, LevelLosses, Losses, Strategy, gather, make
from msbal.engine.gate import GatedPass
from msbal.engine.processes import rank

_GROUP = "all"


class LevelGate(nn.Module):
    """Balances the levels of a loss that stays as it is: it scales the gradient that reaches each level's predictions.

    Put it between the predictions and your own loss, and give it the losses by level, which it only reads::

        gate = LevelGate(["P3", "P4", "P5"], "rlo", terms=["cls", "box"], interval=100)

        scores, boxes = gate(scores, sizes), gate(boxes, sizes)  # [B, A, ...], level-major: unchanged
        loss = criterion(scores, boxes, targets)
        loss = gate.loss(loss, by_level)  # [T, K]
        loss.backward()

    The loss must be a sum over levels in which level i's part depends on its own predictions, and on others' only
    detached (as in an assigner, or in a normaliser).

    Args:
        levels: names, finest first.
        strategy, interval, per_term, seed, rescale, records, hyperparameters: as of every backend's `balance`.
        terms: names of the kinds of loss, the rows of the losses by level.
    """

    def __init__(
        self,
        levels: Sequence[str],
        strategy: Strategy | str = "rlo",
        *,
        terms: Sequence[str] = ("loss",),
        interval: int = 100,
        per_term: bool = False,
        seed: int = 0,
        rescale: bool = False,
        records: str | Path | None = None,
        **hyperparameters: Any,
    ) -> None:
        super().__init__()
        if isinstance(strategy, str):
            strategy = make(strategy, **hyperparameters)
        names = GroupNames(tuple(levels), tuple(terms))
        self.balancers = BalancerSet(
            {_GROUP: names}, strategy, per_term=per_term, interval=interval, seed=seed, rescale=rescale
        )
        self.names = names
        self.records = (
            None if records is None else ScriptRecords(self.balancers, records if rank() == 0 else None)
        )
        self._pass = GatedPass()

    def forward(
        self, predictions: Any, sizes: Sequence[int] | None = None, *, dim: int = 1, term: str = ""
    ) -> Any:
        """Return the predictions unchanged, with a gate for their gradient.

        Args:
            predictions: all levels' in one tensor, one level after another along `dim`; or a list of K maps.
            sizes: K, how many predictions of an image each level has; not for a list of maps.
            term: whose predictions they are; needed with `per_term` only.
        """
        raise NotImplementedError

    def loss(
        self, own: Tensor | Mapping[str, Tensor], by_level: Losses, positives: Tensor | None = None
    ) -> Tensor:
        """Weigh this pass: call it once, between the loss and its backward pass.

        Args:
            own: the loss as your code computes it: scalar.
            by_level: ``[T, K]``, or another form that `Balancer` takes; its gradient is not used.
        """
        raise NotImplementedError

    def drain(self) -> list[IntervalRecord]:
        """Return the records of the intervals that have ended since the last call."""
        return self.balancers.drain()
