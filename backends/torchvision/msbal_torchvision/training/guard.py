"""NaN and infinite losses: kept from the weights, named, and dealt with as the spec says."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from msbal.backend import LevelGroup, SplitLosses
from msbal.errors import RunError

MOST_MESSAGES = 10


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

    Args:
        policy: the spec's ``balance.on_nonfinite``.
        say: told of a step left out.
    """

    def __init__(
        self,
        policy: Literal["stop", "skip"],
        groups: Sequence[LevelGroup],
        rank: int,
        say: Callable[[str], None],
    ) -> None:
        self.policy, self.rank, self.say = policy, rank, say
        self.groups = {group.name: group for group in groups}
        self._suspects: deque[_Suspect] = deque()
        self._said = 0
        self._last_reported = -1

    def protect(self, iteration: int, total: Tensor, split: SplitLosses) -> Tensor:
        """`total`, whose gradient is NaN where its value is not finite.

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
                {name: losses.values.detach() for name, losses in split.groups.items()},
                {name: loss.detach() for name, loss in split.rest.items()},
            )
        )
        return total * torch.where(finite, 1.0, math.nan)

    def poll(self, wait: bool = False) -> None:
        """Look at the verdicts that have arrived.

        Raises:
            RunError: where a loss was not finite and the policy is to stop.
        """
        while self._suspects:
            first = self._suspects[0]
            if first.arrived is not None:
                if not wait and not first.arrived.query():
                    return
                first.arrived.synchronize()
            self._suspects.popleft()
            if not bool(first.finite):
                self.report(first.iteration, self._name(first))

    def report(self, iteration: int, what: str) -> None:
        """Deal with something that was not finite.

        Raises:
            RunError: where the policy is to stop.
        """
        self._last_reported = iteration
        where = f"iteration {iteration}, rank {self.rank}"
        if self.policy == "stop":
            raise RunError(
                where,
                what,
                "finite numbers",
                "lower schedule.optimizer.lr or set schedule.clip_norm; balance.on_nonfinite=skip leaves such "
                "steps out. The weights are still those of the step before",
            )
        self._said += 1
        if self._said <= MOST_MESSAGES:
            last = " (further ones are only recorded)" if self._said == MOST_MESSAGES else ""
            self.say(f"step left out: {where}: {what}{last}")

    def told(self, since: int) -> bool:
        """Whether something was reported of the iterations after `since`."""
        return self._last_reported > since

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
