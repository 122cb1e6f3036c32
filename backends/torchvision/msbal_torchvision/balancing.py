"""One call that balances a torchvision model in anyone's own training script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from msbal.backend.kit.balanced import Balanced, put_balancers, require_unbalanced
from msbal.engine import Strategy
from msbal_torchvision.splitters import find


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
    """Balance the pyramid levels of a torchvision detector while it trains.

    Afterwards ``model(images, targets)`` in training mode returns the losses that it returned before, under the same
    names, each level in them times its weight. The usual ``sum(loss for loss in loss_dict.values())`` needs no
    change. In evaluation mode, and under ``torch.no_grad()``, the model behaves as before.

    The state is no part of ``model.state_dict()``, which loads into an unbalanced model; save that of the handle
    beside it. Call this when the model is complete, and before it is wrapped in ``DistributedDataParallel``.

    Args:
        model: a RetinaNet, FCOS, SSD, or a Faster, Mask or Keypoint R-CNN, or of a subclass that keeps
            torchvision's loss.
        strategy: a name, such as ``rlo`` or ``avw``, or a strategy with its own hyperparameters.
        interval: alpha, training iterations between two decisions.
        scope: of a two-stage model, which heads: ``rpn``, ``roi`` or both.
        per_term: balance each term (classification, boxes) on its own.
        seed: of the strategy's random draws.
        rescale: multiply the strategy's weights so that they sum to the number of levels.
        records: a folder for ``intervals.jsonl``.
        hyperparameters: of a strategy given by name, as in a spec's ``balance:``.

    Raises:
        SpecError: where the model's loss cannot be split into two levels or more, or an argument does not fit.
    """
    require_unbalanced(model)
    return put_balancers(
        model, find(model, scope), strategy, interval=interval, per_term=per_term, seed=seed, rescale=rescale,
        records=records, hyperparameters=hyperparameters,
    )  # fmt: skip
