"""Losses that are NaN or infinite: kept from the weights, named, and treated as ``balance.on_nonfinite`` says."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from msbal.backend.protocol import LevelGroup
from msbal.engine.processes import all_gather_objects, rank, world_size
from msbal.errors import RunError

MAX_MESSAGES = 10
UNEXPLAINED = "the gradient of a finite loss is not finite"


class Sighting(NamedTuple):
    """What one rank saw in one iteration that was not finite."""

    iteration: int
    rank: int
    what: str


def poisoned(total: Tensor) -> Tensor:
    """Return `total`, with a gradient of NaN where its value is not finite.

    `Stepper` then skips the step, on all ranks alike, since they average their gradients. Waits for nothing.
    """
    return total * torch.where(torch.isfinite(total.detach()), 1.0, math.nan)


def name_losses(
    groups: Sequence[LevelGroup], losses: Mapping[str, Tensor], rest: Mapping[str, Tensor] | None = None
) -> str:
    """Return ``the loss rpn P5/cls is nan, loss_mask is inf``. Waits for the device.

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
    """Return the sightings of all ranks, in order. A collective."""
    return sorted(sighting for part in all_gather_objects(list(mine)) for sighting in part)


class OnNonFinite:
    """Stops the run, or says which step is skipped.

    Args:
        policy: the spec's ``balance.on_nonfinite``.
        say: told of each skipped step.
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
        """Apply the policy to what was seen. On several ranks, call it on all with what all of them saw.

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
        for iteration, of_rank, what in sightings:
            self._said += 1
            if self._said <= MAX_MESSAGES:
                last = " (further ones are only recorded)" if self._said == MAX_MESSAGES else ""
                self.say(f"step left out: iteration {iteration}, rank {of_rank}: {what}{last}")


@dataclass
class _Suspect:
    """One iteration's losses, until the host knows whether they are finite."""

    iteration: int
    finite: Tensor
    arrived: Any
    losses: dict[str, Tensor]
    rest: dict[str, Tensor]


class Guard:
    """Checks every iteration's losses without waiting for the device.

    On CUDA the verdict reaches the host an iteration or so later; until then `poisoned` protects the weights. Several
    processes share what they saw in `look`, so that each of them names all of it.
    """

    def __init__(self, policy: OnNonFinite, groups: Sequence[LevelGroup]) -> None:
        self.policy, self.groups = policy, groups
        self._suspects: deque[_Suspect] = deque()
        self._seen: list[Sighting] = []

    def protect(
        self, iteration: int, total: Tensor, losses: Mapping[str, Tensor], rest: Mapping[str, Tensor]
    ) -> Tensor:
        """Return `poisoned` of `total`, and begin to check it.

        Args:
            losses: ``[T, K]`` by group, unweighted.
            rest: the losses that are not balanced, by name.
        """
        finite = torch.isfinite(total.detach())
        host, arrived = finite, None
        if finite.is_cuda:
            host = torch.empty((), dtype=torch.bool, pin_memory=True)
            host.copy_(finite, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        kept = {name: loss.detach() for name, loss in rest.items()}
        self._suspects.append(_Suspect(iteration, host, arrived, dict(losses), kept))
        return poisoned(total)

    def poll(self, wait: bool = False) -> None:
        """Read the verdicts that have arrived.

        Raises:
            RunError: in a single process, where a loss was not finite and the policy is to stop.
        """
        while self._suspects:
            first = self._suspects[0]
            if first.arrived is not None:
                if not wait and not first.arrived.query():
                    break
                first.arrived.synchronize()
            self._suspects.popleft()
            if not bool(first.finite):
                what = name_losses(self.groups, first.losses, first.rest)
                self._seen.append(Sighting(first.iteration, rank(), what))
                if world_size() == 1:
                    self.policy.deal(self._seen[-1:])

    def look(self, iteration: int, left_out: bool, explained: bool = False) -> None:
        """Apply the policy to what all ranks have seen, waiting for the device. Call it on all ranks alike.

        Args:
            left_out: whether a step has been skipped since the last call, which all ranks know alike.
            explained: whether a step may be skipped although every loss is finite, as a gradient scaler does.

        Raises:
            RunError: where the policy is to stop.
        """
        self.poll(wait=True)
        if not left_out:
            return
        seen, self._seen = of_all_ranks(self._seen), []
        if world_size() > 1:
            self.policy.deal(seen)
        if not seen and not explained:
            self.policy.deal([Sighting(iteration, rank(), UNEXPLAINED)])
