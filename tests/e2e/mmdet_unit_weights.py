"""A pytest plugin for MMDetection's own tests: every dense head is balanced at unit weights while they run.

    pytest -p mmdet_unit_weights CHECKOUT/tests/test_models/test_dense_heads CHECKOUT/tests/test_models/test_detectors

with this file's folder in PYTHONPATH. A head that has a splitter returns its losses through it, weighed by a balancer
with the strategy ``equal``, and a detector is balanced as a whole. What comes out is held against mmdet's own
computation, key by key, and is what the test gets.
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

    from msbal_mmdet.config.reading import zoo

    try:
        _utils._get_config_directory()
    except Exception:
        _utils._get_config_directory = lambda: str(zoo())
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

    from msbal_mmdet.splitters import known

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
    """Let a head that is made on its own return its losses through its splitter."""
    from msbal_mmdet.splitters import look_up

    if isinstance(look_up(head), type):
        vars(head)["loss_by_feat"] = UnitWeights(head)


def balance_detector(detector: Any) -> None:
    """Balance a detector as a whole: RPN, RoI heads and all; its heads are no longer balanced on their own."""
    from msbal.errors import SpecError
    from msbal_mmdet import balance

    for module in detector.modules():
        if isinstance(vars(module).get("loss_by_feat"), UnitWeights):
            del vars(module)["loss_by_feat"]
    handle = None
    for scope in (("rpn", "roi"), ("rpn",), ("roi",)):
        try:
            handle = balance(detector, "equal", interval=2, scope=scope)
            break
        except SpecError:  # nothing there to balance
            continue
    if handle is None:
        return
    inner = detector.loss

    def loss(*args: Any, **kwargs: Any) -> Any:
        if not (torch.is_grad_enabled() and detector.training):
            return inner(*args, **kwargs)
        state = _random_state()
        with handle.paused():
            expected = inner(*copy.deepcopy(args), **copy.deepcopy(kwargs))
        _set_random_state(state)
        losses = inner(*args, **kwargs)
        _assert_same(type(detector).__name__, losses, expected)
        assert handle.losses and handle.drain() is not None
        COUNTS[f"{type(detector).__name__} (detector)"] += 1
        return losses

    vars(detector)["loss"] = loss


class UnitWeights:
    """In the place of a head's loss method."""

    def __init__(self, head: Any) -> None:
        self.head = head

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = memo.get(id(self.head))
        return self if copied is None else _own(copied)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from msbal.engine import Balancer
        from msbal_mmdet.splitters import look_up

        kind = look_up(self.head)
        splitter = kind(self.head)  # type: ignore[operator, misc]  # tests change a head's settings after making it
        own = _own(self.head)
        if splitter.refusal() is not None:
            return own(*args, **kwargs)
        state = _random_state()
        expected = _own(_copied(self.head))(*args, **kwargs)
        _set_random_state(state)
        found = splitter.split(own, args, kwargs)
        if found is None:
            return expected
        group = splitter.group
        weighted = Balancer(group.levels, "equal", terms=group.terms, interval=2).weighted(found.losses)
        assert torch.equal(weighted, found.losses.values.to(weighted.dtype))
        losses = found.result(weighted)
        _assert_same(type(self.head).__name__, losses, expected, levels=not splitter.computes)
        COUNTS[type(self.head).__name__] += 1
        return losses


def _assert_same(name: str, losses: Any, expected: Any, levels: bool = False) -> None:
    """Key by key, in the same form; entry by entry where a head's lists run over levels."""
    assert losses.keys() == expected.keys(), (name, losses.keys(), expected.keys())
    for key, theirs in expected.items():
        ours = losses[key]
        assert isinstance(theirs, Tensor) == isinstance(ours, Tensor), (name, key)
        _assert_close(f"{name}: {key}", _total(ours), _total(theirs))
        if not isinstance(theirs, Tensor):
            assert len(ours) == len(theirs), (name, key)
            for mine, other in zip(ours, theirs, strict=True) if levels else ():
                _assert_close(f"{name}: {key} of a level", mine.mean(), other.mean())


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


def _own(head: Any) -> Any:
    return type(head).loss_by_feat.__get__(head)


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
