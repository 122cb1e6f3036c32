"""What the host knows of a balancer without asking its device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from msbal.engine.outbox import Outbox
from msbal.engine.unfinished import Unfinished


class HostView:
    """All of it can be had from the balancer's state again. Apart from the module, whose attributes are slow.

    Attributes:
        position: iterations of this interval so far, where `counts`.
        counts: False once a compiled or captured step has counted on the device alone.
        scale: ``[T * K]`` the weights as a constant of the losses' dtype and device, or None where they
            have to be made. A copy: the backward of a step that is past needs that step's weights.
        rows: one view ``[T * K]`` of the balancer's losses for each iteration of the interval, or none
            where they have to be made.
        write: writes into them where they are in the host's memory, see `host.writer`; None elsewhere.
        stride: bytes from row to row.
        buffers: writers of the balancer's buffers, by name, where `write` is one and the strategy takes numbers.
        iterations: before this interval, where `counts`.
        last: ``[T * K]`` the losses of the last iteration.
        knows_positives: the losses came with counts of positives.
        outbox: reports on their way to the host.
        gathered: all ranks' unfinished interval, as `Balancer.synchronize` found it.
    """

    def __init__(self) -> None:
        self.position = 0
        self.counts = True
        self.scale: Tensor | None = None
        self.rows: tuple[Tensor, ...] = ()
        self.write: Callable[..., None] | None = None
        self.stride = 0
        self.buffers: Mapping[str, Any] = {}
        self.iterations = 0
        self.last: Tensor | list[float] | None = None
        self.knows_positives = False
        self.outbox = Outbox()
        self.gathered: Unfinished | None = None
