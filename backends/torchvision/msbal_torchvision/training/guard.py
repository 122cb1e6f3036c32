"""NaN and infinite losses: kept from the weights, and named without waiting for the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from msbal.backend import LevelGroup
from msbal.backend.kit.nonfinite import OnNonFinite, Sighting, name_losses, of_all_ranks, poisoned
from msbal.training.distributed import rank, world_size


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

    On CUDA the verdict reaches the host an iteration or so later; the weights are safe meanwhile. Several processes
    deal with what they saw together, in `look`: all of them name all of it.
    """

    def __init__(self, policy: OnNonFinite, groups: Sequence[LevelGroup]) -> None:
        self.policy, self.groups = policy, groups
        self._suspects: deque[_Suspect] = deque()
        self._seen: list[Sighting] = []

    def protect(
        self, iteration: int, total: Tensor, losses: Mapping[str, Tensor], rest: Mapping[str, Tensor]
    ) -> Tensor:
        """`total`, whose gradient is NaN where its value is not finite.

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
                what = name_losses(self.groups, first.losses, first.rest)
                self._seen.append(Sighting(first.iteration, rank(), what))
                if world_size() == 1:
                    self.policy.deal(self._seen[-1:])

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
        seen, self._seen = of_all_ranks(self._seen), []
        if world_size() > 1:
            self.policy.deal(seen)
        if not seen and unexplained:
            self.policy.deal([Sighting(iteration, rank(), unexplained)])
