"""Compute something as if it had never been computed: random state and running averages are put back."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, str, type(None), list, tuple, dict, set)


@contextmanager
def untouched(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Put back, at the end, the random state of all libraries, and every buffer and plain attribute of `modules`.

    Args:
        modules: with all that is in them. Losses keep running averages in buffers (mmdet's GHM), in plain tensors
            (EQLv2) or in numbers (detectron2's ``loss_normalizer``).
    """
    states = _random_states()
    kept = [
        (module, _copies(vars(module)), {name: _copy(buffer) for name, buffer in module._buffers.items()})
        for module in {id(inner): inner for module in modules for inner in module.modules()}.values()
    ]
    try:
        yield
    finally:
        for module, attributes, buffers in kept:
            for name in [name for name, value in vars(module).items() if _is_plain(name, value)]:
                if name not in attributes:
                    del vars(module)[name]
            vars(module).update(attributes)
            module._buffers.update(buffers)
        _put_back(states)


def _is_plain(name: str, value: Any) -> bool:
    # nn.Module's own tables begin with an underscore, and hold parameters and submodules.
    return not name.startswith("_") and isinstance(value, (*_PLAIN, Tensor))


def _copies(attributes: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in attributes.items():
        if _is_plain(name, value):
            try:
                found[name] = _copy(value)
            except Exception:  # a container of what cannot be copied is no running average
                continue
    return found


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


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
