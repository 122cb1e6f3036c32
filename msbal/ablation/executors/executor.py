"""The interface between the runner and the places where runs are worked on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from msbal.ablation.work import Ended, Order

Stage = Literal["queued", "waiting", "running", "ended"]


class Job(Protocol):
    """One submitted run. It is `waiting` while another process works on the same run."""

    def stage(self) -> Stage:
        """Return where it is now."""

    def ended(self) -> Ended:
        """Return how it ended; call it only once it has."""


class Executor(Protocol):
    """A place where runs are worked on.

    Attributes:
        poll_seconds: the time between two reads of a run's files.
        stays: whether runs go on after a stop; then nothing is waited for.
    """

    poll_seconds: float
    stays: bool

    def submit(self, orders: Sequence[Order]) -> Sequence[Job]:
        """Accept runs, and work on them in this order as room allows."""

    def stop(self) -> None:
        """Start no further run; running ones write a checkpoint and end, unless the executor `stays`."""

    def messages(self) -> list[str]:
        """Return the lines for the user since the last call."""

    def close(self) -> None:
        """Release everything."""
