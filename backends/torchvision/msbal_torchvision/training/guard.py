"""NaN and infinite losses: kept from the weights, named, and dealt with as the spec says."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from msbal.backend import LevelGroup
from msbal.errors import RunError

MAX_MESSAGES = 10

Sighting: TypeAlias = tuple[int, int, str]
"""Iteration, rank, and what was not finite."""


@dataclass
class _Suspect:
    """One iteration's losses, until it is known that they are finite."""

    iteration: int
    finite: Tensor
    arrived: Any
    losses: dict[str, Tensor]
    rest: dict[str, Tensor]


class Guard:
    """Watches every iteration's losses without waiting for the device.

    An iteration with a loss that is not finite gets a gradient of NaN. The step that it belongs to is then
    left out, on all ranks alike, since they average their gradients. On CUDA the verdict reaches the host an
    iteration or so later; the weights are safe meanwhile.

    Several processes deal with what they saw together, in `look`: all of them name all of it.

    Args:
        policy: the spec's ``balance.on_nonfinite``.
        say: told of a step left out.
    """

    def __init__(
        self,
        policy: Literal["stop", "skip"],
        groups: Sequence[LevelGroup],
        rank: int,
        processes: int,
        say: Callable[[str], None],
    ) -> None:
        self.policy, self.rank, self.processes, self.say = policy, rank, processes, say
        self.groups = {group.name: group for group in groups}
        self._suspects: deque[_Suspect] = deque()
        self._seen: list[Sighting] = []
        self._said = 0

    def protect(
        self, iteration: int, total: Tensor, losses: Mapping[str, Tensor], rest: Mapping[str, Tensor]
    ) -> Tensor:
        """`total`, whose gradient is NaN where its value is not finite.

        Args:
            losses: ``[T, K]`` by group, unweighted.
            rest: the losses that are not balanced, by name.

        Raises:
            RunError: as `poll` does.
        """
        finite = torch.isfinite(total.detach())
        host, arrived = finite, None
        if finite.is_cuda:
            host = torch.empty((), dtype=torch.bool, pin_memory=True)
            host.copy_(finite, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        self._suspects.append(
            _Suspect(
                iteration,
                host,
                arrived,
                dict(losses),
                {name: loss.detach() for name, loss in rest.items()},
            )
        )
        return total * torch.where(finite, 1.0, math.nan)

    def poll(self, wait: bool = False) -> None:
        """Look at the verdicts that have arrived.

        Raises:
            RunError: in a process that is alone, where a loss was not finite and the policy is to stop.
        """
        while self._suspects:
            first = self._suspects[0]
            if first.arrived is not None:
                if not wait and not first.arrived.query():
                    break
                first.arrived.synchronize()
            self._suspects.popleft()
            if not bool(first.finite):
                self._seen.append((first.iteration, self.rank, self._name(first)))
                if self.processes == 1:
                    self._report(self._seen[-1:])

    def look(self, iteration: int, left_out: bool, unexplained: str = "") -> None:
        """Deal with what all ranks have seen; they call it alike.

        Args:
            left_out: whether a step was left out since the last call, which all ranks know alike.
            unexplained: what to say where it was, though no rank has seen a loss that was not finite.

        Raises:
            RunError: where the policy is to stop.
        """
        self.poll(wait=True)
        if not left_out:
            return
        seen, self._seen = self._seen, []
        if self.processes > 1:
            parts: list[Any] = [None] * self.processes
            dist.all_gather_object(parts, seen)
            seen = sorted(sighting for part in parts for sighting in part)
            self._report(seen)
        if not seen and unexplained:
            self._report([(iteration, self.rank, unexplained)])

    def _report(self, sightings: Sequence[Sighting]) -> None:
        if not sightings:
            return
        if self.policy == "stop":
            iteration, rank, what = sightings[0]
            raise RunError(
                f"iteration {iteration}, rank {rank}",
                "; ".join([what, *(f"on rank {rank} {what}" for _, rank, what in sightings[1:])]),
                "finite numbers",
                "lower schedule.optimizer.lr or set schedule.clip_norm; balance.on_nonfinite=skip leaves such "
                "steps out. No step was taken with it",
            )
        for iteration, rank, what in sightings:
            self._said += 1
            if self._said <= MAX_MESSAGES:
                last = " (further ones are only recorded)" if self._said == MAX_MESSAGES else ""
                self.say(f"step left out: iteration {iteration}, rank {rank}: {what}{last}")

    def _name(self, suspect: _Suspect) -> str:
        found = []
        for name, values in suspect.losses.items():
            group = self.groups[name]
            prefix = f"{name} " if len(self.groups) > 1 else ""
            for term, row in zip(group.terms, values.tolist(), strict=True):
                found += [
                    f"{prefix}{level}/{term} is {value}"
                    for level, value in zip(group.levels, row, strict=True)
                    if not math.isfinite(value)
                ]
        found += [f"{name} is {float(v)}" for name, v in suspect.rest.items() if not math.isfinite(float(v))]
        return "the loss " + (", ".join(found) or "summed over the levels is not finite")
