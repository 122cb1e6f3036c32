"""Loss modules that reduce to one value a level instead of one value.

The head computes its targets, matching and normalisers itself, and calls its loss modules as always. For that call
they are replaced by `LevelReduction`, which is told the level of each row that they get.

Shapes: N images, K levels, S_l positions of level l in one image (anchors included), M = N * sum(S_l) rows that a head
flattened its predictions into, P rows of one call.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from msbal.backend.kit.level_sums import sum_by_level
from msbal.errors import SpecError

RowLevels = Callable[[tuple[Any, ...], dict[str, Any]], Tensor]
"""Returns, for the arguments of a loss module's call, the ``[P]`` level of each row that it gets."""
_NO_LEVEL = -1


def map_sizes(maps: Sequence[Tensor], per_position: int = 1) -> list[int]:
    """Return the rows of each level in one image, from its ``[N, C, H, W]`` predictions."""
    return [m.shape[-2] * m.shape[-1] * per_position for m in maps]


def row_levels(sizes: Sequence[int], images: int, level_major: bool, device: torch.device) -> Tensor:
    """Return ``[M]``, the level of each row of a flattened batch.

    Args:
        sizes: S_l of each level, in the head's own order.
        images: N.
        level_major: True where all images of the first level come first (FCOS), False where all levels of the first
            image do (YOLOX).
    """
    # Filled on the device: a copy from the host would wait for it.
    each = [
        torch.full((size * (images if level_major else 1),), k, device=device) for k, size in enumerate(sizes)
    ]
    return torch.cat(each) if level_major else torch.cat(each).repeat(images)


def levels_of_selected(level: Tensor, selected: Tensor, count: int) -> Tensor:
    """Return ``[P]``, the levels of the rows that are selected, in their order.

    The device is not asked for the selected rows' indices: that would wait for it.

    Args:
        level: ``[M]``.
        selected: ``[M]`` bool.
        count: P, how many rows the caller has. Rows that nothing selected belong to no level.
    """
    rows = torch.searchsorted(selected.cumsum(0), torch.arange(1, count + 1, device=level.device))
    return torch.cat([level, level.new_full((1,), _NO_LEVEL)])[rows]


def sum_rows(values: Tensor, level: Tensor, num_levels: int) -> Tensor:
    """Return ``[K]`` sums of ``[P, ...]`` values, or of ``[P * c]`` values flattened alike.

    Args:
        level: ``[P]``.
    """
    if values.shape[0] != len(level):
        values = values.reshape(len(level), -1)
    return sum_by_level(values.flatten(1).sum(dim=1) if values.dim() > 1 else values, level, num_levels)


def on_first_level(zero: Tensor, num_levels: int) -> Tensor:
    """Return ``[K]`` for a loss that is zero whatever the predictions: that of a head without positives.

    It stays in the graph, so that the same parameters get a gradient (of zero) as in mmdet: DistributedDataParallel
    counts them.
    """
    return torch.cat([zero.reshape(1), zero.new_zeros(num_levels - 1)])


class LevelReduction(nn.Module):
    """Replaces a loss module while its head computes its losses.

    It is ``weight_reduce_loss`` of ``mmdet/models/losses/utils.py`` by level. The elementwise loss and its sample
    weights are the module's own. The average factor and ``loss_weight`` are applied in mmdet's order, so that each
    element's gradient comes from the same operations on the same numbers, bit for bit.

    Args:
        inner: an mmdet loss: ``inner(pred, target, weight=None, avg_factor=None, reduction_override=None)``, which
            multiplies by its ``loss_weight`` where it has one.
        levels: the level of each row of a call.
        num_levels: K.
    """

    def __init__(self, inner: nn.Module, levels: RowLevels, num_levels: int) -> None:
        super().__init__()
        # Not a submodule: `inner` stays registered where it was, for state_dict() and parameters().
        object.__setattr__(self, "inner", inner)
        self._levels, self._num_levels = levels, num_levels

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["inner"], name)

    def forward(
        self, *args: Any, avg_factor: Any = None, reduction_override: str | None = None, **kwargs: Any
    ) -> Tensor:
        """Return the inner module's loss as ``[K]``; with ``reduction_override="none"`` the inner one's own."""
        inner: Any = self.__dict__["inner"]
        if reduction_override == "none":
            return inner(*args, avg_factor=avg_factor, reduction_override="none", **kwargs)  # type: ignore[no-any-return]
        values, scale = _row_losses(inner, args, kwargs)
        if values.dim() == 0:
            return nothing_to_learn(values * scale, self._num_levels, inner)
        if args and values.numel() % max(1, len(args[0])):
            raise _in_its_own_way(inner, f"losses of the shape {list(values.shape)} for {len(args[0])} rows")
        level = self._levels(args, {**kwargs, "avg_factor": avg_factor})
        sums = sum_rows(values, level, self._num_levels)
        if (reduction_override or getattr(inner, "reduction", "mean")) == "mean":
            sums = (
                sums / values.numel()
                if avg_factor is None
                else sums / (avg_factor + torch.finfo(torch.float32).eps)
            )
        return scale * sums


def _row_losses(inner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, float]:
    """Return a loss module's losses row by row, without its ``loss_weight``, and that weight."""
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
    if not isinstance(values, Tensor):
        raise _in_its_own_way(inner, f"a {type(values).__name__}")
    return values, 1.0 if scale is None else scale


def irreducible(module: Any) -> str | None:
    """Return why a loss module cannot reduce by level, as far as its signature tells."""
    if module is None:
        return None
    parameters = inspect.signature(module.forward).parameters.values()
    if any(p.name == "reduction_override" or p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return (
        f"its loss {type(module).__name__} takes no reduction_override, so it cannot be told apart by level"
    )


def nothing_to_learn(value: Tensor, num_levels: int, module: nn.Module) -> Tensor:
    """Return ``[K]`` for a loss that came as one number, which has to be zero whatever the predictions.

    Args:
        module: the module that computed it.

    Raises:
        SpecError: for any other number, whose level cannot be told.
    """
    number = float(value.detach())  # only in a call without positives, in which mmdet itself has waited
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
def replace_modules(owner: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Replace submodules of `owner`, by name, for a while."""
    before = {name: owner._modules[name] for name in modules}
    owner._modules.update(modules)
    try:
        yield
    finally:
        owner._modules.update(before)


@contextmanager
def replace_method(owner: Any, method: str, replacement: Callable[..., Any]) -> Iterator[None]:
    """Let `replacement` answer ``owner.method(...)`` for a while; `owner` may be a module of functions."""
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


@contextmanager
def listen(owner: Any, method: str, hear: Callable[[Any], None]) -> Iterator[None]:
    """Pass everything that ``owner.method(...)`` returns to `hear` for a while."""
    original = getattr(owner, method)

    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        hear(result)
        return result

    with replace_method(owner, method, call):
        yield
