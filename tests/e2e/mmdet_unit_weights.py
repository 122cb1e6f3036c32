"""A pytest plugin for MMDetection's own tests: every dense head is balanced at unit weights while they run.

    pytest -p mmdet_unit_weights CHECKOUT/tests/test_models/test_dense_heads CHECKOUT/tests/test_models/test_detectors

with this file's folder in PYTHONPATH. A head that has a seam computes its losses through it, and a balancer
with the strategy ``equal`` weighs them; a detector's losses go through `parse_losses`. What comes out is held
against mmdet's own computation on a copy, and handed to the test in the shape that mmdet gives it.
``--plain`` leaves everything as it is, to know which tests pass without.

Where the checkout has no package of its own beside its tests, the installed one is tested.
"""

from __future__ import annotations

import copy
import functools
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

COUNTS: Counter[str] = Counter()
_building: Counter[int] = Counter()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plain", action="store_true", help="run mmdet's tests without a balancer")


def pytest_configure(config: pytest.Config) -> None:
    from mmdet.testing import _utils

    from msbal_mmdet import tiny

    try:
        _utils._get_config_directory()
    except Exception:
        _utils._get_config_directory = lambda: str(tiny.zoo())
    if not config.getoption("--plain"):
        install()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for name, count in sorted(COUNTS.items()):
        terminalreporter.write_line(f"unit weights: {count:5} {name}")


def install() -> None:
    """From now on every head and detector that is made is balanced."""
    from mmdet.models import BaseDetector
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    from msbal_mmdet.seams import known

    register_all_modules(init_default_scope=False)
    for name in known():
        cls = MODELS.module_dict.get(name)
        if cls is not None and "__init__" in vars(cls):
            _after_init(cls, balance_head)
    for cls in {
        c for c in MODELS.module_dict.values() if isinstance(c, type) and issubclass(c, BaseDetector)
    }:
        if "__init__" in vars(cls):
            _after_init(cls, balance_detector)


def _after_init(cls: type, then: Any) -> None:
    """Call `then` with each instance once the outermost constructor is through."""
    original = vars(cls)["__init__"]

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        _building[id(self)] += 1
        try:
            original(self, *args, **kwargs)
        finally:
            _building[id(self)] -= 1
        if not _building[id(self)]:
            del _building[id(self)]
            then(self)

    cls.__init__ = init  # type: ignore[misc]


def balance_head(head: Any) -> None:
    """Let a head's losses go through its seam."""
    from msbal_mmdet.seams import look_up

    kind = look_up(head)
    if isinstance(kind, type):
        seam = kind(head)
        if seam.refusal() is None:
            vars(head)[seam.method] = UnitWeights(seam)


def balance_detector(detector: Any) -> None:
    """Let a detector's losses go through a balancer of its own."""
    from msbal.errors import SpecError
    from msbal_mmdet import balance

    try:
        handle = balance(detector, "equal", interval=2, scope=["rpn", "roi"])
    except (SpecError, StopIteration):  # nothing to balance, or no parameters
        return
    inner = detector.loss

    def loss(*args: Any, **kwargs: Any) -> Any:
        losses = inner(*args, **kwargs)
        if torch.is_grad_enabled() and detector.training:
            ours, _ = detector.parse_losses(losses)
            plain, _ = type(detector).parse_losses(detector, losses)
            _assert_close(f"{type(detector).__name__}: objective", ours, plain)
            assert handle.drain() is not None
            COUNTS[f"{type(detector).__name__} (detector)"] += 1
        return losses

    vars(detector)["loss"] = loss


class UnitWeights:
    """In the place of a head's loss method."""

    def __init__(self, seam: Any) -> None:
        self.seam, self.head = seam, seam.head
        self.balancer: Any = None  # tests change a head's settings after making it

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = memo.get(id(self.head))
        return self if copied is None else _own(copied, self.seam.method)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from msbal_mmdet.seams import LevelTerm

        state = _random_state()
        expected = _own(_copied(self.head), self.seam.method)(*args, **kwargs)
        _set_random_state(state)
        losses = self.seam(_own(self.head, self.seam.method), *args, **kwargs)
        if not isinstance(losses, dict) or not losses:
            return losses
        assert losses.keys() == expected.keys(), (losses.keys(), expected.keys())
        marked = {key: value for key, value in losses.items() if isinstance(value, LevelTerm)}
        self._weigh(marked)
        for key, value in losses.items():
            name = f"{type(self.head).__name__}: {key}"
            _assert_close(name, _total(value), _total(expected[key]))
            if key in marked:
                losses[key] = self._as_mmdet_has_it(value, expected[key])
        COUNTS[type(self.head).__name__] += 1
        return losses

    def _weigh(self, marked: dict[str, Any]) -> None:
        """Every level times its weight, and the balancer's scalar is their sum."""
        from msbal.engine import Balancer

        names = self.seam.term_names()
        zero = next(iter(marked.values()))[0].new_zeros(())
        by_term = {value.term: value for value in marked.values()}
        if self.balancer is None or self.balancer.terms != tuple(names):
            self.balancer = Balancer(self.seam.level_names(), "equal", terms=names, interval=2)
        rows = [value for name in names for value in by_term.get(name, [zero] * self.seam.num_levels)]
        values = torch.stack(rows).view(len(names), self.seam.num_levels)
        scalar = self.balancer(values)
        _assert_close(f"{type(self.head).__name__}: balancer", scalar, values.double().sum())
        weights = self.balancer.weights.reshape(-1)[: self.seam.num_levels]
        for term in marked.values():
            term[:] = [value * weight.to(value.dtype) for value, weight in zip(term, weights, strict=True)]

    def _as_mmdet_has_it(self, value: list[Tensor], expected: Any) -> Any:
        """One scalar; or one for each level, in mmdet's order; or, where its list is over images, a list of one."""
        if isinstance(expected, Tensor):
            return sum(value)
        if len(expected) == len(value) and not _over_images(self.seam):
            in_order = [value[self.seam.order.index(i)] for i in range(len(value))]
            for mine, theirs in zip(in_order, expected, strict=True):
                _assert_close(f"{type(self.head).__name__}: a level", mine, theirs.mean())
            return in_order
        return [sum(value)]


def _over_images(seam: Any) -> bool:
    from msbal_mmdet.seams.mined import SSDSeam

    return isinstance(seam, SSDSeam)


def _copied(head: Any) -> Any:
    """A copy that shares the tensors with a graph that CondInst's head keeps, which cannot be copied."""
    memo: dict[int, Any] = {}
    waiting = [value for value in vars(head).values() if not isinstance(value, torch.nn.Module)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor) and not value.is_leaf:
            memo[id(value)] = value
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return copy.deepcopy(head, memo)


def _own(head: Any, method: str) -> Any:
    return getattr(type(head), method).__get__(head)


def _total(value: Any) -> Tensor:
    parts = [value] if isinstance(value, Tensor) else list(value)
    return torch.stack([part.detach().double().mean() for part in parts]).sum()


def _assert_close(name: str, ours: Tensor, plain: Tensor) -> None:
    a, b = float(ours.detach()), float(plain.detach())
    assert a == pytest.approx(b, rel=1e-5, abs=1e-6, nan_ok=True), f"{name}: {a} here, {b} in mmdet"


def _random_state() -> Any:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_random_state(state: Any) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
