"""From the device to the host, once an interval: one tensor out, one record in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from msbal.engine.interval import Memory
from msbal.engine.statistics import IntervalStatistics
from msbal.record import IntervalRecord, NonFinite


@dataclass(frozen=True)
class Layout:
    """The names that a packed report leaves out."""

    levels: tuple[str, ...]
    terms: tuple[str, ...]
    actions: tuple[str, ...]
    strategy: str
    group: str
    alpha: int

    def size(self, ranks: int) -> int:
        """Numbers in a packed report."""
        k, t = len(self.levels), len(self.terms)
        return 5 + 6 * k + t * k + len(self.actions) + ranks * self.alpha * t * k


@dataclass(frozen=True)
class IntervalReport:
    """A record, and the losses that it was made from.

    Attributes:
        losses: ``[A, T, K]`` float64 on the host: the interval's unweighted losses, averaged over ranks.
    """

    record: IntervalRecord
    losses: Tensor


class Packed(NamedTuple):
    """A report's numbers, but not yet what they are.

    Attributes:
        numbers: `Layout.size` of no ranks.
        losses: ``[R, A, T, K]``.
    """

    numbers: list[float]
    losses: Tensor


def _parts(old: Memory, new: Memory, statistics: IntervalStatistics, intervals: Tensor | None) -> list[Any]:
    """A report's numbers in their order, as they come; None for a 0 that nobody has counted."""
    state = new.strategy
    apart = None
    if intervals is not None and intervals.numel() > 1:
        apart = (intervals != old.interval).any()
    return [
        statistics.interval,
        statistics.count,
        state.get("reward"),
        state.get("action"),
        apart,
        statistics.loss,
        statistics.variance,
        statistics.variance_reduction,
        new.weights,
        old.weights,
        statistics.positives,
        *statistics.loss_by_term,
        *([state["probabilities"]] if "probabilities" in state else []),
    ]


def pack(
    old: Memory, new: Memory, statistics: IntervalStatistics, losses: Tensor, intervals: Tensor | None = None
) -> Packed:
    """Everything that a report needs, read from the host's memory.

    Args:
        old: its weights are those that held at the interval's last iteration.
        losses: ``[R, A, T, K]``.
        intervals: ``[R]`` that each rank had counted, where there are several.
    """
    numbers: list[float] = []
    for part in _parts(old, new, statistics, intervals):
        found = part if part is None or isinstance(part, int | float) else part.tolist()
        if isinstance(found, list):
            numbers += found
        else:
            numbers.append(found or 0.0)
    return Packed(numbers, losses.clone())


def pack_flat(
    old: Memory, new: Memory, statistics: IntervalStatistics, losses: Tensor, intervals: Tensor | None = None
) -> Tensor:
    """`pack` into one flat float64 tensor on the device."""
    parts, zero = _parts(old, new, statistics, intervals), losses.new_zeros(1)
    flat = [zero if part is None else part.to(torch.float64).view(-1) for part in parts]
    return torch.cat([*flat, losses.flatten()])


def split(flat: Tensor, layout: Layout) -> Packed:
    """What `pack_flat` made, once it is on the host."""
    size = layout.size(ranks=0)
    losses = flat[size:].view(-1, layout.alpha, len(layout.terms), len(layout.levels))
    return Packed(flat[:size].tolist(), losses)


def unpack(packed: Packed, layout: Layout, knows_positives: bool) -> IntervalReport:
    """The inverse of `pack`.

    Raises:
        RuntimeError: where the ranks had not counted the same intervals.
    """
    levels, terms, actions = layout.levels, layout.terms, layout.actions
    k = len(levels)
    values, by_rank = packed
    interval, count, reward, action = int(values[0]), int(values[1]), int(values[2]), int(values[3])
    if values[4]:
        raise RuntimeError(
            f"Balancer `{layout.group}`: the processes have counted different numbers of intervals. Load the "
            f"same checkpoint on all of them, and call the balancer equally often."
        )
    at = 5

    def take(n: int) -> tuple[float, ...]:
        nonlocal at
        at += n
        return tuple(values[at - n : at])

    loss, variance, reduction, weights, previous_weights, positives = (take(k) for _ in range(6))
    by_term = {term: take(k) for term in terms}
    probabilities = dict(zip(actions, take(len(actions)), strict=True))
    record = IntervalRecord(
        interval=interval,
        iteration=interval * layout.alpha,
        levels=levels,
        loss=loss,
        loss_by_term=by_term,
        variance=variance,
        variance_reduction=reduction,
        weights=weights,
        reward=reward if actions else None,
        action=(actions[action] if action >= 0 else "") if actions else layout.strategy,
        probabilities=probabilities,
        group=layout.group,
        count=count,
        previous_weights=previous_weights,
        nonfinite=()
        if count == layout.alpha
        else find_nonfinite(by_rank, levels, terms, (interval - 1) * layout.alpha),
        positives=positives if knows_positives else None,
    )
    return IntervalReport(record, by_rank[0] if len(by_rank) == 1 else by_rank.mean(dim=0))


def find_nonfinite(
    losses: Tensor, levels: Sequence[str], terms: Sequence[str], before: int, first_rank: int = 0
) -> tuple[NonFinite, ...]:
    """Name the NaN and infinite losses in ``[R, A, T, K]``, of which `before` iterations came before."""
    bad = torch.nonzero(~torch.isfinite(losses)).tolist()
    return tuple(
        NonFinite(
            iteration=before + a + 1,
            term=terms[t],
            level=levels[k],
            rank=first_rank + r,
            value=_word(float(losses[r, a, t, k])),
        )
        for r, a, t, k in bad
    )


def _word(value: float) -> str:
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
