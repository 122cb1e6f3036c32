"""Several balancers of one model: the heads of a two-stage detector, or each term on its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from msbal.engine.balancer import Balancer
from msbal.engine.gradients import LevelGradients, Parts
from msbal.engine.interval import IntervalReport
from msbal.engine.losses import LevelLosses
from msbal.engine.record import IntervalRecord, NonFinite
from msbal.engine.strategies.base import Strategy


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
        per_term: balance every term on its own: balancers ``cls``, or ``rpn:cls`` where there are several groups.
        parameters: to measure the gradients of levels on, for all of them.
        options: `interval`, `seed`, `epsilon`, `rescale` and `measure`, as of every `Balancer`.

    Raises:
        ValueError: see `Balancer`.
    """

    def __init__(
        self,
        groups: Mapping[str, GroupNames],
        strategy: Strategy | str = "rlo",
        *,
        per_term: bool = False,
        parameters: Iterable[nn.Parameter] | Parts | LevelGradients | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if not groups:
            raise ValueError("groups should have at least one group of levels. Found none.")
        self.groups, self.per_term = dict(groups), per_term
        gradients = None if parameters is None else LevelGradients.of(parameters)
        self.balancers: dict[str, Balancer] = {}
        # The losses that each balancer takes: a group, and one of its rows or all of them.
        self._parts: dict[str, tuple[str, slice]] = {}
        for group, names in groups.items():
            for row in [slice(i, i + 1) for i in range(len(names.terms))] if per_term else [slice(None)]:
                term = names.terms[row][0]
                name = (f"{group}:{term}" if len(groups) > 1 else term) if per_term else group
                own = {"terms": names.terms[row], "group": name, "parameters": gradients, **options}
                self.balancers[name] = Balancer(names.levels, strategy, **own)
                self._parts[name] = group, row
                # This name is part of the checkpoint's keys, in which a dot would separate modules.
                self.add_module(f"balancer:{name}".replace(".", "/"), self.balancers[name])

    def forward(self, losses: Mapping[str, LevelLosses]) -> Tensor:
        """Return the sum of all groups' weighted losses, a scalar.

        Raises:
            ValueError: where `losses` does not have exactly the groups.
        """
        if set(losses) != set(self.groups):
            raise ValueError(f"losses should have the groups {sorted(self.groups)}. Found {sorted(losses)}.")
        found: list[Tensor] = [
            self.balancers[name](LevelLosses(losses[group].values[row], losses[group].positives))
            for name, (group, row) in self._parts.items()
        ]
        total = found[0]
        for other in found[1:]:
            total = total + other
        return total

    def weighted(self, group: str, losses: LevelLosses) -> Tensor:
        """Return one group's ``[T, K]`` weighted losses, as `Balancer.weighted` does; call it once an iteration."""
        found: list[Tensor] = [
            self.balancers[name].weighted(LevelLosses(losses.values[row], losses.positives))
            for name, (own, row) in self._parts.items()
            if own == group
        ]
        return found[0] if len(found) == 1 else torch.cat(found)

    def reports(self) -> list[IntervalReport]:
        """Return the `Balancer.reports` of all balancers, in their order."""
        return [report for balancer in self.balancers.values() for report in balancer.reports()]

    def drain(self) -> list[IntervalRecord]:
        """Return the records of `reports`."""
        return [report.record for report in self.reports()]

    def synchronize(self) -> None:
        """See `Balancer.synchronize`."""
        for balancer in self.balancers.values():
            balancer.synchronize()

    def nonfinite(self) -> tuple[NonFinite, ...]:
        """See `Balancer.nonfinite`."""
        return tuple(found for balancer in self.balancers.values() for found in balancer.nonfinite())
