"""Several balancers of one model: the heads of a two-stage detector, or each term on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from msbal.engine.balancer import Balancer
from msbal.engine.losses import LevelLosses
from msbal.engine.report import IntervalReport
from msbal.engine.statistics import EPSILON
from msbal.engine.strategies.base import Strategy
from msbal.record import IntervalRecord, NonFinite


@dataclass(frozen=True)
class GroupNames:
    """The levels of one head, finest first, and the terms of their losses."""

    levels: tuple[str, ...]
    terms: tuple[str, ...]


class BalancerSet(nn.Module):
    """One balancer for each group of levels; with `per_term` one for each term of each group.

    Args:
        groups: by name, at least one.
        strategy: for all of them.
        per_term: balance every term on its own; the balancers are then named ``cls``, or ``rpn:cls``
            where there are several groups.
        interval, seed, epsilon: see `Balancer`.

    Raises:
        ValueError: see `Balancer`.
    """

    def __init__(
        self,
        groups: Mapping[str, GroupNames],
        strategy: Strategy | str = "rlo",
        *,
        per_term: bool = False,
        interval: int = 100,
        seed: int = 0,
        epsilon: float = EPSILON,
    ) -> None:
        super().__init__()
        if not groups:
            raise ValueError("groups should have at least one group of levels. Found none.")
        self.groups, self.per_term = dict(groups), per_term
        self.balancers: dict[str, Balancer] = {}
        for group, names in groups.items():
            for name, terms in self._split(group, names.terms):
                self.balancers[name] = Balancer(
                    names.levels, strategy, terms=terms, interval=interval, seed=seed, group=name,
                    epsilon=epsilon,
                )  # fmt: skip
                # Part of the checkpoint's keys, in which a dot would separate modules.
                self.add_module(f"balancer:{name}".replace(".", "/"), self.balancers[name])

    def _split(self, group: str, terms: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
        if not self.per_term:
            return [(group, tuple(terms))]
        prefix = f"{group}:" if len(self.groups) > 1 else ""
        return [(prefix + term, (term,)) for term in terms]

    def forward(self, losses: Mapping[str, LevelLosses]) -> Tensor:
        """The sum of all groups' weighted losses, a scalar.

        Raises:
            ValueError: where `losses` has not exactly the groups.
        """
        totals = list(self.totals(losses).values())
        total = totals[0]
        for other in totals[1:]:
            total = total + other
        return total

    def totals(self, losses: Mapping[str, LevelLosses]) -> dict[str, Tensor]:
        """The weighted loss of each balancer, scalars, by its name."""
        if set(losses) != set(self.groups):
            raise ValueError(f"losses should have the groups {sorted(self.groups)}. Found {sorted(losses)}.")
        totals: dict[str, Tensor] = {}
        for group, names in self.groups.items():
            loss = losses[group]
            for row, (name, _) in enumerate(self._split(group, names.terms)):
                part = LevelLosses(loss.values[row : row + 1], loss.positives) if self.per_term else loss
                totals[name] = self.balancers[name](part)
        return totals

    def reports(self, wait: bool = False) -> list[IntervalReport]:
        """See `Balancer.reports`; of all balancers, in their order."""
        return [report for balancer in self.balancers.values() for report in balancer.reports(wait)]

    def drain(self, wait: bool = False) -> list[IntervalRecord]:
        """See `Balancer.drain`."""
        return [report.record for report in self.reports(wait)]

    def synchronize(self) -> None:
        """See `Balancer.synchronize`."""
        for balancer in self.balancers.values():
            balancer.synchronize()

    def nonfinite(self) -> tuple[NonFinite, ...]:
        """See `Balancer.nonfinite`."""
        return tuple(found for balancer in self.balancers.values() for found in balancer.nonfinite())
