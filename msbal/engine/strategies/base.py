"""What a strategy is: statistics in, weights out, as pure functions.

A strategy is a frozen dataclass of hyperparameters. Whatever it remembers is a dictionary of tensors
that the balancer holds as buffers and hands back to it, so that devices, checkpoints, compilation and
graph capture are the balancer's business alone. To add one: write one file with a subclass and put
``@register`` on it (or name the class in your own package's entry point group ``msbal.strategies``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache
from importlib import metadata
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from msbal.engine.draw import Draw
from msbal.engine.numbers import Numbers
from msbal.engine.statistics import IntervalStatistics
from msbal.engine.weighting import empty_levels

ENTRY_POINT_GROUP = "msbal.strategies"

State: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True)
class Strategy(ABC):
    """Decides the weights at the end of every interval.

    No method may wait for the device or branch on a tensor's value.

    Attributes:
        on_numbers: the class's methods use of their vectors nothing but what `Numbers` has, so that on the CPU
            the host may hand them those, and Python's numbers for scalars. They return what they were given.
    """

    name: ClassVar[str] = ""
    on_numbers: ClassVar[bool] = False

    def takes_numbers(self) -> bool:
        """Whether the host may hand it `Numbers`: a subclass says `on_numbers` anew for its own methods."""
        return bool(vars(type(self)).get("on_numbers"))

    def check(self, levels: int) -> None:  # noqa: B027
        """Refuse a number of levels that the strategy cannot work with.

        Raises:
            ValueError: naming the field, what was found and what was expected.
        """

    def initial_state(self, levels: int) -> dict[str, Tensor]:
        """What the strategy remembers, before the first interval.

        Three names mean something to the records: ``action`` (int64 scalar, -1 before the first),
        ``reward`` (float64 scalar) and ``probabilities`` (``[actions]``, float64).
        """
        return {}

    def initial_weights(self, levels: int) -> Tensor:
        """``[K]`` weights of the first interval, float64."""
        return torch.ones(levels, dtype=torch.float64)

    @property
    def action_names(self) -> tuple[str, ...]:
        """What ``action`` indexes; empty for a strategy that has no choice."""
        return ()

    @abstractmethod
    def decide(self, statistics: IntervalStatistics, state: State, draw: Draw) -> tuple[Tensor, State]:
        """The ``[K]`` float64 weights of the next interval, and the new state."""


class Iteration(NamedTuple):
    """What a `StepStrategy` may look at. For one that takes them, `Numbers` stand in the tensors' stead.

    Attributes:
        losses: ``[K]`` float64, detached, over all terms; averaged over ranks.
        positives: ``[K]``, summed over ranks, or None where the seam cannot tell.
        empty: ``[K]`` mask of the levels that a ratio of losses says nothing about, see
            `msbal.engine.weighting.empty_levels`; None where the host sees that there are none, so that
            nothing has to be masked.
        step: gives the number of iterations before this one, an int64 scalar (or an int).
    """

    losses: Tensor
    positives: Tensor | None
    empty: Tensor | None
    step: Callable[[], Tensor]

    @classmethod
    def of_numbers(cls, losses: list[float], positives: list[float] | None, step: int) -> Iteration:
        """On the host; `losses` are finite."""
        own: Any = Numbers(losses)
        seen: Any = None if positives is None else Numbers(positives)
        any_empty = min(losses) <= 0 or (positives is not None and min(positives) <= 0)
        return cls(own, seen, empty_levels(own, seen) if any_empty else None, cast(Any, lambda: step))


class Weighing(NamedTuple):
    """What a `StepStrategy` makes of one iteration.

    Attributes:
        weights: ``[K]`` float64.
        state: the new state, without the parameters.
        gradients: what each parameter receives when the total is differentiated, ``[K]`` float64.
    """

    weights: Tensor
    # No one writes into these; a read-only proxy would break torch 2.4's tracer.
    state: State = {}  # noqa: RUF012
    gradients: State = {}  # noqa: RUF012


@dataclass(frozen=True)
class StepStrategy(Strategy):
    """Weighs anew at every iteration, from that iteration's losses."""

    def initial_parameters(self, levels: int) -> dict[str, Tensor]:
        """Learned tensors, ``[K]``: parameters of the balancer, which the optimizer has to be given."""
        return {}

    @abstractmethod
    def weigh(self, iteration: Iteration, state: State, draw: Draw) -> Weighing:
        """Weights of this iteration.

        Of an iteration with a loss that is not finite nothing is kept, whatever this returns.

        Args:
            state: the strategy's state, and its parameters, detached, in float64.
        """

    def decide(self, statistics: IntervalStatistics, state: State, draw: Draw) -> tuple[Tensor, State]:
        return statistics.weights, state


_REGISTRY: dict[str, type[Strategy]] = {}
_S = TypeVar("_S", bound=type[Strategy])


def register(strategy: _S) -> _S:
    """Class decorator: make a strategy known under its ``name``.

    Raises:
        ValueError: where another class has the name already.
    """
    if not (isinstance(strategy, type) and issubclass(strategy, Strategy) and is_dataclass(strategy)):
        raise ValueError(f"A strategy should be a dataclass and a subclass of Strategy. Found {strategy!r}.")
    if not strategy.name:
        raise ValueError(f"{strategy.__name__}.name should be a non-empty string. Found ''.")
    known = _REGISTRY.setdefault(strategy.name, strategy)
    # A module that is loaded again registers its strategy again.
    if (known.__module__, known.__qualname__) != (strategy.__module__, strategy.__qualname__):
        raise ValueError(
            f"Strategy name `{strategy.name}` should be free. Found it taken by {known.__module__}."
        )
    _REGISTRY[strategy.name] = strategy
    return strategy


@cache
def _broken_entry_points() -> dict[str, str]:
    """Load other packages' strategies; why each of those that cannot be used fails, by name.

    One broken package is no reason to refuse the strategies of all others.
    """
    broken = {}
    for point in metadata.entry_points(group=ENTRY_POINT_GROUP):
        if point.name in _REGISTRY:
            continue
        try:
            strategy = point.load()
            if getattr(strategy, "name", None) != point.name:
                raise ValueError(f"{point.value} is no strategy of the name `{point.name}`")
            register(strategy)
        except Exception as error:
            broken[point.name] = f"{type(error).__name__}: {error}"
    return broken


def available() -> dict[str, type[Strategy]]:
    """All strategies by name, those of other installed packages included."""
    _broken_entry_points()
    return dict(_REGISTRY)


def make(name: str, **options: object) -> Strategy:
    """A strategy from its name and hyperparameters.

    Raises:
        ValueError: where the name is unknown (listing what exists) or an option does not fit.
    """
    known = available()
    if name in _broken_entry_points():
        raise ValueError(f"strategy `{name}` fails to load: {_broken_entry_points()[name]}")
    if name not in known:
        raise ValueError(f"strategy should be one of {', '.join(sorted(known))}. Found `{name}`.")
    return known[name](**options)


def ones(statistics: IntervalStatistics) -> Tensor:
    """Unit weights, ``[K]``."""
    loss: Any = statistics.loss
    return cast(Tensor, Numbers([1.0] * loss.numel())) if isinstance(loss, Numbers) else torch.ones_like(loss)
