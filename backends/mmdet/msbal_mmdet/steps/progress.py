"""What an exact resume needs beyond mmengine's checkpoint: the place in the data, and what modules remember."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

KEY = "msbal_progress"
_NUMBERS = (bool, int, float, str, type(None))
_MODULES_OWN = {*vars(nn.Module()), "training"}

Memory = dict[str, dict[str, Any]]
"""By an object's path in the model, the values of its attributes."""


class ProgressHook(Hook):
    """Writes both into a checkpoint, and restores them from it.

    YOLOX's ``BatchSyncRandomResize`` remembers the size that it drew some iterations ago, Dynamic R-CNN the overlaps
    of its proposals, and neither is a tensor of the state dictionary.

    Attributes:
        passes: passes over the data before the present one; None after a checkpoint that does not say.
        since: the iteration that the present pass began after.
    """

    def __init__(self, model: nn.Module) -> None:
        self.passes: int | None = 0
        self.since = 0
        self._built = memory(model)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = {
            "passes": self.passes,
            "since": self.since,
            "memory": changes(self._built, memory(runner.model)),
        }

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        if not runner._resume:
            return
        told = checkpoint.get(KEY)
        if told is None:
            self.passes, self.since = None, 0
            return
        self.passes, self.since = told["passes"], told["since"]
        objects = dict(_objects(runner.model))
        for path, values in told["memory"].items():
            if path in objects:
                vars(objects[path]).update(values)


def memory(model: nn.Module) -> Memory:
    """Return the plain attributes of a model's modules, and of the assigners and samplers in them."""
    return {
        path: {
            name: _plain(value)
            for name, value in vars(found).items()
            if name not in _MODULES_OWN and _is_plain(value)
        }
        for path, found in _objects(model)
    }


def changes(before: Memory, after: Memory) -> Memory:
    """Return the values of `after` that differ."""
    found = {
        path: {
            name: value
            for name, value in values.items()
            if name not in before.get(path, {}) or before[path][name] != value
        }
        for path, values in after.items()
    }
    return {path: values for path, values in found.items() if values}


def _objects(model: nn.Module) -> Iterator[tuple[str, Any]]:
    inner: Any = model.module if is_model_wrapper(model) else model
    for path, module in inner.named_modules():
        if _is_msbals(module):
            continue
        yield path, module
        for name, value in vars(module).items():
            for i, item in enumerate(value if isinstance(value, list | tuple) else [value]):
                if _is_tool(item):
                    yield f"{path}:{name}.{i}", item


def _is_tool(value: Any) -> bool:
    """Return whether it is an assigner, sampler, coder or the like."""
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, nn.Module | dict | type)
        and not callable(value)
        and not _is_msbals(value)
    )


def _is_msbals(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in ("msbal", "msbal_mmdet")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, (*_NUMBERS, np.generic))


def _plain(value: Any) -> Any:
    """Return a copy with NumPy's numbers as Python's: safe loading knows no others."""
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value] if isinstance(value, list) else tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value
