"""Where the losses of mmdet's heads are still apart by level, head class by head class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from msbal_mmdet.seams.base import HeadSeam, LevelTerm, level_names
from msbal_mmdet.seams.refused import REFUSED, REFUSED_MODELS

__all__ = [
    "REFUSED", "REFUSED_MODELS", "HeadSeam", "LevelTerm", "known", "level_names", "look_up", "register",
]  # fmt: skip

_REGISTRY: dict[str, type[HeadSeam]] = {}


def register(seam: type[HeadSeam]) -> type[HeadSeam]:
    """Make a seam known under its `heads`. Usable as a decorator, also outside this package."""
    for name in seam.heads:
        _REGISTRY[name] = seam
    return seam


def known() -> dict[str, type[HeadSeam]]:
    """All seams of dense heads by the head's class name."""
    _load()
    return dict(_REGISTRY)


def look_up(head: nn.Module) -> type[HeadSeam] | str | None:
    """How to split a head.

    Returns:
        its seam; or, as text, why it has none; or None where it is no head that anybody here knows.
    """
    _load()
    overridden = False
    for cls in type(head).__mro__:
        package = cls.__module__.partition(".")[0]
        seam = _REGISTRY.get(cls.__name__)
        if seam is not None and seam.package in (package, ""):
            if overridden:
                return (
                    f"it computes its loss in its own way (not as its base {cls.__name__}), which nobody "
                    "has told msbal about; see msbal_mmdet.seams.register"
                )
            return seam
        if cls.__name__ in REFUSED and package == "mmdet":
            return REFUSED[cls.__name__]
        overridden = overridden or "loss_by_feat" in vars(cls)
    return None


def _load() -> None:
    if "AnchorHead" in _REGISTRY:
        return
    from msbal_mmdet.seams import flattened, lists, mined, prime, solo, vlfusion

    for module in (lists, flattened, prime, mined, solo, vlfusion):
        for seam in _seams_of(module):
            for name in seam.heads:
                _REGISTRY.setdefault(name, seam)


def _seams_of(module: Any) -> Iterator[type[HeadSeam]]:
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, HeadSeam) and "heads" in vars(value):
            yield value
