"""Balancing in a training loop of one's own: one call on a built model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from msbal.backend.kit.balanced import Balanced, put_balancers
from msbal.engine import Strategy
from msbal_mmdet.splitters.find import find


def balance(
    model: nn.Module,
    strategy: Strategy | str = "rlo",
    *,
    interval: int = 100,
    scope: Sequence[str] = ("rpn",),
    per_term: bool = False,
    seed: int = 0,
    rescale: bool = False,
    records: str | Path | None = None,
    **hyperparameters: Any,
) -> Balanced:
    """Balance the pyramid levels of a built mmdet model.

    From now on its heads return weighted losses in training mode, in mmdet's own form: ``train_step``,
    ``parse_losses`` and everything else stay as they are. Evaluation and inference are not touched.

    Args:
        model: mmdet's; call this before wrapping it in DistributedDataParallel.
        strategy: ``rlo``, ``avw``, ...: `msbal.engine.available` lists them.
        interval: calls between two decisions.
        scope: which heads of a two-stage detector: ``rpn``, ``roi`` or both. A one-stage detector has one head.
        per_term: balance each term (cls, bbox, ...) on its own.
        seed: of the strategy's random draws.
        rescale: let the weights sum to the number of levels.
        records: a folder for ``intervals.jsonl``.
        hyperparameters: of a strategy that is given by name.

    Raises:
        SpecError: where the model cannot be balanced (with the reason), or an argument is wrong.
    """
    found = find(model, None if tuple(scope) == ("rpn",) else scope)
    return put_balancers(
        model, found.splitters, strategy, interval=interval, per_term=per_term, seed=seed, rescale=rescale,
        records=records, notes=found.notes, hyperparameters=hyperparameters,
    )  # fmt: skip
