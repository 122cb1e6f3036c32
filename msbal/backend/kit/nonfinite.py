"""Losses that are NaN or infinite: kept from the weights, named, and dealt with as ``balance.on_nonfinite`` says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from msbal.backend.protocol import LevelGroup
from msbal.engine.processes import all_gather_objects, ranks
from msbal.errors import RunError

MAX_MESSAGES = 10
UNEXPLAINED = "the gradient of a finite loss is not finite"


class Sighting(NamedTuple):
    """What one rank saw in one iteration that was not finite."""

    iteration: int
    rank: int
    what: str


def poisoned(total: Tensor) -> Tensor:
    """`total`, whose gradient is NaN where its value is not finite.

    The step that it belongs to is then left out by `Stepper`, on all ranks alike, since they average their gradients.
    Waits for nothing.
    """
    return total * torch.where(torch.isfinite(total.detach()), 1.0, math.nan)


def name_losses(
    groups: Sequence[LevelGroup], losses: Mapping[str, Tensor], rest: Mapping[str, Tensor] | None = None
) -> str:
    """``the loss rpn P5/cls is nan, loss_mask is inf``. Waits for the device.

    Args:
        losses: ``[T, K]`` by group, as in `Balanced.losses`.
        rest: the framework's other losses, scalars.
    """
    found = []
    for group in groups:
        prefix = f"{group.name} " if len(groups) > 1 else ""
        values = losses[group.name].tolist() if group.name in losses else [[0.0] * len(group.levels)]
        for term, row in zip(group.terms, values, strict=False):
            found += [
                f"{prefix}{level}/{term} is {value}"
                for level, value in zip(group.levels, row, strict=True)
                if not math.isfinite(value)
            ]
    for name, loss in (rest or {}).items():
        value = float(loss.detach())
        if not math.isfinite(value):
            found.append(f"{name} is {value}")
    return "the loss " + (", ".join(found) or "summed over the levels is not finite")


def of_all_ranks(mine: Sequence[Sighting]) -> list[Sighting]:
    """The sightings of all ranks, in order. A collective."""
    if ranks() == 1:
        return list(mine)
    return sorted(sighting for part in all_gather_objects(list(mine)) for sighting in part)


class OnNonFinite:
    """Stops, or says which step is left out.

    Args:
        policy: the spec's ``balance.on_nonfinite``.
        say: told of a step left out.
        fix: what a person can do, where the run stops.
    """

    def __init__(
        self,
        policy: Literal["stop", "skip"],
        say: Callable[[str], None],
        fix: str = "lower schedule.optimizer.lr or set schedule.clip_norm; balance.on_nonfinite=skip leaves such "
        "steps out. No step was taken with it",
    ) -> None:
        self.policy, self.say, self.fix = policy, say, fix
        self._said = 0

    def deal(self, sightings: Sequence[Sighting]) -> None:
        """Deal with what was seen; on several ranks with all that all of them saw, on all alike.

        Raises:
            RunError: where the policy is to stop.
        """
        if not sightings:
            return
        if self.policy == "stop":
            first, *others = sightings
            raise RunError(
                f"iteration {first.iteration}, rank {first.rank}",
                "; ".join([first.what, *(f"on rank {other.rank} {other.what}" for other in others)]),
                "finite numbers",
                self.fix,
            )
        for iteration, rank, what in sightings:
            self._said += 1
            if self._said <= MAX_MESSAGES:
                last = " (further ones are only recorded)" if self._said == MAX_MESSAGES else ""
                self.say(f"step left out: iteration {iteration}, rank {rank}: {what}{last}")
