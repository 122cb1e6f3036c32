"""What `msbal.ablation.runner` asks of a place where runs are worked on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from msbal.ablation.work import Ended, Order

Stage = Literal["queued", "waiting", "running", "ended"]


class Job(Protocol):
    """One run on its way. `waiting` is for another process that works on the same run."""

    def stage(self) -> Stage:
        """Where it is now."""

    def ended(self) -> Ended:
        """How it ended; only once it has."""


class Executor(Protocol):
    """A place where runs are worked on.

    Attributes:
        poll_seconds: between two looks at a run's files.
        stays: whether runs go on after a stop: then nothing is waited for.
    """

    poll_seconds: float
    stays: bool

    def submit(self, orders: Sequence[Order]) -> Sequence[Job]:
        """Accept runs, to be worked on in this order as far as there is room."""

    def stop(self) -> None:
        """Start no other run; those that are on write a checkpoint and end, unless the executor `stays`."""

    def messages(self) -> list[str]:
        """What a person should read, since the last call; one line each."""

    def close(self) -> None:
        """Let go of everything."""
