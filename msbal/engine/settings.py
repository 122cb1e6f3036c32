"""The settings of a balancer, checked. They never change, and a state saved with other settings is refused."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from msbal.engine.strategies.base import Strategy, refuse_unless
from msbal.engine.strategies.registry import make


@dataclass(frozen=True)
class Settings:
    """The arguments of `msbal.engine.Balancer`."""

    levels: tuple[str, ...]
    terms: tuple[str, ...]
    strategy: Strategy
    interval: int
    seed: int
    group: str
    epsilon: float
    rescale: bool
    measure: int | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError, naming the argument, what was expected and what was found."""
        found: Any = self.strategy
        if isinstance(found, str):
            object.__setattr__(self, "strategy", make(found))
        refuse_unless(
            isinstance(self.strategy, Strategy), "strategy", "a Strategy or the name of one", repr(found)
        )
        for name, least in (("levels", 2), ("terms", 1)):
            names = getattr(self, name)
            listed = isinstance(names, Sequence) and not isinstance(names, str | bytes)
            fits = (
                listed
                and all(isinstance(n, str) and n for n in names)
                and len(set(names)) == len(names) >= least
            )
            words = f"at least {'two' if least == 2 else 'one'} different names in a list or tuple"
            refuse_unless(fits, name, words, repr(names))
            object.__setattr__(self, name, tuple(names))
        for name in ("interval", "seed"):
            number = getattr(self, name)
            whole = hasattr(number, "__index__") and not isinstance(number, bool)
            refuse_unless(whole, name, "a whole number", repr(number))
            object.__setattr__(self, name, operator.index(number))
        refuse_unless(self.interval >= 2, "interval", "at least 2 (one loss has no variance)", self.interval)
        if self.measure is None and self.strategy.needs_gradients:
            object.__setattr__(self, "measure", self.interval)
        if self.measure is not None:
            whole = hasattr(self.measure, "__index__") and not isinstance(self.measure, bool)
            refuse_unless(
                whole and self.measure >= 1, "measure", "a whole number above 0", repr(self.measure)
            )
            object.__setattr__(self, "measure", operator.index(self.measure))
        number = isinstance(self.epsilon, int | float) and 0 < self.epsilon < math.inf
        refuse_unless(number, "epsilon", "a number above 0", repr(self.epsilon))
        object.__setattr__(self, "strategy", self.strategy.of(self.levels))
        self.strategy.check(len(self.levels))

    def identity(self) -> dict[str, Any]:
        """Return what identifies a checkpoint: plain values, including the strategy's hyperparameters."""
        options = {f"strategy.{key}": repr(value) for key, value in asdict(self.strategy).items()}
        names = {"levels": list(self.levels), "terms": list(self.terms), "strategy": self.strategy.name}
        others = ["interval", "seed", "group", "epsilon", "rescale"]
        if self.strategy.needs_gradients:
            others.append("measure")  # of other strategies it changes no decision
        return names | options | {key: getattr(self, key) for key in others}

    def refuse_others(self, saved: Mapping[str, Any]) -> None:
        """Refuse a state that was saved with other settings. Raises: RuntimeError, naming the first difference."""
        own = self.identity()
        # An option that came after the state was saved: what has become its default was all there was.
        known = [option for option in fields(self.strategy) if option.default is not MISSING]
        defaults = {f"strategy.{option.name}": repr(option.default) for option in known}
        saved = defaults | dict(saved)
        for key in own | saved:
            if own.get(key) != saved.get(key):
                raise RuntimeError(
                    f"Balancer `{self.group}`: the saved state has {key} {saved.get(key)}, this balancer has "
                    f"{own.get(key)}; make it with the same {key}, or begin without the state."
                )
