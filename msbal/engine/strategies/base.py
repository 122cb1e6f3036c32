"""What a strategy is: a pure function on NumPy arrays, from the statistics of an interval to weights.

To add one, write a subclass with ``@register`` on it, or name it in your package's entry point group
``msbal.strategies``. `msbal.testing.strategies` has the tests that it should pass.
"""

from __future__ import annotations

import json
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from msbal.engine.statistics import Array, IntervalStatistics

State: TypeAlias = Mapping[str, Any]
"""What a strategy remembers: numbers, strings, None, and lists and dictionaries of them, by name."""

Decision: TypeAlias = tuple[Array, State]
"""``[K]`` weights and the new state."""


class StrategyError(RuntimeError):
    """A strategy failed, or returned something that is no decision; the text names it."""


@dataclass(frozen=True)
class Strategy(ABC):
    """Decides the weights at the end of every interval.

    A frozen dataclass of hyperparameters; what changes while training is the state, which the balancer holds and saves.
    """

    name: ClassVar[str] = ""
    needs_gradients: ClassVar[bool] = False
    """Whether it decides by `IntervalStatistics.gradients`. They are then measured at each interval's end, or by the
    balancer's `measure`; it should keep the weights in an interval without."""

    def of(self, levels: Sequence[str]) -> Strategy:
        """Return the strategy for levels of these names, finest first; most strategies need only their number.

        Raises: ValueError, for names that it cannot work with, see `refuse_unless`.
        """
        return self

    def check(self, levels: int) -> None:  # noqa: B027
        """Refuse a number of levels that the strategy cannot work with. Raises: ValueError, see `refuse_unless`."""

    def initial_state(self, levels: int) -> State:
        """Return what the strategy remembers before the first interval.

        Records show ``action`` (what was chosen last), ``reward`` (-1, 0, 1) and ``probabilities`` (by action).
        """
        return {}

    def initial_weights(self, levels: int) -> Array:
        """Return the ``[K]`` weights of the first interval."""
        return np.ones(levels)

    @abstractmethod
    def decide(self, statistics: IntervalStatistics, state: State, rng: np.random.Generator) -> Decision:
        """Return the ``[K]`` weights of the next interval, and the new state. Change no argument.

        `rng` is new for each interval, and draws the same on every rank and after a resume. Not called for an interval
        whose loss or variance is not finite.
        """


def decide(
    strategy: Strategy, statistics: IntervalStatistics, state: State, rng: np.random.Generator, rescale: bool
) -> tuple[Array, dict[str, Any]]:
    """Call `Strategy.decide` and check the result; with `rescale` the weights' sum is K.

    Raises: StrategyError, where it fails or returns anything but K finite weights of at least 0 and a plain state.
    """
    levels = len(statistics.loss)
    with naming(strategy, f"decide() at interval {statistics.interval}"):
        found = strategy.decide(statistics, state, rng)
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)):
            raise TypeError(f"a pair was expected, weights [{levels}] and state, not {reprlib.repr(found)}")
        weights = checked(found[0], levels)
        return (rescaled(weights) if rescale else weights), plain(found[1])


def checked(weights: Any, levels: int) -> Array:
    """Return ``[K]`` weights. Raises: TypeError or ValueError, where they are anything else."""
    if not (isinstance(weights, np.ndarray) and weights.shape == (levels,) and weights.dtype.kind in "fiu"):
        raise TypeError(f"a NumPy array of {levels} weights was expected, not {reprlib.repr(weights)}")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ValueError(f"weights should be finite, at least 0 and not all 0. Found {weights.tolist()}")
    return weights.astype(np.float64)


@contextmanager
def naming(strategy: Strategy, what: str) -> Iterator[None]:
    """Say which strategy failed, and where. Raises: StrategyError, from any exception within."""
    try:
        yield
    except Exception as error:
        raise StrategyError(
            f"strategy `{strategy.name}` failed in {what}: {type(error).__name__}: {error}"
        ) from error


def rescaled(weights: Array) -> Array:
    """Return the weights times one factor, so that their sum is K."""
    return np.asarray(weights * (len(weights) / weights.sum()))


def plain(state: State) -> dict[str, Any]:
    """Return the state in Python's own numbers, strings, lists and dictionaries, which any checkpoint can hold."""
    found: dict[str, Any] = json.loads(json.dumps(dict(state), default=lambda value: value.tolist()))
    return found


def refuse_unless(fits: bool, name: str, expected: str, found: object) -> None:
    """Check a hyperparameter. Raises: ValueError, where it does not fit."""
    if not fits:
        raise ValueError(f"{name} should be {expected}. Found {found}.")
