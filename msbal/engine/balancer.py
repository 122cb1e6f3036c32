"""The balancer: level losses in, one scalar out, new weights at every interval's end.

Shapes: A iterations of an interval (alpha), T terms, K levels, R ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.compiler import is_compiling

from msbal.engine.compiling import opaque_copy, run_outside
from msbal.engine.draw import Draw
from msbal.engine.host import all_finite, choose, numbers_of, tensor_of, writer
from msbal.engine.interval import Memory, end_interval, initial_memory, on_host
from msbal.engine.losses import Losses, gather_flat
from msbal.engine.numbers import Numbers
from msbal.engine.ranks import average_ranks, gather_ranks, ranks
from msbal.engine.report import IntervalReport, Layout, find_nonfinite, pack, pack_flat
from msbal.engine.statistics import EPSILON
from msbal.engine.strategies.base import Iteration, State, StepStrategy, Strategy, make
from msbal.engine.unfinished import EMPTY, Unfinished, gather_unfinished, is_current, part_of_rank
from msbal.engine.view import HostView
from msbal.engine.weighting import empty_levels
from msbal.record import IntervalRecord, NonFinite


class Balancer(nn.Module):
    """Weighs the losses of pyramid levels against each other: eq 1.

    Call it once an iteration. The scalar is the sum of all terms of all levels, each level times its
    weight. After every `interval` calls the strategy decides the weights that hold from the next call
    on; gradients of earlier calls keep the weights that they were made with. In evaluation mode
    (`eval()`) it weighs, but neither counts nor decides.

    An iteration waits for nothing on the device: the losses' device holds the whole state, the record
    of an interval leaves it in one asynchronous copy. In a process group the losses of all ranks are
    gathered once an interval (by a `StepStrategy` averaged at every iteration), and every rank decides
    the same; all ranks have to call it equally often.

    Inside `torch.compile` and while a CUDA graph is captured, counting and deciding happen on the device
    too, so that a replayed graph goes on balancing; move it to the losses' device before. Call `drain`
    every few iterations then: only the last interval's record is kept.

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
        self.strategy = make(strategy) if isinstance(strategy, str) else strategy
        if not isinstance(self.strategy, Strategy):
            raise ValueError(f"strategy should be a Strategy or the name of one. Found {strategy!r}.")
        if isinstance(levels, str) or len(levels) < 2 or len(set(levels)) != len(levels):
            raise ValueError(f"levels should be at least two different names. Found {levels!r}.")
        if isinstance(terms, str) or not terms or len(set(terms)) != len(terms):
            raise ValueError(f"terms should be different names, at least one. Found {terms!r}.")
        if interval < 2:
            raise ValueError(f"interval should be at least 2 (one loss has no variance). Found {interval}.")
        if not epsilon > 0:
            raise ValueError(f"epsilon should be above 0. Found {epsilon}.")
        self.levels, self.terms, self.group = tuple(levels), tuple(terms), group
        self.interval, self.seed, self.epsilon = interval, seed, epsilon
        k = len(self.levels)
        self.strategy.check(k)

        self._on_numbers = self.strategy.takes_numbers()
        memory = initial_memory(self.strategy, k)
        if self._on_numbers:
            self._check_state(memory.strategy)
        self.register_buffer("weights", memory.weights)
        self.register_buffer("intervals", memory.interval)
        self.register_buffer("previous_loss", memory.previous_loss)
        self.register_buffer("previous_variance", memory.previous_variance)
        # From the strategy's names to the module's.
        self._state_names = {key: f"strategy_{key}" for key in memory.strategy}
        for key, name in self._state_names.items():
            self.register_buffer(name, memory.strategy[key].contiguous())
        self._parameter_names: dict[str, str] = {}
        self._step_strategy = self.strategy if isinstance(self.strategy, StepStrategy) else None
        if self._step_strategy is not None:
            parameters = self._step_strategy.initial_parameters(k)
            self._check_parameters(parameters)
            self._parameter_names = {key: f"strategy_{key}" for key in parameters}
            for key, name in self._parameter_names.items():
                self.register_parameter(name, nn.Parameter(parameters[key]))
        # No buffers, because they differ from rank to rank: see `msbal.engine.unfinished`.
        self._losses = torch.full((interval, len(self.terms), k), EMPTY, dtype=torch.float64)
        self._positives = torch.zeros(k, dtype=torch.float64)

        self._draw = Draw(seed, group)
        self._layout = Layout(
            self.levels, self.terms, self.strategy.action_names, self.strategy.name, group, interval
        )
        # The last report of a compiled or captured step.
        self._report = torch.zeros(self._layout.size(ranks=1), dtype=torch.float64)
        self._host = HostView()
        self._captured = False

    def _check_state(self, state: State) -> None:
        for key, value in state.items():
            if value.dim() > 1 or value.dtype not in (torch.float64, torch.int64):
                raise ValueError(
                    f"strategy `{self.strategy.name}`: `{key}`, of a strategy on numbers, should be a scalar or a "
                    f"vector in float64 or int64. Found the shape {list(value.shape)} in {value.dtype}."
                )

    def _check_parameters(self, parameters: State) -> None:
        k = len(self.levels)
        for key, value in parameters.items():
            if value.shape != (k,):
                raise ValueError(
                    f"strategy `{self.strategy.name}`: the parameter `{key}` should have the shape [{k}], one "
                    f"number a level. Found {list(value.shape)}."
                )

    def forward(self, losses: Losses) -> Tensor:
        """Weigh one iteration's losses.

        Args:
            losses: anything that `msbal.engine.losses.gather` takes, unweighted.

        Returns:
            scalar, in float32 or better, whose gradient for each loss is its level's weight.

        Raises:
            ValueError: where names or shapes do not fit, or the strategy lacks something.
        """
        values, positives = gather_flat(losses, self.terms, self.levels)
        if not self.training:
            return torch.dot(values, self._constant(self.weights, values))
        if is_compiling():
            # Over processes the graph ends here: the losses of all ranks have to be gathered.
            step = self._device_step if ranks() == 1 else self._step_outside
            return step(values, positives)
        if self._captured or (values.is_cuda and torch.cuda.is_current_stream_capturing()):
            # From now on the host cannot count at all: a graph's replay runs none of this.
            self._captured = True
            return self._device_step(values, positives)
        return self._host_step(values, positives)

    # -- one iteration ---------------------------------------------------------------------------

    def _host_step(self, values: Tensor, positives: Tensor | None) -> Tensor:
        """An iteration whose place in the interval the host knows.

        Two kernels more than a sum; one where the host writes the losses down itself.
        """
        host = self._host
        scale = host.scale
        if scale is None or scale.dtype is not values.dtype or scale.device != values.device:
            scale = self._prepare(values)
        position = host.position
        if host.write is not None:
            host.last = numbers = values.tolist()
            host.write(position * host.stride, *numbers)
        else:
            host.last = detached = values.detach()
            host.rows[position].copy_(detached)
        strategy = self._step_strategy
        if strategy is None:
            total = torch.dot(values, scale)
        else:
            try:
                if host.write is not None and self._on_numbers:
                    total = self._weigh_numbers(strategy, values, numbers, positives)
                else:
                    total = self._weigh_step(strategy, values, host.rows[position], positives, position)
            except ValueError:
                host.rows[position].fill_(EMPTY)  # what is refused is no iteration
                raise
        if positives is not None:
            host.knows_positives = True
            self._positives.add_(positives)
        host.position = position + 1
        if host.position == self.interval:
            self._end_interval()
        return total

    @run_outside
    def _step_outside(self, values: Tensor, positives: Tensor | None) -> Tensor:
        """`_host_step`, which a compiler must not trace: torch 2.4 loses what it appends to a deque."""
        return self._host_step(values, positives)

    def _prepare(self, values: Tensor) -> Tensor:
        """Bring the host's view up to date."""
        if values.device != self.weights.device:
            self.to(values.device)
        host = self._host
        if not host.counts:
            host.position, host.counts = int(self._filled()), True
            host.iterations = int(self.intervals) * self.interval
        if not host.rows:
            rows = self._losses.flatten(1)
            host.rows, host.write, host.stride = rows.unbind(0), writer(rows), rows.nbytes // len(rows)
            host.buffers = {}
            if host.write is not None and self._on_numbers:
                host.buffers = {name: writer(buffer.view(1, -1)) for name, buffer in self.named_buffers()}
        if host.write is None:
            host.scale = self._constant(self.weights, values)
        else:
            host.scale = tensor_of(self.weights.tolist() * len(self.terms), values.dtype)
        return host.scale

    def _constant(self, weights: Tensor, values: Tensor) -> Tensor:
        """The weights for each value, ``[T * K]``, whatever becomes of the balancer's own."""
        if is_compiling():
            weights = opaque_copy(weights)
        weights = weights.to(values, copy=True)
        return weights.repeat(len(self.terms)) if len(self.terms) > 1 else weights

    @torch.no_grad()
    def _end_interval(self) -> None:
        losses, positives, intervals = self._losses.unsqueeze(0), self._positives, self.intervals
        if ranks() > 1:
            losses, positives, intervals = gather_ranks(losses, positives, intervals)
        host, old = self._host, self._memory()
        if host.write is not None and self._on_numbers:
            old, positives = on_host(old), numbers_of(positives)
        new, statistics = end_interval(self.strategy, old, losses, positives, self._draw, self.epsilon)
        packs: Any = pack_flat if host.write is None else pack
        host.outbox.send(packs(old, new, statistics, losses, intervals))
        if host.write is not None and self._on_numbers:
            self._write(new)
        else:
            _replace(_pairs(old, new))
        self._losses.fill_(EMPTY)
        self._positives.zero_()
        host.position, host.scale = 0, None
        host.iterations += self.interval

    def _device_step(self, values: Tensor, positives: Tensor | None) -> Tensor:
        """An iteration of which the host knows nothing: the end of the interval is a `where`."""
        if ranks() > 1:
            raise RuntimeError(
                "Balancer: a captured step cannot gather losses over processes; call the balancer outside of the "
                "CUDA graph, on the level losses that come out of it"
            )
        host = self._host
        host.counts, host.scale = False, None
        host.last = values.detach()
        row, filled = host.last.to(torch.float64), self._filled()
        if self._step_strategy is None:
            total = torch.dot(values, self._constant(self.weights, values))
        else:
            total = self._weigh_step(self._step_strategy, values, row, positives, filled)
        with torch.no_grad():
            self._losses.index_copy_(0, filled.view(1), row.view(1, *self._losses.shape[1:]))
            if positives is not None:
                host.knows_positives = True
                self._positives.add_(positives)
            due = filled + 1 == self.interval
            losses, old = self._losses.unsqueeze(0), self._memory()
            new, statistics = end_interval(
                self.strategy, old, losses, self._positives, self._draw, self.epsilon
            )
            report = pack_flat(old, new, statistics, losses)
            changes = (
                (self._report, report),
                *_pairs(old, new),
                (self._losses, torch.full_like(self._losses, EMPTY)),
                (self._positives, torch.zeros_like(self._positives)),
            )
            _replace([(current, torch.where(due, next_, current)) for current, next_ in changes])
        return total

    def _weigh_step(
        self,
        strategy: StepStrategy,
        values: Tensor,
        row: Tensor,
        positives: Tensor | None,
        position: Tensor | int,
    ) -> Tensor:
        """The total under weights of this very iteration.

        Args:
            row: `values`, detached, in float64.
        """
        losses = row.view(self._losses.shape[1:]).sum(dim=0) if len(self.terms) > 1 else row
        if ranks() > 1:
            losses, positives = average_ranks(losses, positives)
        finite, state, learned = all_finite(losses.sum()), self._state(), self._learned_by_key()
        parameters = {key: parameter.detach().to(torch.float64) for key, parameter in learned.items()}
        step = Iteration(
            losses,
            positives,
            empty_levels(losses, positives),
            lambda: self.intervals * self.interval + position,
        )
        weighed = strategy.weigh(step, {**state, **parameters}, self._draw)
        weights = choose(finite, weighed.weights, self.weights)
        total = torch.dot(values, self._constant(weights, values))
        for key, parameter in learned.items():
            gradient = choose(finite, weighed.gradients[key], torch.zeros_like(parameters[key]))
            total = _with_gradient(total, parameter, gradient.to(parameter.dtype))
        changes = [(value, choose(finite, weighed.state[key], value)) for key, value in state.items()]
        _replace([(self.weights, weights), *changes])
        return total

    def _weigh_numbers(
        self, strategy: StepStrategy, values: Tensor, numbers: list[float], positives: Tensor | None
    ) -> Tensor:
        """`_weigh_step` by the host's arithmetic.

        Args:
            numbers: those of `values`.
        """
        host, k = self._host, len(self.levels)
        losses = numbers if len(numbers) == k else [sum(numbers[level::k]) for level in range(k)]
        if ranks() > 1:
            mean, positives = average_ranks(tensor_of(losses, torch.float64), positives)
            losses = mean.tolist()
        if not math.isfinite(sum(losses)):
            return torch.dot(values, self._constant(self.weights, values))
        seen = None if positives is None else positives.tolist()
        step = Iteration.of_numbers(losses, seen, host.iterations + host.position)
        learned = self._learned_by_key() if self._parameter_names else {}
        own: Any = self._buffers
        state: Any = {key: Numbers(own[name].tolist()) for key, name in self._state_names.items()}
        for key, parameter in learned.items():
            state[key] = Numbers(parameter.tolist())
        weights, new, gradients = strategy.weigh(step, state, self._draw)
        numbers = weights.tolist()
        host.buffers["weights"](0, *numbers)
        for key, name in self._state_names.items():
            host.buffers[name](0, *new[key].tolist())
        total = torch.dot(values, tensor_of(numbers * len(self.terms), values.dtype))
        for key, parameter in learned.items():
            gradient = tensor_of(gradients[key].tolist(), parameter.dtype)
            total = _with_gradient(total, parameter, gradient)
        return total

    def _learned_by_key(self) -> dict[str, nn.Parameter]:
        """What the strategy learns."""
        own: Any = self._parameters
        return {key: own[name] for key, name in self._parameter_names.items()}

    # -- state -----------------------------------------------------------------------------------

    def _memory(self) -> Memory:
        own: Any = self._buffers  # attributes of a module are slow to read
        return Memory(
            own["intervals"], own["weights"], own["previous_loss"], own["previous_variance"], self._state()
        )

    def _write(self, memory: Any) -> None:
        """Into the buffers, a memory of numbers."""
        write = self._host.buffers
        write["intervals"](0, memory.interval)
        write["weights"](0, *memory.weights.values)
        write["previous_loss"](0, *memory.previous_loss.values)
        write["previous_variance"](0, *memory.previous_variance.values)
        for key, name in self._state_names.items():
            value = memory.strategy[key]
            write[name](0, *(value.values if isinstance(value, Numbers) else (value,)))

    def _state(self) -> dict[str, Tensor]:
        """What the strategy remembers."""
        own: Any = self._buffers
        return {key: own[name] for key, name in self._state_names.items()}

    def _filled(self) -> Tensor:
        """Iterations of this interval so far, int64 scalar on the device."""
        return (self._losses[:, 0, 0] != EMPTY).sum()

    def synchronize(self) -> None:
        """Gather every rank's part of the unfinished interval, for the next `state_dict`.

        A collective: all ranks call it before rank 0 saves a checkpoint. Without it a checkpoint has
        only the losses that rank 0 saw since the last interval's end. Does nothing without a process
        group, or with one process.
        """
        if ranks() > 1:
            self._host.gathered = gather_unfinished(self._losses, self._positives)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        unfinished = self._host.gathered
        if unfinished is None or not is_current(unfinished, self._losses):
            unfinished = Unfinished(self._losses.unsqueeze(0), self._positives.unsqueeze(0))
        destination[prefix + "losses"] = unfinished.losses
        destination[prefix + "positives"] = unfinished.positives

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        for name, own in (("losses", self._losses), ("positives", self._positives)):
            saved = state_dict.pop(prefix + name, None)
            if saved is None:
                if strict:
                    missing_keys.append(prefix + name)
            elif tuple(saved.shape[1:]) != tuple(own.shape):
                error_msgs.append(
                    f"{prefix}{name} should have the shape [ranks, {', '.join(map(str, own.shape))}] of this "
                    f"interval, terms and levels. Found {list(saved.shape)}."
                )
            else:
                with torch.no_grad():
                    own.copy_(part_of_rank(saved, summed=name == "positives"))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self._report.zero_()
        self._host = HostView()
        self._host.counts = False

    def __getstate__(self) -> dict[str, Any]:
        # A copy starts with the state alone: reports on their way belong to the original.
        host = HostView()
        host.counts = False
        return {**self.__dict__, "_host": host, "_captured": False}

    def _apply(self, fn: Any, recurse: bool = True) -> Balancer:
        # `model.half()` must not take the statistics with it: only the device may change.
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved: Tensor = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]
        self._losses = keep_dtype(self._losses)
        self._positives = keep_dtype(self._positives)
        self._report = keep_dtype(self._report)
        self._host.scale = self._host.gathered = self._host.write = None
        self._host.rows = ()
        return self

    def extra_repr(self) -> str:
        return f"{self.group}: {', '.join(self.levels)}; {self.strategy}; interval={self.interval}"

    # -- reports ---------------------------------------------------------------------------------

    @property
    def iteration(self) -> int:
        """Iterations so far. Waits for the device."""
        return int(self.intervals) * self.interval + int(self._filled())

    def reports(self, wait: bool = False) -> list[IntervalReport]:
        """The reports that have arrived since the last call, oldest first.

        Args:
            wait: wait for those still on their way (a synchronisation).

        Raises:
            RuntimeError: where the ranks have not counted the same intervals.
        """
        host = self._host
        if host.counts and not host.outbox:
            return []
        if not host.counts and (wait or not host.outbox):
            # A compiled or captured step does not say when an interval ends: ask for what it has left.
            host.outbox.send(self._report.clone())
        return host.outbox.take(self._layout, host.knows_positives, wait)

    def drain(self, wait: bool = False) -> list[IntervalRecord]:
        """The records of `reports`."""
        return [report.record for report in self.reports(wait)]

    def nonfinite(self) -> tuple[NonFinite, ...]:
        """Name this process's NaN and infinite losses of the last iteration. Waits for the device."""
        if self._host.last is None:
            return ()
        rank = dist.get_rank() if ranks() > 1 else 0
        losses = torch.as_tensor(self._host.last, dtype=torch.float64).view(
            1, 1, len(self.terms), len(self.levels)
        )
        return find_nonfinite(losses, self.levels, self.terms, self.iteration - 1, rank)


def _pairs(old: Memory, new: Memory) -> list[tuple[Tensor, Tensor]]:
    """What changes in place, with what it becomes. In place: a captured graph knows addresses."""
    return [
        (old.weights, new.weights),
        (old.interval, new.interval),
        (old.previous_loss, new.previous_loss),
        (old.previous_variance, new.previous_variance),
        *((value, new.strategy[key]) for key, value in old.strategy.items()),
    ]


def _with_gradient(total: Tensor, parameter: Tensor, gradient: Tensor) -> Tensor:
    """`total` as it is, through which `parameter` receives `gradient`."""
    return total + torch.dot(parameter - parameter.detach(), gradient).to(total.dtype)


def _replace(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Copy each second tensor into its first, in one call."""
    torch._foreach_copy_([old for old, _ in pairs], [new for _, new in pairs])
