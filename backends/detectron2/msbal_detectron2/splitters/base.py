"""What every loss splitter shares: detectron2's own form of a loss, and the sums per level.

Shapes: N images, R anchors (or points) of an image over all levels, K levels, T terms, P rows (samples) of a batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from msbal.backend import LevelGroup
from msbal.backend.kit.splitter import LossSplitter, Split, level_names, require_levels
from msbal.engine.losses import LevelLosses
from msbal.errors import SpecError

# RetinaNet and FCOS divide by a moving average of the positives. detectron2 keeps it as a plain attribute
# of the model and forgets it on a resume.
_NORMALIZER = "loss_normalizer"


class DictSplitter(LossSplitter):
    """Stands for a ``losses`` method, which returns a dict of T scalars."""

    method = "losses"

    @abstractmethod
    def level_losses(self, *args: Any, **kwargs: Any) -> LevelLosses:
        """``[T, K]``; the arguments are those of detectron2's method."""

    def split(self, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Split:
        """See `LossSplitter`."""
        return Split(self.level_losses(*args, **kwargs), self.named)

    def aside(self) -> AbstractContextManager[Any]:
        """detectron2's losses log into the storage on top of a global stack."""
        return EventStorage()  # type: ignore[no-any-return]


class NormalizedSplitter(DictSplitter):
    """One whose loss is divided by a moving average."""

    def state(self) -> dict[str, Any]:
        """See `LossSplitter`."""
        return {_NORMALIZER: getattr(self.owner, _NORMALIZER, None)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `LossSplitter`; None is that of a model that has not been trained yet."""
        vars(self.owner).pop(_NORMALIZER, None)
        if state.get(_NORMALIZER) is not None:
            setattr(self.owner, _NORMALIZER, state[_NORMALIZER])


def level_group(name: str, head: nn.Module, strides: Sequence[int], terms: Sequence[str]) -> LevelGroup:
    """The levels of a head.

    Raises:
        SpecError: for fewer than two levels, or levels that are not ordered from fine to coarse.
    """
    found = type(head).__name__
    require_levels(found, strides)
    if list(strides) != sorted(set(strides)):
        raise SpecError(
            "model", f"{found} has the strides {list(strides)}", "one level per stride, finest first",
            "order its input features by stride",
        )  # fmt: skip
    return LevelGroup(name, found, level_names(strides), tuple(strides), tuple(terms))


def check_own(module: nn.Module, *methods: Callable[..., Any]) -> None:
    """Refuse a module that overrides what the splitter stands for, in its class or on itself: its loss is another one.

    Raises:
        SpecError: naming the class and the method.
    """
    for method in methods:
        own = method.__name__ in vars(module)
        if own or getattr(type(module), method.__name__) is not method:
            found = f"a {type(module).__name__} on which" if own else f"{type(module).__name__} overrides"
            raise SpecError(
                "model",
                f"{found} {method.__qualname__}" + " was replaced" * own,
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
