"""How the losses of mmdet's heads are split by level, head class by head class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from msbal_mmdet.splitters.base import HeadSplitter
from msbal_mmdet.splitters.refused import REFUSED, REFUSED_MODELS

__all__ = ["REFUSED", "REFUSED_MODELS", "HeadSplitter", "known", "look_up", "look_up_in", "register"]

_REGISTRY: dict[str, type[HeadSplitter]] = {}


def register(splitter: type[HeadSplitter]) -> type[HeadSplitter]:
    """Make a splitter known under its `heads`. Usable as a decorator, also outside this package."""
    for name in splitter.heads:
        _REGISTRY[name] = splitter
    return splitter


def known() -> dict[str, type[HeadSplitter]]:
    """All splitters of dense heads by the head's class name."""
    _load()
    return dict(_REGISTRY)


def look_up(head: nn.Module) -> type[HeadSplitter] | str | None:
    """How to split a dense head.

    Returns:
        its splitter; or, as text, why it has none; or None where it is no head that anybody here knows.
    """
    return look_up_in(known(), head)


def look_up_in(known: dict[str, type[HeadSplitter]], head: nn.Module) -> type[HeadSplitter] | str | None:
    """`look_up` among these splitters."""
    overridden: set[str] = set()
    for cls in type(head).__mro__:
        package = cls.__module__.partition(".")[0]
        splitter = known.get(cls.__name__)
        if splitter is not None and splitter.package in (package, ""):
            own = sorted(overridden & {splitter.method, *splitter.called})
            if own:
                return (
                    f"it computes its loss in its own way ({own[0]} is not that of its base {cls.__name__}), which "
                    "nobody has told msbal about; see msbal_mmdet.splitters.register"
                )
            return splitter
        if cls.__name__ in REFUSED and package == "mmdet":
            return REFUSED[cls.__name__]
        overridden |= set(vars(cls))
    return None


def _load() -> None:
    if "AnchorHead" in _REGISTRY:
        return
    from msbal_mmdet.splitters import flattened, lists, mined, prime, solo, vlfusion

    for module in (lists, flattened, prime, mined, solo, vlfusion):
        for splitter in _splitters_of(module):
            for name in splitter.heads:
                _REGISTRY.setdefault(name, splitter)


def _splitters_of(module: Any) -> Iterator[type[HeadSplitter]]:
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, HeadSplitter) and "heads" in vars(value):
            yield value
