"""Balancing in a training loop of one's own: one call on a built model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from msbal.backend import LevelGroup
from msbal.engine import BalancerSet, IntervalRecord
from msbal_mmdet.attach import attach
from msbal_mmdet.settings import make_balancers, read_settings, scope_of


class Balanced:
    """A model whose levels are balanced from now on.

    Attributes:
        model: as given.
        balancers: one for each group of levels; put their parameters, if they have any (only learned
            strategies do), into your optimizer.
        groups: what is balanced.
        notes: heads that stay as they are, and why.
    """

    def __init__(self, model: nn.Module, strategy: str, settings: Mapping[str, Any]) -> None:
        spec = read_settings(strategy, settings, "balance()")
        self.model = model
        self._attachment = attach(model, scope_of(spec))
        try:
            self.balancers: BalancerSet = make_balancers(spec, self._attachment, 0)
        except Exception:
            self._attachment.close()
            raise
        self.balancers.to(next(model.parameters()).device)
        self._attachment.weigh = self.balancers

    @property
    def groups(self) -> tuple[LevelGroup, ...]:
        return self._attachment.groups

    @property
    def notes(self) -> tuple[str, ...]:
        return self._attachment.notes

    def weights(self) -> dict[str, Tensor]:
        """``[K]`` current weights of each group, finest level first."""
        return {name: balancer.weights for name, balancer in self.balancers.balancers.items()}

    def drain(self) -> list[IntervalRecord]:
        """The records of intervals that have ended since the last call."""
        return self.balancers.drain()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs; save it beside the model's."""
        return self.balancers.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self.balancers.load_state_dict(dict(state))

    def remove(self) -> None:
        """Leave the model as it was."""
        self._attachment.close()


def balance(model: nn.Module, strategy: str = "rlo", **settings: Any) -> Balanced:
    """Balance the pyramid levels of a built mmdet model.

    ``model.train_step(data, optim_wrapper)``, and ``model.parse_losses(losses)`` in a loop written out,
    weigh the levels from then on. Evaluation and inference are not touched.

    Args:
        model: mmdet's; call this before wrapping it in DistributedDataParallel.
        strategy: ``rlo``, ``avw``, ...: `msbal.engine.available` lists them.
        settings: ``interval``, ``scope``, ``seed``, ``per_term`` and the strategy's hyperparameters, as
            in a spec's ``balance:`` section.

    Raises:
        SpecError: where the model cannot be balanced (with the reason), or a setting is wrong.
    """
    return Balanced(model, strategy, settings)
