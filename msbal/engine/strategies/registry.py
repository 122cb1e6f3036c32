"""Strategies by name: the paper's, the baselines, and those of other installed packages.

The modules in `OWN_MODULES` are imported by name, at run time and on first use: that is how the engine knows the
baselines without depending on them.
"""

from __future__ import annotations

from dataclasses import is_dataclass
from functools import cache
from importlib import import_module
from typing import TypeVar

from msbal.engine.strategies.base import Strategy
from msbal.plugins import load_entry_points

ENTRY_POINT_GROUP = "msbal.strategies"
OWN_MODULES = ("msbal.engine.strategies.actions", "msbal.engine.strategies.rlo", "msbal.baselines")

_REGISTRY: dict[str, type[Strategy]] = {}
_S = TypeVar("_S", bound=type[Strategy])


def register(strategy: _S) -> _S:
    """Register a strategy by its name; a class decorator. Raises: ValueError, where another class has the name."""
    if not (isinstance(strategy, type) and issubclass(strategy, Strategy) and is_dataclass(strategy)):
        raise ValueError(f"A strategy should be a dataclass and a subclass of Strategy. Found {strategy!r}.")
    if not strategy.name:
        raise ValueError(f"{strategy.__name__}.name should be a non-empty string. Found ''.")
    known = _REGISTRY.get(strategy.name, strategy)
    # A module that is reloaded registers its strategy again.
    if (known.__module__, known.__qualname__) != (strategy.__module__, strategy.__qualname__):
        raise ValueError(
            f"Strategy name `{strategy.name}` should be free. Found it taken by {known.__module__}."
        )
    _REGISTRY[strategy.name] = strategy
    return strategy


@cache
def _load_all() -> dict[str, str]:
    """Load every strategy, which registers it; return by name why each unusable one fails."""
    for module in OWN_MODULES:
        import_module(module)
    return load_entry_points(ENTRY_POINT_GROUP, register, _REGISTRY)


def available() -> dict[str, type[Strategy]]:
    """Return all strategies by name."""
    _load_all()
    return dict(_REGISTRY)


def make(name: str, **options: object) -> Strategy:
    """Make a strategy from its name and hyperparameters.

    Raises:
        ValueError: where the name is unknown (listing what exists) or an option does not fit.
    """
    known, broken = available(), _load_all()
    if name in broken:
        raise ValueError(f"strategy `{name}` fails to load: {broken[name]}")
    if name not in known:
        raise ValueError(f"strategy should be one of {', '.join(sorted(known))}. Found `{name}`.")
    return known[name](**options)
