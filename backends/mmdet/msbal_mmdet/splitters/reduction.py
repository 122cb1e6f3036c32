"""A loss module that reduces to one value a level instead of one value.

Stands in for ``weight_reduce_loss`` of ``mmdet/models/losses/utils.py``: the elementwise loss and its
sample weights are the wrapped module's own, the sum is taken level by level, and average factor and
`loss_weight` are applied in the framework's order, so that each element's gradient comes from the same
operations on the same numbers, bit for bit.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from msbal.errors import SpecError
from msbal_mmdet.splitters.rows import on_first_level

SplitRows = Callable[[Tensor], Tensor]
"""``[rows, ...]`` elementwise losses -> ``[K]`` sums."""


class LevelReduction(nn.Module):
    """Takes a loss module's place while its head computes its losses.

    Args:
        inner: an mmdet loss: ``inner(pred, target, weight=None, avg_factor=None,
            reduction_override=None)``, which multiplies by its ``loss_weight``, where it has one.
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
        reduction = reduction_override or getattr(inner, "reduction", "mean")
        scale = getattr(inner, "loss_weight", None)
        if scale is not None:
            inner.loss_weight = 1.0
        try:
            values = inner(*args, reduction_override="none", **kwargs)
        except (TypeError, ValueError) as error:
            what = f"{type(error).__name__} ({error}) where its losses row by row were asked for"
            raise _in_its_own_way(inner, what) from error
        finally:
            if scale is not None:
                inner.loss_weight = scale
        scale = 1.0 if scale is None else scale
        if not isinstance(values, Tensor):
            raise _in_its_own_way(inner, f"a {type(values).__name__}")
        if values.dim() == 0:
            return nothing_to_learn(values * scale, self._num_levels, inner)
        if args and values.numel() % max(1, len(args[0])):
            raise _in_its_own_way(inner, f"losses of the shape {list(values.shape)} for {len(args[0])} rows")
        sums = self._rows(args, {**kwargs, "avg_factor": avg_factor})(values)
        if reduction == "mean":
            sums = (
                sums / values.numel()
                if avg_factor is None
                else sums / (avg_factor + torch.finfo(torch.float32).eps)
            )
        return scale * sums


def irreducible(module: Any) -> str | None:
    """Why a loss module cannot reduce by level, as far as its signature tells."""
    if module is None:
        return None
    parameters = inspect.signature(module.forward).parameters.values()
    if any(p.name == "reduction_override" or p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return (
        f"its loss {type(module).__name__} takes no reduction_override, so it cannot be told apart by level"
    )


def nothing_to_learn(value: Tensor, num_levels: int, module: nn.Module) -> Tensor:
    """``[K]`` of a loss that came as one number, which is fine where it is zero whatever the predictions.

    Args:
        module: whose loss it is.

    Raises:
        SpecError: for any other number: it cannot be told to which level it belongs.
    """
    number = float(value.detach())  # in a call without positives alone, in which mmdet itself has waited
    if number != 0 and math.isfinite(number):
        raise _in_its_own_way(module, f"one number ({number:.6g}) where its losses row by row were asked for")
    return on_first_level(value, num_levels)


def _in_its_own_way(module: nn.Module, found: str) -> SpecError:
    return SpecError(
        f"model: {type(module).__name__}", f"{found}, which cannot be told apart by level",
        'one loss for each row under reduction_override="none"',
        "use another loss there, or msbal.Balancer on your own level losses",
    )  # fmt: skip


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
