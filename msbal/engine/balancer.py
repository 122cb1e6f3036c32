"""The balancer: level losses in, one scalar out, new weights at every interval's end.

Shapes: A iterations of an interval (alpha), T terms, K levels, R ranks; n iterations of the interval under way.
"""

from __future__ import annotations

import warnings
import zlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from msbal.engine.compiling import outside_of_graphs
from msbal.engine.draw import generator
from msbal.engine.gradients import GradientError, LevelGradients, Parts, SpoiltGraphError
from msbal.engine.interval import IntervalReport, Measured, Memory, end_interval, find_nonfinite
from msbal.engine.losses import Losses, gather
from msbal.engine.processes import all_gather, rank, world_size
from msbal.engine.record import IntervalRecord, NonFinite
from msbal.engine.settings import Settings
from msbal.engine.statistics import EPSILON, Array
from msbal.engine.strategies.base import Strategy
from msbal.engine.strategies.step import StepStrategy, Tensors, Weighing, iteration_of, weigh

_FIXED = frozenset(Settings.__dataclass_fields__)


@dataclass
class _Call:
    """The weights of a call. Activation checkpointing repeats the call within the backward pass."""

    losses: Tensor  # [T * K], detached
    weights: Tensor  # [T * K], in the losses' dtype
    gradients: Tensors = field(default_factory=dict)  # of what is learned, by the parameter's name
    counted: bool = False


@dataclass
class _Now:
    """What changes from call to call. No buffers: DistributedDataParallel would overwrite each rank's with rank 0's."""

    memory: Memory  # as of the last interval's end
    rows: Tensor  # [A, T * K + K] float64: each iteration's losses, and its positives, NaN where unknown
    position: int  # n
    views: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # each row's losses, and its positives
    weights: Tensor | None = None  # [T * K] in force; never written in place: a pending backward has its own
    step: Weighing | None = None  # of a `StepStrategy`, by the last iteration
    draws: Tensor | None = None  # of a `StepStrategy`, for this interval
    gathered: Array | None = None  # [R, n, T * K + K], by `synchronize`
    learned: Array | None = None  # the parameters, at the last interval's end
    positives: bool = False  # whether there are any in the rows
    measured: Measured = field(default_factory=Measured)  # in this interval; alike on all ranks
    reports: deque[IntervalReport] = field(default_factory=deque)
    calls: deque[_Call] = field(default_factory=lambda: deque(maxlen=64))


class Balancer(nn.Module):
    """Weighs the losses of pyramid levels against each other: eq 1.

    Call it once an iteration. The scalar is the sum of all terms of all levels, each level times its weight. After
    every `interval` calls the strategy decides the weights from the next call on; gradients of earlier calls keep the
    weights that they were made with. Where gradients are off (``no_grad``, ``inference_mode``), and in evaluation mode
    (``eval()``), it weighs but neither counts nor decides.

    An iteration waits for nothing on the device, unless it measures gradients; the end of an interval waits once, for
    its losses. In a process group the losses of all ranks are gathered once an interval (for a `StepStrategy` at every
    iteration), and every rank decides the same; all ranks must call it equally often. Under `torch.compile` the graph
    breaks here.

    Args:
        levels: names, finest first.
        strategy: a ``Strategy``, or the name of one with its defaults.
        terms: names of the kinds of loss, the rows of the ``[T, K]`` losses.
        interval: alpha, iterations per interval, at least 2.
        seed: of the strategy's random draws.
        group: the name of these levels among others; draws of different groups are independent.
        epsilon: of eq 4.
        rescale: multiply the strategy's weights so that their sum is K, which leaves balancing without a larger
            learning rate.
        measure: measure the gradient of each level's loss in the first iteration and in every so many, which takes a
            partial backward pass for each level, and changes no bit of the training; by default only where the strategy
            decides by gradients, at each interval's end. Records then have norms and cosines.
        parameters: what it measures the gradients on: the model's parameters, or those of its parts by name. They do
            not become the balancer's own.

    Attributes:
        gradients: measures the gradients; what several balancers may share.

    Raises:
        ValueError: where an argument, or the number of levels, does not fit the strategy.
    """

    levels: tuple[str, ...]
    terms: tuple[str, ...]
    strategy: Strategy
    interval: int
    seed: int
    group: str
    epsilon: float
    rescale: bool
    measure: int | None
    gradients: LevelGradients | None

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
        rescale: bool = False,
        measure: int | None = None,
        parameters: Iterable[nn.Parameter] | Parts | LevelGradients | None = None,
    ) -> None:
        super().__init__()
        given: Any = (levels, terms, strategy, interval, seed, group, epsilon, rescale, measure)
        self._settings = Settings(*given)
        self.__dict__.update(vars(self._settings))
        self.gradients = None if parameters is None else LevelGradients.of(parameters)
        self._width = (len(self.terms) + 1) * len(self.levels)
        self._step = self.strategy if isinstance(self.strategy, StepStrategy) else None
        for key, value in self._initially_learned().items():
            self.register_parameter(f"strategy_{key}", nn.Parameter(torch.tensor(value)))
        self.reset_parameters()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED:
            raise AttributeError(f"Balancer.{name} is fixed: make a new balancer with {name}={value!r}.")
        super().__setattr__(name, value)

    def reset_parameters(self) -> None:
        """Start over: no interval has ended, and nothing has been learned."""
        self._begin(Memory.initial(self._settings))
        with torch.no_grad():
            for key, value in self._initially_learned().items():
                self.get_parameter(f"strategy_{key}").copy_(torch.tensor(value, device="cpu"))

    def _initially_learned(self) -> Mapping[str, list[float]]:
        return {} if self._step is None else self._step.initial_parameters(len(self.levels))

    def _begin(self, memory: Memory, rows: Sequence[Array] | Array = ()) -> None:
        """Continue from an interval's end, with the first n rows of the next interval."""
        padded = np.zeros((self.interval, self._width))
        padded[:, -len(self.levels) :] = np.nan
        padded[: len(rows)] = np.reshape(rows, (-1, self._width))
        now = _Now(memory, torch.from_numpy(padded), len(rows), positives=len(rows) > 0)
        if self._step is not None:
            state = {key: torch.from_numpy(np.array(value, float)) for key, value in memory.state.items()}
            now.step = Weighing(torch.from_numpy(np.array(memory.weights)), state)
        self._now = now

    # -- one iteration ---------------------------------------------------------------------------

    def forward(self, losses: Losses) -> Tensor:
        """Weigh one iteration's losses.

        Args:
            losses: anything that `msbal.engine.losses.gather` takes, unweighted.

        Returns:
            scalar, in float32 or better, whose gradient for each loss is its level's weight.

        Raises:
            ValueError: where names, shapes or devices do not fit, or the strategy lacks the positives.
            StrategyError: where the strategy fails. The call is then no iteration, and the interval stays open.
            GradientError: where gradients cannot be measured, in the first iteration; later they are left out.
        """
        return (self._outside if is_compiling() else self._weigh)(losses, apart=False)

    def weighted(self, losses: Losses) -> Tensor:
        """Weigh as `forward` does, but return ``[T, K]`` weighted losses, which add up to its value and gradient."""
        return (self._outside if is_compiling() else self._weigh)(losses, apart=True)

    @outside_of_graphs
    def _outside(self, losses: Losses, apart: bool) -> Tensor:
        return self._weigh(losses, apart)

    def _weigh(self, losses: Losses, apart: bool) -> Tensor:
        values, positives = gather(losses, self.terms, self.levels)
        call = self._call(values, positives)
        weights = call.weights
        total = (values * weights).view(len(self.terms), -1) if apart else torch.dot(values, weights)
        for name, gradient in call.gradients.items():
            parameter = self.get_parameter(name)
            # A zero that carries the gradient to the parameter.
            carried = torch.dot(parameter - parameter.detach(), gradient.to(parameter.dtype))
            total = total + carried.to(total.dtype) / total.numel()
        return total

    def _call(self, values: Tensor, positives: Tensor | None) -> _Call:
        """Find the weights of this call, and count it where gradients are on."""
        now, losses, counts = self._now, values.detach(), self.training and torch.is_grad_enabled()
        weights = now.weights
        if weights is None or weights.dtype is not values.dtype or weights.device != values.device:
            weights = self._prepare(values)
        call = new = _Call(losses, weights)
        if counts and torch._C._current_graph_task_id() >= 0:
            # Within a backward pass activation checkpointing repeats a call: it gets the weights of the first one, and
            # counts only if that did not (a reentrant checkpoint's first call is without gradients).
            call = next((earlier for earlier in reversed(now.calls) if _same(earlier.losses, losses)), new)
        elif self.training:
            now.calls.append(call)
        if not counts or call.counted:
            return call
        if values.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "Balancer: a CUDA graph's replays would not count; call it on what comes out of it."
            )
        call.counted = True  # measuring may repeat it
        step, measured = self._weigh_step(losses, positives), self._measure(values)
        row, known = now.views[now.position]
        row.copy_(losses)
        if positives is not None or now.positives:
            now.positives = True
            known.fill_(torch.nan) if positives is None else known.copy_(positives)
        now.gathered = None
        if now.position + 1 == self.interval:
            self._end_interval(step, measured)
        else:
            now.position, now.measured = now.position + 1, measured
        now.step = step
        if step is not None:
            weights = step.weights.to(values.dtype).repeat(len(self.terms))
            now.weights = weights if now.position else None
            if call is new:
                call.weights = weights
            call.gradients = {f"strategy_{key}": value for key, value in step.gradients.items()}
        return call

    def _measure(self, values: Tensor) -> Measured:
        """Measure the gradients of this iteration's ``[T * K]`` losses, where that is due; return the interval's."""
        measured = self._now.measured
        if self.measure is None or (self.iteration and (self.iteration + 1) % self.measure):
            return measured
        if self.gradients is None:
            raise ValueError(
                "parameters should be those to measure the gradients of levels on. Found none: make the balancer with "
                "parameters=model.parameters()."
            )
        try:
            if torch._C._current_graph_task_id() >= 0:
                raise GradientError("the losses are computed within a reentrant checkpoint()")
            return measured.plus(self.gradients.measure(values.view(len(self.terms), -1).sum(dim=0)))
        except (GradientError, torch.cuda.OutOfMemoryError) as error:
            first = self.iteration == 0 and isinstance(error, GradientError)
            if first or isinstance(error, SpoiltGraphError):
                fix = (
                    "choose a strategy that does not decide by gradients"
                    if self.strategy.needs_gradients
                    else "leave `measure` out"
                )
                raise GradientError(f"the levels' gradients cannot be measured: {error}; or {fix}") from None
            if self.gradients.failed <= 1:
                warnings.warn(
                    f"msbal: the levels' gradients were not measured in iteration {self.iteration + 1}, nor will they "
                    f"be where the same happens again: {error}",
                    stacklevel=2,
                )
            return measured

    def _weigh_step(self, losses: Tensor, positives: Tensor | None) -> Weighing | None:
        """Let a `StepStrategy` weigh this iteration."""
        now = self._now
        if self._step is None or now.step is None:
            return None
        if self._step.needs_positives and positives is None:
            raise ValueError(f"losses lack the positives of each level, which `{self.strategy.name}` needs.")
        by_level = losses.view(len(self.terms), -1).sum(dim=0, dtype=torch.float64)
        draws = None if now.draws is None else now.draws[now.position]
        iteration = iteration_of(by_level, positives, draws)
        return weigh(self._step, iteration, now.step, self._learned(), self.rescale)

    def _prepare(self, values: Tensor) -> Tensor:
        """Bring everything to the losses' device and dtype."""
        now, device, terms = self._now, values.device, len(self.terms)
        with torch.inference_mode(False):  # these tensors outlive an evaluation in inference mode
            now.rows = now.rows.to(device, copy=True)  # copied, for shallow copies of the module
            count = len(values)
            now.views = list(zip(now.rows[:, :count].unbind(), now.rows[:, count:].unbind(), strict=True))
            if self._parameters:
                self.to(device)
            if self._step is None or now.step is None:
                now.weights = _upload(np.tile(now.memory.weights, terms), device, values.dtype)
                return now.weights
            state = {key: value.to(device) for key, value in now.step.state.items()}
            now.step = Weighing(now.step.weights.to(device), state)
            now.weights = now.step.weights.to(values.dtype).repeat(terms)
            rng = generator(self.seed, self.group, now.memory.interval + 1)
            draws = self._step.draws(rng, self.interval, len(self.levels))
            now.draws = None if draws is None else _upload(draws, device)
            return now.weights

    def _end_interval(self, step: Weighing | None, measured: Measured) -> None:
        now, memory, own = self._now, self._now.memory, rank()
        parts = [now.rows.flatten(), *([] if step is None else [step.weights, *self._learned().values()])]
        if world_size() > 1:
            mark = np.array([self.intervals, zlib.crc32(repr(self._settings.identity()).encode())])
            parts.append(_upload(mark, now.rows.device))
        # The one wait in an interval: everything that the host needs, in one copy.
        found = all_gather(torch.cat(parts)).to("cpu").numpy()
        if world_size() > 1 and (found[:, -2:] != found[0, -2:]).any():
            raise RuntimeError(
                f"Balancer `{self.group}`: the processes have counted different numbers of intervals, or their "
                f"balancers differ (in the seed?). Make and load them alike on all, and call them equally often."
            )
        rows, others = np.split(found, [now.rows.numel()], axis=1)
        losses, positives = self._split(rows.reshape(-1, *now.rows.shape))
        if step is not None:
            k, last = len(self.levels), now.learned
            memory = replace(memory, weights=others[own, :k].tolist())
            now.learned = others[own, k : k + k * len(step.gradients)]
            if now.learned.size and last is not None and (now.learned == last).all():
                warnings.warn(
                    f"msbal: strategy `{self.strategy.name}` of `{self.group}` learns nothing: its parameters did not "
                    f"move in a whole interval. Give the balancer's parameters() to the optimizer.",
                    stacklevel=2,
                )
        now.memory, report = end_interval(self._settings, memory, losses, positives, measured)
        now.reports.append(report)
        now.position, now.weights, now.measured = 0, None, Measured()

    def _learned(self) -> dict[str, Tensor]:
        """Return the parameters, detached in float64, by the strategy's names."""
        found = {key.removeprefix("strategy_"): value for key, value in self._parameters.items()}
        return {key: value.detach().to(torch.float64) for key, value in found.items() if value is not None}

    def _split(self, rows: Array) -> tuple[Array, Array | None]:
        """Split ``[R, n, T * K + K]`` into losses ``[R, n, T, K]`` and positives ``[K]``, summed; None if unknown."""
        losses, positives = np.split(rows, [len(self.terms) * len(self.levels)], axis=2)
        shape = (*rows.shape[:2], len(self.terms), len(self.levels))
        return losses.reshape(shape), None if np.isnan(positives).all() else np.nansum(positives, axis=(0, 1))

    # -- state -----------------------------------------------------------------------------------

    def synchronize(self) -> None:
        """Gather every rank's part of the unfinished interval, for the next `state_dict`.

        A collective: all ranks call it before rank 0 saves a checkpoint, which otherwise has only rank 0's losses since
        the last interval's end. A no-op in a single process. Raises: RuntimeError, where the ranks have not counted
        the same iterations.
        """
        now = self._now
        if world_size() == 1 or now.position == 0 or now.gathered is not None:
            return
        mark = _upload(np.array([self.iteration]), now.rows.device)
        found = all_gather(torch.cat([now.rows.flatten(), mark])).to("cpu").numpy()
        if (found[:, -1] != found[0, -1]).any():
            counts = found[:, -1].astype(int).tolist()
            raise RuntimeError(
                f"Balancer `{self.group}`: the processes have counted {counts} iterations; call it equally often."
            )
        now.gathered = found[:, :-1].reshape(-1, *now.rows.shape)[:, : now.position]

    def get_extra_state(self) -> dict[str, Any]:
        """Return all but the parameters: plain numbers, ``rows`` of the unfinished interval, ``of`` which balancer."""
        now, memory = self._now, self._now.memory
        if now.step is not None:
            state = {key: value.tolist() for key, value in now.step.state.items()}
            memory = replace(memory, weights=now.step.weights.tolist(), state=state)
        rows = (
            now.rows[None, : now.position].cpu() if now.gathered is None else torch.from_numpy(now.gathered)
        )
        measured = {"measured": now.measured.plain()} if now.measured.count else {}
        return {"of": self._settings.identity(), "rows": rows.clone(), **asdict(memory), **measured}

    def set_extra_state(self, saved: Any) -> None:
        """Continue from a saved state.

        Raises:
            RuntimeError: where it belongs to a balancer with other settings, or is no state at all.
        """
        try:
            self._settings.refuse_others(dict(saved["of"]))
            memory, rows = Memory.loaded(saved, len(self.levels)), saved["rows"].numpy()
            count, length, width = rows.shape
            if count == 0 or length >= self.interval or width != self._width:
                raise ValueError(f"rows of the shape {list(rows.shape)}")
            if count != world_size():  # each of another number of ranks takes an equal part
                rows = rows.mean(axis=0, keepdims=True).repeat(world_size(), axis=0)
                rows[..., -len(self.levels) :] *= count / world_size()  # positives are summed over ranks
            measured = saved.get("measured")
            self._begin(memory, rows[rank()])
            self._now.measured = (
                Measured() if measured is None else Measured.loaded(measured, len(self.levels))
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RuntimeError(f"Balancer `{self.group}`: the saved state is damaged: {error!r}") from error
        self._now.gathered = rows

    def __getstate__(self) -> dict[str, Any]:
        # A copy continues alike, but pending calls and reports belong to the original.
        now = replace(self._now, weights=None, views=[], reports=deque(), calls=deque(maxlen=64))
        return {**self.__dict__, "_now": now}

    def _apply(self, fn: Any, recurse: bool = True) -> Balancer:
        # `model.half()` must not convert the parameters: only the device may change.
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved: Tensor = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        meta = any(parameter.is_meta for parameter in self.parameters())
        super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]
        if meta and not any(parameter.is_meta for parameter in self.parameters()):
            self.reset_parameters()  # `to_empty` leaves whatever was in memory
        return self

    def _replicate_for_data_parallel(self) -> Balancer:
        raise RuntimeError(
            "Balancer: nn.DataParallel's replicas would each count; use DistributedDataParallel, or call it outside."
        )

    # -- what can be seen ------------------------------------------------------------------------

    @property
    def weights(self) -> Tensor:
        """The weights in force: ``[K]`` float64, on the device of the last losses."""
        now = self._now
        return (
            _upload(np.array(now.memory.weights), now.rows.device) if now.step is None else now.step.weights
        )

    @property
    def device(self) -> torch.device:
        """The device of the last losses."""
        return self._now.rows.device

    @property
    def intervals(self) -> int:
        """The number of intervals that have ended."""
        return self._now.memory.interval

    @property
    def iteration(self) -> int:
        """The number of iterations counted."""
        return self.intervals * self.interval + self._now.position

    def reports(self) -> list[IntervalReport]:
        """Return the intervals that have ended since the last call, oldest first."""
        reports, self._now.reports = list(self._now.reports), deque()
        return reports

    def drain(self) -> list[IntervalRecord]:
        """Return the records of `reports`."""
        return [report.record for report in self.reports()]

    def so_far(self) -> IntervalRecord | None:
        """Return a record of this process's iterations since the last interval's end, None where there are none.

        It decides nothing. Waits for the device.
        """
        now = self._now
        if now.position == 0:
            return None
        losses, positives = self._split(now.rows[None, : now.position].cpu().numpy())
        _, report = end_interval(self._settings, now.memory, losses, positives, now.measured, decides=False)
        return replace(report.record, iteration=self.iteration)

    def nonfinite(self) -> tuple[NonFinite, ...]:
        """Name this process's NaN and infinite losses of the last iteration. Waits for the device."""
        row = self._now.rows[None, None, self._now.position - 1].cpu().numpy()
        return find_nonfinite(self._settings, self._split(row)[0], self.iteration - 1, rank())


def _upload(array: Array, device: torch.device, dtype: torch.dtype = torch.float64) -> Tensor:
    """Copy an array to the device, without waiting."""
    tensor = torch.from_numpy(array.copy()).to(dtype)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def _same(one: Tensor, other: Tensor) -> bool:
    """Return whether all numbers are equal, NaN being NaN. Waits for the device."""
    alike = one.dtype is other.dtype and one.device == other.device
    return alike and torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True)
