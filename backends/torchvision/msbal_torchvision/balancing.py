"""One call that balances a torchvision model in anyone's own training script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msbal.backend import SplitLosses
from msbal.engine import Balancer, BalancerSet, GroupNames, IntervalRecord, Strategy
from msbal_torchvision.seams import Seam, install

PREFIX = "loss_balanced"


class Balance:
    """What `balance` did to a model, and the way to its state.

    Attributes:
        seam: splits the losses; ``seam.groups`` names the levels.
        losses: the level losses of the last training forward pass, unweighted and detached, for logs.
    """

    def __init__(self, model: nn.Module, seam: Seam, balancers: BalancerSet) -> None:
        self.seam, self._balancers = seam, balancers
        self.losses: dict[str, Tensor] = {}
        self._hook = model.register_forward_hook(self._weigh)

    @property
    def balancers(self) -> dict[str, Balancer]:
        """One for each group of levels (with `per_term` for each term of it), by name."""
        return self._balancers.balancers

    def _weigh(self, model: nn.Module, inputs: Any, output: Any) -> Any:
        # Without gradients it is a validation loss: it stays as it is, and no interval counts it.
        if not model.training or not isinstance(output, dict):
            return output
        split: SplitLosses = self.seam.split(output)
        if not torch.is_grad_enabled():
            return output
        self.losses = {name: losses.values.detach() for name, losses in split.groups.items()}
        totals = self._balancers.totals(split.groups)
        only = len(totals) == 1
        return {
            **{PREFIX if only else f"{PREFIX}_{name}": total for name, total in totals.items()},
            **split.rest,
        }

    def drain(self) -> list[IntervalRecord]:
        """The records of the intervals that ended since the last call."""
        return self._balancers.drain()

    def state_dict(self) -> dict[str, Any]:
        """The balancers' whole state, to save in a checkpoint beside the model's and the optimizer's."""
        return self._balancers.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`: the same intervals, draws and weights as if never stopped."""
        self._balancers.load_state_dict(state)

    def remove(self) -> None:
        """Give the model back as it was."""
        self._hook.remove()
        self.seam.remove()


def balance(
    model: nn.Module,
    strategy: Strategy | str = "rlo",
    *,
    interval: int = 100,
    scope: Sequence[str] = ("rpn",),
    per_term: bool = False,
    seed: int = 0,
    rescale: bool = False,
) -> Balance:
    """Balance the pyramid levels of a torchvision detector while it trains.

    Afterwards ``model(images, targets)`` in training mode returns a dictionary whose sum is the balanced
    loss: ``loss_balanced`` (one for each head, ``loss_balanced_rpn``, where several are balanced), and the
    losses of heads that are not, under torchvision's names. The usual
    ``sum(loss for loss in loss_dict.values())`` needs no change. In evaluation mode, and under
    ``torch.no_grad()``, the model behaves as before.

    The state is no part of ``model.state_dict()``, which loads into an unbalanced model; save
    ``balance(...).state_dict()`` beside it. Call it before the model is wrapped in
    ``DistributedDataParallel`` and after it has moved to its device.

    Args:
        model: a RetinaNet, FCOS, SSD, or a Faster, Mask or Keypoint R-CNN.
        strategy: a name, such as ``rlo`` or ``avw``, or a strategy with its own hyperparameters.
        interval: alpha, training iterations between two decisions.
        scope: of a two-stage model, which heads: ``rpn``, ``roi`` or both.
        per_term: balance each term (classification, boxes) on its own.
        seed: of the strategy's random draws.
        rescale: multiply the strategy's weights so that they sum to the number of levels.

    Raises:
        UnsplittableModelError: where the model's loss cannot be split into two levels or more.
        ValueError: where an argument does not fit.
    """
    seam = install(model, scope)
    try:
        groups = {group.name: GroupNames(group.levels, group.terms) for group in seam.groups}
        balancers = BalancerSet(
            groups, strategy, per_term=per_term, interval=interval, seed=seed, rescale=rescale
        )
    except ValueError:
        seam.remove()
        raise
    return Balance(model, seam, balancers)
