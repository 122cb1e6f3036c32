"""What every seam shares: its place in the model, and the sums per level.

Shapes: N images, R anchors (or points) of an image over all levels, K levels, P rows (samples) of a batch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msbal.backend import LevelGroup
from msbal.engine.losses import LevelLosses
from msbal.errors import SpecError

_SEAM = "_msbal_seam"


class Seam(ABC):
    """Takes the place of ``losses`` on one or more modules of a model.

    The stand-in keeps what it computes for `take` and returns an empty dict, so that detectron2 has nothing
    of this head to add up. It is bound to the module, not to this object: a deep copy of the model (an EMA, say)
    computes with its own parameters.

    Attributes:
        group: the levels and terms.
        keys: detectron2's name of each term in its loss dict, in the order of ``group.terms``.
    """

    method: ClassVar[str] = "losses"

    def __init__(self, owners: Sequence[nn.Module], group: LevelGroup, keys: Sequence[str]) -> None:
        self.owners, self.group, self.keys = tuple(owners), group, tuple(keys)
        self._parts: list[LevelLosses] = []

    @staticmethod
    @abstractmethod
    def split(module: Any, seam: Any, *args: Any) -> LevelLosses:
        """The stand-in: ``module`` and ``*args`` are those of detectron2's method."""

    def install(self) -> None:
        """Put the stand-ins in place."""
        for owner in self.owners:
            owner.__dict__[_SEAM] = self
            owner.__dict__[self.method] = MethodType(_stand_in, owner)

    def remove(self) -> None:
        """Give the modules their own methods back."""
        for owner in self.owners:
            owner.__dict__.pop(self.method, None)
            owner.__dict__.pop(_SEAM, None)

    @property
    def installed(self) -> bool:
        """Whether the stand-ins are in place."""
        return _SEAM in self.owners[0].__dict__

    def clear(self) -> None:
        """Forget what an interrupted forward pass left behind."""
        self._parts.clear()

    def take(self) -> LevelLosses:
        """The ``[T, K]`` losses of the forward pass that has just ended.

        Raises:
            RuntimeError: where the model did not compute this head's losses.
        """
        parts, self._parts = self._parts, []
        if len(parts) != len(self.owners):
            raise RuntimeError(
                f"{self.group.head} computed its losses {len(parts)} times in a forward pass, "
                f"not {len(self.owners)}: the model does not call it as detectron2's own do"
            )
        if len(parts) == 1:
            return parts[0]
        positives = [part.positives for part in parts if part.positives is not None]
        return LevelLosses(
            torch.cat([part.values for part in parts]),
            torch.stack(positives).sum(dim=0) if positives else None,
        )


def _stand_in(module: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
    seam: Seam = module.__dict__[_SEAM]
    seam._parts.append(seam.split(module, seam, *args, **kwargs))
    return {}


def level_names(strides: Sequence[int]) -> tuple[str, ...]:
    """``P3`` for stride 8; ``S12`` for a stride that is no power of two."""
    names = []
    for stride in strides:
        power = math.log2(stride)
        names.append(f"P{int(power)}" if power.is_integer() else f"S{stride}")
    return tuple(names)


def check_levels(head: str, strides: Sequence[int]) -> None:
    """Refuse a head that has nothing to balance.

    Raises:
        SpecError: for fewer than two levels, or levels that are not ordered from fine to coarse.
    """
    if len(strides) < 2:
        raise SpecError(
            "model",
            f"{head} works on one level (stride {strides[0]})",
            "at least two pyramid levels to balance",
            "choose a config with an FPN",
        )
    if list(strides) != sorted(set(strides)):
        raise SpecError(
            "model",
            f"{head} has the strides {list(strides)}",
            "one level per stride, finest first",
            "order its input features by stride",
        )


def check_own(module: nn.Module, *methods: Callable[..., Any]) -> None:
    """Refuse a module whose class overrides what the seam stands in for: its loss may be another one.

    Raises:
        SpecError: naming the class and the method.
    """
    for method in methods:
        if getattr(type(module), method.__name__) is not method:
            raise SpecError(
                "model",
                f"{type(module).__name__} overrides {method.__qualname__}",
                "detectron2's own loss, which msbal knows how to split",
                "call msbal.Balancer on its level losses in your own code",
            )


def sum_levels(dense: Tensor, sizes: Sequence[int]) -> Tensor:
    """``[N, R]`` to ``[K]``: the sum over images and over each level's part of R."""
    return torch.stack([part.sum() for part in torch.split(dense, list(sizes), dim=1)])


def spread(rows: Tensor, where: tuple[Tensor, ...], shape: tuple[int, int]) -> Tensor:
    """Put ``[P]`` rows back at their (image, anchor) places: ``[N, R]``, zero elsewhere.

    The places differ, so that nothing is accumulated and the result is deterministic on CUDA.
    """
    return rows.new_zeros(shape).index_put(where, rows)
