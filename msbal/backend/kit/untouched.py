"""Compute something as if it had never been computed: random state and running averages are put back."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_NUMBERS = (bool, int, float, str, type(None))
_CONTAINERS = (list, tuple, dict, set, deque, OrderedDict)
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""nn.Module's own tables, which hold parameters and submodules."""


@contextmanager
def untouched(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Put back, at the end, the random state of all libraries, and every buffer and plain attribute of `modules`.

    Every tensor stays the object that it was: DistributedDataParallel and optimizers know them by identity.

    Args:
        modules: with all that is in them. Losses keep running averages in buffers (mmdet's GHM), in plain tensors
            (EQLv2) or in numbers (detectron2's ``loss_normalizer``).
    """
    states = _random_states()
    kept = [
        (table, {name: (value, _copy(value)) for name, value in table.items() if _is_plain(name, value)})
        for module in {id(inner): inner for module in modules for inner in module.modules()}.values()
        for table in (vars(module), module._buffers)
    ]
    try:
        yield
    finally:
        for table, values in kept:
            for name in [name for name, value in table.items() if _is_plain(name, value)]:
                if name not in values:
                    del table[name]
            table.update({name: _restored(*value) for name, value in values.items()})
        _put_back(states)


def _is_plain(name: str, value: Any) -> bool:
    return name not in _OF_EVERY_MODULE and _is_data(value)


def _is_data(value: Any) -> bool:
    """Whether it is numbers and tensors alone: a list of modules, as detectron2's ``ResNet.stages``, is not."""
    if type(value) in _CONTAINERS:
        return all(map(_is_data, value.values() if isinstance(value, dict) else value))
    return isinstance(value, (*_NUMBERS, Tensor, np.ndarray)) and not isinstance(value, nn.Parameter)


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return type(value)((key, _copy(inner)) for key, inner in value.items())
    if isinstance(value, deque):
        return deque(map(_copy, value), value.maxlen)
    return type(value)(map(_copy, value)) if isinstance(value, _CONTAINERS) else value


def _restored(value: Any, kept: Any) -> Any:
    if _same(value, kept):
        return value
    if isinstance(value, Tensor) and value.shape == kept.shape:
        with torch.no_grad():
            return value.copy_(kept)
    return kept


def _same(value: Any, kept: Any) -> bool:
    if isinstance(value, Tensor):
        return value.shape == kept.shape and torch.equal(value, kept)
    if isinstance(value, np.ndarray):
        return np.array_equal(value, kept, equal_nan=value.dtype.kind == "f")
    if isinstance(value, dict):
        return value.keys() == kept.keys() and all(_same(value[key], kept[key]) for key in kept)
    if isinstance(value, list | tuple | deque):
        return len(value) == len(kept) and all(map(_same, value, kept))
    return bool(value == kept)


def _random_states() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _put_back(states: tuple[Any, ...]) -> None:
    own, numpy, cpu, cuda = states
    random.setstate(own)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)
