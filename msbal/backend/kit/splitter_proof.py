"""The proof, on the first batch of a training, that a splitter's levels add up to the framework's own loss."""

from __future__ import annotations

import math
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msbal.backend.kit.splitter import LossSplitter
from msbal.engine.processes import all_gather_objects
from msbal.errors import SpecError

TOLERANCE = 1e-4
"""Relative to a term: float32 losses are summed in another order."""


class SplitterProof:
    """Proves one splitter, until a loss other than 0 has proved every term: usually on one batch.

    A term that appears later (YOLOX's L1) is proved at the call after its first. All processes prove in the same calls
    and end together, as the framework's own loss may be a collective.

    Args:
        done: whether nothing is left to prove.

    Attributes:
        due: whether to compute the framework's own loss beside the next call.
    """

    def __init__(self, splitter: LossSplitter, done: bool = False) -> None:
        self.splitter, self.due = splitter, splitter.computes and not done
        self.unproved = set[str]() if done else set(splitter.keys)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def own_terms(self, own: Callable[..., Any], args: Any, kwargs: Any) -> Sequence[Tensor | None]:
        """Compute the framework's own terms for a call, without a trace."""
        splitter = self.splitter
        with untouched(splitter.has_state()), splitter.aside(), torch.no_grad():
            return splitter.own_terms(own, args, kwargs)

    def saw(self, absent: Collection[str]) -> None:
        """Note a call whose own terms were not computed: the next one proves what was new in it."""
        if self.splitter.computes and not self.due:
            self.due = bool(self.unproved - set(absent))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def check(
        self, values: Tensor, expected: Sequence[Tensor | None], absent: Collection[str],
        further: Callable[[], str] | None = None,
    ) -> None:  # fmt: skip
        """Compare ``[T, K]`` to the framework's own terms.

        Args:
            further: see `Split.check`.

        Raises:
            SpecError: where the levels do not add up to them, on any process.
        """
        splitter = self.splitter
        found = values.detach().double().sum(dim=1).tolist()
        wanted = [0.0 if term is None else float(term.detach()) for term in expected]
        unequal, equal = compare(found, wanted, [values, *(term for term in expected if term is not None)])
        proved, wrong = [splitter.keys[i] for i in equal], ""
        if unequal is not None:
            module = splitter.loss_module(splitter.group.terms[unequal]) or splitter.owner
            wrong = (
                f"levels of `{splitter.keys[unequal]}` that add up to {found[unequal]:.6g} where its own loss is "
                f"{wanted[unequal]:.6g}: {type(module).__name__} computes it in a way that msbal does not know"
            )
        self._end(proved, wrong or (further() if further is not None else ""), absent)

    def failed(self, error: SpecError) -> None:
        """Tell the other processes, which wait, that the splitter refused a call that is to be proved.

        Raises:
            SpecError: always.
        """
        all_gather_objects(([], error.found, []))
        raise error

    def _end(self, proved: list[str], wrong: str, absent: Collection[str]) -> None:
        everyones = all_gather_objects((proved, wrong, sorted(absent)))
        for _, problem, _ in everyones:
            if problem:
                raise SpecError(
                    f"model: {self.splitter.name}", problem, "a loss that is the sum of its levels'",
                    fix="use msbal.Balancer on your own level losses, or the framework's own loss",
                )  # fmt: skip
        self.unproved -= {key for keys, _, _ in everyones for key in keys}
        nowhere = set.intersection(*(set(keys) for _, _, keys in everyones))
        self.due = self.splitter.computes and bool(self.unproved - nowhere)


def compare(
    found: Sequence[float], wanted: Sequence[float], of: Iterable[Tensor]
) -> tuple[int | None, list[int]]:
    """Compare terms' losses to what they should be.

    Args:
        of: what they were computed as, which tells how they were rounded.

    Returns:
        the first one that differs, and those that are equal and not 0. One that is not finite is neither.
    """
    tolerance = max(TOLERANCE, *(8 * torch.finfo(tensor.dtype).eps for tensor in of))
    scale = max((abs(number) for number in wanted if math.isfinite(number)), default=0.0)
    unequal, equal = None, []
    for i, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        if not (math.isfinite(ours) and math.isfinite(theirs)):
            continue
        if abs(ours - theirs) > tolerance * max(abs(theirs), 1e-3 * scale, 1e-6):
            unequal = i if unequal is None else unequal
        elif theirs != 0.0:
            equal.append(i)
    return unequal, equal


# -- computing without a trace ------------------------------------------------------------------

_NUMBERS = (bool, int, float, str, type(None))
_CONTAINERS = (list, tuple, dict, set, deque, OrderedDict)
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""nn.Module's own tables of parameters and submodules."""


@contextmanager
def untouched(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Restore at the end the random state of all libraries, and every buffer and plain attribute of `modules`.

    Every tensor stays the same object: DistributedDataParallel and optimizers know them by identity.

    Args:
        modules: with their submodules. Losses keep running averages in buffers (mmdet's GHM), in plain tensors (EQLv2)
            or in numbers (detectron2's ``loss_normalizer``).
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
    """Return whether it holds only numbers and tensors, and no modules as detectron2's ``ResNet.stages`` does."""
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
