"""A loss module that reduces to one value a level instead of one value.

Stands in for ``weight_reduce_loss`` of ``mmdet/models/losses/utils.py``: the elementwise loss and its
sample weights are the wrapped module's own, the sum is taken level by level, and average factor and
`loss_weight` are applied in the framework's order, so that each element's gradient comes from the same
operations on the same numbers, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from msbal_mmdet.seams.layout import on_first_level

SplitRows = Callable[[Tensor], Tensor]
"""``[rows, ...]`` elementwise losses -> ``[K]`` sums."""


class LevelReduction(nn.Module):
    """Takes a loss module's place while its head computes its losses.

    Args:
        inner: an mmdet loss: ``inner(pred, target, weight=None, avg_factor=None,
            reduction_override=None)`` with a ``loss_weight``.
        rows: given the call's arguments, how the elementwise losses divide into levels.
        num_levels: K.
    """

    def __init__(
        self, inner: nn.Module, rows: Callable[[tuple[Any, ...], dict[str, Any]], SplitRows], num_levels: int
    ) -> None:
        super().__init__()
        # Not a submodule: `inner` stays registered where it was, for state_dict() and parameters().
        object.__setattr__(self, "inner", inner)
        self._rows, self._num_levels = rows, num_levels

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["inner"], name)

    def forward(
        self, *args: Any, avg_factor: Any = None, reduction_override: str | None = None, **kwargs: Any
    ) -> Tensor:
        """The inner module's loss as ``[K]``; with ``reduction_override="none"`` just the inner one."""
        inner: Any = self.__dict__["inner"]
        if reduction_override == "none":
            return inner(*args, avg_factor=avg_factor, reduction_override="none", **kwargs)  # type: ignore[no-any-return]
        reduction = reduction_override or inner.reduction
        scale, inner.loss_weight = inner.loss_weight, 1.0
        try:
            values = inner(*args, reduction_override="none", **kwargs)
        finally:
            inner.loss_weight = scale
        if values.dim() == 0:  # a module's short cut for "nothing to learn here"
            return on_first_level(values * scale, self._num_levels)
        sums = self._rows(args, {**kwargs, "avg_factor": avg_factor})(values)
        if reduction == "mean":
            sums = (
                sums / values.numel()
                if avg_factor is None
                else sums / (avg_factor + torch.finfo(torch.float32).eps)
            )
        return scale * sums


@contextmanager
def stand_in(owner: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Let `modules` take the place of `owner`'s submodules of those names."""
    before = {name: owner._modules[name] for name in modules}
    owner._modules.update(modules)
    try:
        yield
    finally:
        owner._modules.update(before)


@contextmanager
def listen(owner: Any, method: str, hear: Callable[[Any], None]) -> Iterator[None]:
    """Pass everything that ``owner.method(...)`` returns to `hear`."""
    original = getattr(owner, method)

    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        hear(result)
        return result

    with replace_method(owner, method, call):
        yield


@contextmanager
def replace_method(owner: Any, method: str, replacement: Callable[..., Any]) -> Iterator[None]:
    """Let `replacement` answer ``owner.method(...)``."""
    had = method in vars(owner)
    before = vars(owner).get(method)
    setattr(owner, method, replacement)
    try:
        yield
    finally:
        if had:
            setattr(owner, method, before)
        else:
            delattr(owner, method)
