"""A stand-in for the ``pickle`` module that builds tensors and runs nothing: for checkpoints of other programs.

What such a file keeps beside its tensors (mmengine: a history of logged values) becomes `Inert` objects, whatever
it asks to be called.
"""

from __future__ import annotations

import pickle
import types
from typing import Any

_BUILT = {
    ("collections", "OrderedDict"), ("torch", "Size"), ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}  # fmt: skip


class Inert:
    """Takes the place of anything, and does nothing with what it is given."""

    def __new__(cls, *arguments: Any, **named: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None: ...

    def __call__(self, *arguments: Any, **named: Any) -> Inert:
        return self

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None:
        """As of a list."""

    def extend(self, values: Any) -> None:
        """As of a list."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module, name) if (module, name) in _BUILT else Inert


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


inert_pickle: Any = types.ModuleType("inert_pickle")
"""For ``torch.load(pickle_module=...)``; torch itself finds the storages."""
inert_pickle.Unpickler, inert_pickle.load = _Unpickler, _load
