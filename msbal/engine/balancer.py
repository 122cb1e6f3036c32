"""The balancer: level losses in, one scalar out, new weights at every interval's end.

Shapes: A iterations of an interval (alpha), T terms, K levels, R ranks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from msbal.engine.draw import Draw
from msbal.engine.interval import Memory, end_interval, initial_memory
from msbal.engine.losses import LevelLosses, Losses, gather
from msbal.record import IntervalRecord, NonFinite
from msbal.engine.report import IntervalReport, Layout, find_nonfinite, pack, unpack
from msbal.engine.statistics import EPSILON
from msbal.engine.strategies.base import StepStrategy, Strategy, make

# Marks the rows of the buffer that no iteration has filled yet: the position within the interval is
# then part of the buffer, and a checkpoint, a captured graph and the host cannot disagree about it. No
# float32 loss can have this value.
_EMPTY = torch.finfo(torch.float64).min

_STATE_PREFIX = "strategy_"


class Balancer(nn.Module):
    """Weighs the losses of pyramid levels against each other: eq 1.

    Call it once an iteration. The scalar is the sum of all terms of all levels, each level times its
    weight. After every `interval` calls the strategy decides the weights that hold from the next call
    on; gradients of earlier calls keep the weights that they were made with.

    An iteration waits for nothing on the device: the losses' device holds the whole state, the record
    of an interval leaves it in one asynchronous copy. In a process group the losses of all ranks are
    gathered once an interval, and every rank decides the same.

    Inside `torch.compile` and while a CUDA graph is captured, counting and deciding happen on the device
    too, so that a replayed graph goes on balancing; call ``drain(wait=True)`` at least once an interval
    then, if every record is wanted.

    Args:
        levels: names, finest first.
        strategy: a ``Strategy``, or the name of one with its defaults.
        terms: names of the kinds of loss, the rows of the ``[T, K]`` losses.
        interval: alpha, iterations per interval, at least 2.
        seed: of the strategy's random draws.
        group: the name of these levels among others; draws of different groups are independent.
        epsilon: of eq 4.

    Raises:
        ValueError: where an argument, or the number of levels, does not fit the strategy.
    """

    weights: Tensor
    buffer: Tensor
    positives: Tensor
    intervals: Tensor
    previous_loss: Tensor
    previous_variance: Tensor

    def __init__(
        self,
        levels: Sequence[str],
        strategy: Strategy | str = "rlo",
        *,
        terms: Sequence[str] = ("loss",),
        interval: int = 100,
        seed: int = 0,
        group: str = "all",
        epsilon: float = EPSILON,
    ) -> None:
        super().__init__()
        self.levels, self.terms, self.group = tuple(levels), tuple(terms), group
        self.strategy = make(strategy) if isinstance(strategy, str) else strategy
        self.interval, self.seed, self.epsilon = interval, seed, epsilon
        if isinstance(levels, str) or len(self.levels) < 2 or len(set(self.levels)) != len(self.levels):
            raise ValueError(f"levels should be at least two different names. Found {levels!r}.")
        if isinstance(terms, str) or not self.terms or len(set(self.terms)) != len(self.terms):
            raise ValueError(f"terms should be different names, at least one. Found {terms!r}.")
        if interval < 2:
            raise ValueError(f"interval should be at least 2 (one loss has no variance). Found {interval}.")
        if not epsilon > 0:
            raise ValueError(f"epsilon should be above 0. Found {epsilon}.")
        k = len(self.levels)
        self.strategy.check(k)

        memory = initial_memory(self.strategy, k)
        self.register_buffer("weights", memory.weights)
        self.register_buffer("intervals", memory.interval)
        self.register_buffer("previous_loss", memory.previous_loss)
        self.register_buffer("previous_variance", memory.previous_variance)
        self.register_buffer(
            "buffer", torch.full((interval, len(self.terms), k), _EMPTY, dtype=torch.float64)
        )
        self.register_buffer("positives", torch.zeros(k, dtype=torch.float64))
        self._state_keys = tuple(memory.strategy)
        for key, value in memory.strategy.items():
            self.register_buffer(_STATE_PREFIX + key, value)
        self._parameter_keys: tuple[str, ...] = ()
        if isinstance(self.strategy, StepStrategy):
            parameters = self.strategy.initial_parameters(k)
            self._parameter_keys = tuple(parameters)
            for key, value in parameters.items():
                self.register_parameter(_STATE_PREFIX + key, nn.Parameter(value))

        self._draw = Draw(seed, group)
        self._layout = Layout(
            self.levels, self.terms, self.strategy.action_names, self.strategy.name, group, interval
        )
        self._position = 0  # filled rows, as the host counts them
        self._host_counts = True  # False once a compiled or captured step has filled rows by itself
        self._knows_positives = False
        self._scale: Tensor | None = None  # the weights in the losses' dtype
        self._last: Tensor | None = None  # this iteration's losses, detached
        self._pending: deque[tuple[Tensor, Any]] = deque()
        self._drained = 0

    def forward(self, losses: Losses) -> Tensor:
        """Weigh one iteration's losses.

        Args:
            losses: anything that `msbal.engine.losses.gather` takes, unweighted.

        Returns:
            scalar, in float32 or better, whose gradient for each loss is its level's weight.
        """
        gathered = gather(losses, self.terms, self.levels)
        compiling = torch.compiler.is_compiling()
        if compiling or (gathered.values.is_cuda and torch.cuda.is_current_stream_capturing()):
            return self._device_step(gathered)
        if gathered.values.device != self.weights.device:
            self.to(gathered.values.device)
        return self._host_step(gathered)

    # -- one iteration ---------------------------------------------------------------------------

    def _host_step(self, losses: LevelLosses) -> Tensor:
        """An iteration whose place in the interval the host knows: two kernels more than a sum."""
        if not self._host_counts:
            self._position = int(self._filled())
            self._host_counts, self._scale = True, None
        values = losses.values
        detached = values.detach()
        if isinstance(self.strategy, StepStrategy):
            total, state = self._weigh_step(losses, self.strategy, self._position)
            self._set_state(state)
        else:
            if self._scale is None or self._scale.dtype != values.dtype:
                self._scale = self.weights.to(values.dtype, copy=True)
            total = (values * self._scale).sum()
        self.buffer[self._position].copy_(detached)
        if losses.positives is not None:
            self._knows_positives = True
            self.positives += losses.positives
        self._last = detached
        self._position += 1
        if self._position == self.interval:
            self._end_interval()
        return total

    @torch.no_grad()
    def _end_interval(self) -> None:
        losses, positives = self.buffer.unsqueeze(0), self.positives
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            losses, positives = _gather_ranks(losses, positives)
        old = self._memory()
        new, statistics = end_interval(self.strategy, old, losses, positives, self._draw, self.epsilon)
        self._send(pack(old, new, statistics, losses, self.weights))
        # New tensors, not new values: a backward that is still to come needs the old weights.
        self.weights, self.intervals = new.weights, new.interval
        self.previous_loss, self.previous_variance = new.previous_loss, new.previous_variance
        self._set_state(new.strategy)
        self._scale = None
        self.buffer.fill_(_EMPTY)
        self.positives.zero_()
        self._position = 0

    def _device_step(self, losses: LevelLosses) -> Tensor:
        """An iteration of which the host knows nothing: the end of the interval is a `where`."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise RuntimeError(
                "Balancer: a compiled or captured step cannot gather losses over processes; "
                "call the balancer outside torch.compile, or on the model's level losses after it"
            )
        self._host_counts = False
        values = losses.values
        filled = self._filled()
        if isinstance(self.strategy, StepStrategy):
            total, state = self._weigh_step(losses, self.strategy, filled)
            with torch.no_grad():
                for key, value in state.items():
                    getattr(self, _STATE_PREFIX + key).copy_(value)
        else:
            # A copy even where the dtype is the same: the weights change in place below, and the
            # backward of this step needs those of this step.
            total = (values * self.weights.to(values.dtype, copy=True)).sum()
        with torch.no_grad():
            self.buffer.index_copy_(0, filled.view(1), values.detach().to(torch.float64).unsqueeze(0))
            if losses.positives is not None:
                self._knows_positives = True
                self.positives.add_(losses.positives)
            due = filled + 1 == self.interval
            old = self._memory()
            new, statistics = end_interval(
                self.strategy, old, self.buffer.unsqueeze(0), self.positives, self._draw, self.epsilon
            )
            report = pack(old, new, statistics, self.buffer.unsqueeze(0), self.weights)
            self._keep_report(report, due)
            for current, next_ in (
                (self.weights, new.weights),
                (self.intervals, new.interval),
                (self.previous_loss, new.previous_loss),
                (self.previous_variance, new.previous_variance),
                *((getattr(self, _STATE_PREFIX + key), new.strategy[key]) for key in self._state_keys),
                (self.buffer, torch.full_like(self.buffer, _EMPTY)),
                (self.positives, torch.zeros_like(self.positives)),
            ):
                current.copy_(torch.where(due, next_, current))
        return total

    def _weigh_step(
        self, losses: LevelLosses, strategy: StepStrategy, filled: Tensor | int
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        values = losses.values
        state = {
            key: getattr(self, _STATE_PREFIX + key) for key in (*self._state_keys, *self._parameter_keys)
        }
        level_losses = values.detach().to(torch.float64).sum(dim=0)
        finite = torch.isfinite(level_losses).all()
        weights, new_state, objective = strategy.weigh(
            torch.where(finite, level_losses, 1.0),
            losses.positives,
            self.intervals * self.interval + filled,
            state,
            self._draw,
        )
        detached = weights.detach()
        total = (values * detached.to(values.dtype)).sum()
        if objective is not None:
            total = total + (objective - objective.detach()).to(total.dtype)
        with torch.no_grad():
            kept = {key: torch.where(finite, new_state[key], state[key]) for key in self._state_keys}
            used = torch.where(finite, detached, self.weights)
            if torch.compiler.is_compiling() or not self._host_counts:
                self.weights.copy_(used)
            else:
                self.weights = used
        return total, kept

    # -- state -----------------------------------------------------------------------------------

    def _memory(self) -> Memory:
        state = {key: getattr(self, _STATE_PREFIX + key) for key in self._state_keys}
        return Memory(self.intervals, self.weights, self.previous_loss, self.previous_variance, state)

    def _set_state(self, state: Mapping[str, Tensor]) -> None:
        for key in self._state_keys:
            setattr(self, _STATE_PREFIX + key, state[key])

    def _filled(self) -> Tensor:
        """Rows of the buffer in use, int64 scalar on the device."""
        return (self.buffer[:, 0, 0] != _EMPTY).sum()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kw: Any) -> None:
        # In place would reach into a graph that still needs the old weights.
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = buffer.clone()
        super()._load_from_state_dict(state_dict, prefix, *args, **kw)
        self._host_counts, self._scale = False, None
        self._pending.clear()

    def _apply(self, fn: Any, recurse: bool = True) -> Balancer:
        # `model.half()` must not take the statistics with it: only the device may change.
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved: Tensor = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        self._scale = None
        super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]
        return self

    def extra_repr(self) -> str:
        return f"{self.group}: {', '.join(self.levels)}; {self.strategy}; interval={self.interval}"

    # -- reports ---------------------------------------------------------------------------------

    @property
    def iteration(self) -> int:
        """Iterations so far. Waits for the device."""
        return int(self.intervals) * self.interval + int(self._filled())

    def _send(self, report: Tensor) -> None:
        """Start the copy to the host; on CUDA into pinned memory, without waiting."""
        if not report.is_cuda:
            self._pending.append((report.cpu(), None))
            return
        host = torch.empty(report.shape, dtype=report.dtype, pin_memory=True)
        host.copy_(report, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._pending.append((host, event))

    def _keep_report(self, report: Tensor, due: Tensor) -> None:
        """Keep the last report on the device, for a step of which the host knows nothing."""
        kept = self._buffers.get("report")
        if kept is None:
            kept = torch.zeros_like(report)
            self.register_buffer("report", kept, persistent=False)
        kept.copy_(torch.where(due, report, kept))

    def reports(self, wait: bool = False) -> list[IntervalReport]:
        """The reports that have arrived since the last call, oldest first.

        Args:
            wait: wait for those still on their way (a synchronisation), and ask the device for the
                last one of a compiled or captured step.
        """
        finished: list[IntervalReport] = []
        while self._pending:
            host, event = self._pending[0]
            if event is not None and not event.query():
                if not wait:
                    break
                event.synchronize()
            self._pending.popleft()
            finished.append(unpack(host, self._layout, self._knows_positives))
        if wait and not self._host_counts and self._buffers.get("report") is not None:
            last = unpack(self._buffers["report"].cpu(), self._layout, self._knows_positives)  # type: ignore[union-attr]
            if last.record.interval > self._drained:
                finished.append(last)
        if finished:
            self._drained = finished[-1].record.interval
        return finished

    def drain(self, wait: bool = False) -> list[IntervalRecord]:
        """The records of `reports`."""
        return [report.record for report in self.reports(wait)]

    def nonfinite(self) -> tuple[NonFinite, ...]:
        """Name this process's NaN and infinite losses of the last iteration. Waits for the device."""
        if self._last is None:
            return ()
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        losses = self._last.view(1, 1, len(self.terms), len(self.levels))
        return find_nonfinite(losses, self.levels, self.terms, self.iteration - 1, rank)


def _gather_ranks(losses: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
    """All ranks' losses as ``[R, A, T, K]`` and the sum of their positives, in one collective.

    Gathered, not reduced: every rank then averages in the same order, and a NaN keeps its rank.
    """
    ranks = dist.get_world_size()
    flat = torch.cat([losses.flatten(), positives])
    gathered = flat.new_empty(ranks * flat.numel())
    dist.all_gather_into_tensor(gathered, flat)
    rows = gathered.view(ranks, -1)
    split = losses.numel()
    return rows[:, :split].reshape(ranks, *losses.shape[1:]), rows[:, split:].sum(dim=0)
