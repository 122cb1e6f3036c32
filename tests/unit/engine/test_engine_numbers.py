"""Python floats in a tensor's place: the same results, special ones included."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msbal.engine.numbers import Numbers

SPECIAL = [
    0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, -5e-324, 1.7e308, -1.7e308, 1e-300, 710.0, -750.0,
]  # fmt: skip
ANY = st.one_of(st.sampled_from(SPECIAL), st.floats())
PAIRS = st.lists(st.tuples(ANY, ANY, st.floats(0, 1), st.booleans()), min_size=1, max_size=7)


def alike(ours: Any, theirs: torch.Tensor) -> None:
    found = ours.tolist() if isinstance(ours, Numbers) else ours
    assert found == pytest.approx(theirs.tolist(), rel=1e-12, abs=1e-300, nan_ok=True)


ONE: list[Callable[[Any], Any]] = [
    lambda a: -a,
    lambda a: a.reciprocal(),
    lambda a: a.exp(),
    lambda a: a.log(),
    lambda a: a.sqrt(),
    lambda a: a.clamp_min(0.5),
    lambda a: a.clamp_max(0.5),
    lambda a: a + 2.0,
    lambda a: 2.0 + a,
    lambda a: a - 2.0,
    lambda a: 2.0 - a,
    lambda a: a * 3.0,
    lambda a: 3.0 * a,
    lambda a: a / 3.0,
    lambda a: a / 0.0,
    lambda a: a < 1.0,
    lambda a: a <= 0.0,
    lambda a: a == 0.0,
    lambda a: a[0],
]
TWO: list[Callable[[Any, Any], Any]] = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: a / b,
    lambda a, b: a.addcmul(b, a),
    lambda a, b: a < b,
    lambda a, b: a <= b,
    lambda a, b: a == b,
    lambda a, b: (a < 1.0) | (b < 1.0),
    lambda a, b: a.masked_fill(b < 1.0, -1.0),
    lambda a, b: a.where(b < 1.0, b),
]


@given(PAIRS)
def test_like_a_tensor(pairs: list[tuple[float, float, float, bool]]) -> None:
    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    x, y = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    for one in ONE:
        alike(one(Numbers(a)), one(x))
    for two in TWO:
        alike(two(Numbers(a), Numbers(b)), two(x, y))
    assert Numbers(a).numel() == x.numel()


@given(st.lists(st.tuples(st.floats(-1e100, 1e100), st.floats(-1e100, 1e100), st.floats(0, 1)), min_size=1))
def test_finite_ones_like_a_tensor(triples: list[tuple[float, float, float]]) -> None:
    a, b, w = ([triple[i] for triple in triples] for i in range(3))
    x, y, v = (torch.tensor(values, dtype=torch.float64) for values in (a, b, w))
    size = max(map(abs, [*a, *b]))
    ours, theirs = Numbers(a).lerp(Numbers(b), Numbers(w)).tolist(), x.lerp(y, v).tolist()
    assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-12 * size)
    assert Numbers(a).lerp(Numbers(b), 0.25).tolist() == pytest.approx(
        x.lerp(y, 0.25).tolist(), rel=1e-12, abs=1e-12 * size
    )
    assert Numbers(a).sum() == pytest.approx(float(x.sum()), abs=1e-12 * size * len(a))
    assert Numbers(a).mean() == pytest.approx(float(x.mean()), abs=1e-12 * size)
    assert (Numbers(a).amin(), Numbers(a).amax()) == (float(x.amin()), float(x.amax()))
    alike(Numbers(a).softmax(0), x.softmax(0))


def test_the_ends_of_a_lerp_are_exact() -> None:
    a, b = Numbers([0.1, 1e300, -3.0]), Numbers([0.7, 1e-300, 7.0])
    assert a.lerp(b, 0.0).tolist() == a.tolist()
    assert a.lerp(b, 1.0).tolist() == b.tolist()


def test_masks_of_nothing_and_all() -> None:
    ones = Numbers([1.0, 1.0])
    assert (ones < 1.0).sum() == 0 and (ones <= 1.0).sum() == 2
    # What is left when every level is masked is NaN, as of tensors, and no exception.
    alike(ones.masked_fill(ones <= 1.0, -math.inf).softmax(0), torch.full((2,), math.nan))
