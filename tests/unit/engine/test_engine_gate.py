"""The gate: the gradient is that of sum(w_i L_i), computed the slow way, and what is no such sum is found."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from msbal.backend.kit.gate_proof import behind_another, passed_by, wrong_level
from msbal.engine.gate import GatedPass

SIZES = (5, 3, 2)
WEIGHTS = torch.tensor([[0.5, 2.0, 3.0], [4.0, 0.25, 1.5]])


def opened(passed: GatedPass, values: Tensor, weights: Tensor) -> None:
    values = values.detach().requires_grad_()
    passed.open(values * weights, values)


def predictions(sizes: Sequence[int] = SIZES, shape: Sequence[int] = (2, 4), dim: int = 1) -> Tensor:
    whole = list(shape)
    whole.insert(dim, sum(sizes))
    return torch.randn(whole).requires_grad_()


def by_level(x: Tensor, sizes: Sequence[int] = SIZES, dim: int = 1) -> Tensor:
    """Two terms: ``[2, K]``."""
    parts = x.split(list(sizes), dim)
    return torch.stack([torch.stack([part.square().sum(), part.sin().sum()]) for part in parts], dim=1)


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(0, 4), min_size=2, max_size=5).filter(sum),
    shape=st.lists(st.integers(1, 3), min_size=0, max_size=3),
    data=st.data(),
)
def test_the_gradient_is_the_slow_one(sizes: list[int], shape: list[int], data: st.DataObject) -> None:
    dim = data.draw(st.integers(0, len(shape)))
    given = dim - len(shape) - 1 if data.draw(st.booleans()) else dim
    weight = st.floats(0, 8, width=32)
    weights = torch.tensor(
        data.draw(st.lists(weight, min_size=2 * len(sizes), max_size=2 * len(sizes)))
    ).view(2, -1)
    x = predictions(sizes, shape, dim)

    passed = GatedPass()
    squares, sines = (passed.gate(x, sizes, given, row) for row in (0, 1))
    assert squares.equal(x)
    values = torch.stack([by_level(squares, sizes, dim)[0], by_level(sines, sizes, dim)[1]])
    assert wrong_level(passed, values.sum(), values) is None
    opened(passed, values, weights)
    (ours,) = torch.autograd.grad(values.sum(), x)

    (slow,) = torch.autograd.grad((by_level(x, sizes, dim) * weights).sum(), x)
    torch.testing.assert_close(ours, slow)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_unit_weights_keep_the_bits(dtype: torch.dtype) -> None:
    x = predictions().to(dtype).detach().requires_grad_()
    passed = GatedPass()
    values = by_level(passed.gate(x, SIZES).float())
    opened(passed, values, torch.ones(2, 3))
    (ours,) = torch.autograd.grad(values.sum() / 3, x)
    (plain,) = torch.autograd.grad(by_level(x.float()).sum() / 3, x)
    assert ours.dtype is dtype and ours.equal(plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    x = predictions().to(dtype).detach().requires_grad_()
    weights = torch.full((2, 3), 1.2345678)
    passed = GatedPass()
    values = by_level(passed.gate(x, SIZES).float())
    opened(passed, values, weights)
    (ours,) = torch.autograd.grad(values.sum() * 1024.0, x)
    (plain,) = torch.autograd.grad(by_level(x.float()).sum() * 1024.0, x)
    assert ours.equal((plain.float() * 1.2345678).to(dtype))


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_each_pass_keeps_its_own_factors(order: tuple[int, ...]) -> None:
    x = predictions()
    losses = []
    for k in range(3):
        passed = GatedPass()
        values = by_level(passed.gate(x, SIZES))
        opened(passed, values, torch.full((2, 3), k + 1.0))
        losses.append(values.sum())
    (plain,) = torch.autograd.grad(by_level(x).sum(), x)
    for k in order:
        for _ in range(2):
            torch.testing.assert_close(
                torch.autograd.grad(losses[k], x, retain_graph=True)[0], plain * (k + 1)
            )


def test_second_derivatives_would_be_scaled_twice_and_are_refused() -> None:
    x = predictions()
    passed = GatedPass()
    values = by_level(passed.gate(x, SIZES))
    opened(passed, values, WEIGHTS)
    (first,) = torch.autograd.grad(values.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


def test_a_backward_pass_before_the_factors_are_known() -> None:
    x = predictions()
    loss = by_level(GatedPass(required=False).gate(x, SIZES)).sum()
    assert torch.autograd.grad(loss, x)[0].equal(torch.autograd.grad(by_level(x).sum(), x)[0])
    with pytest.raises(RuntimeError, match="backward before `loss`"):
        by_level(GatedPass().gate(x, SIZES)).sum().backward()


def test_what_a_strategy_learns_gets_its_gradient_by_term() -> None:
    learned = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    values = torch.rand(2, 3).requires_grad_()
    x = predictions()
    passed = GatedPass()
    own = by_level(passed.gate(x, SIZES)).sum(dim=1)
    weighted = values * learned.square() + learned
    total = own + passed.open(weighted, values, [learned, nn.Parameter(torch.ones(2))])
    difference = (weighted - values).sum(dim=1)
    torch.testing.assert_close(total.detach(), (own + difference).detach())
    for term in range(2):
        (ours,) = torch.autograd.grad(total[term], learned, retain_graph=True)
        (slow,) = torch.autograd.grad(weighted[term].sum(), learned, retain_graph=True)
        torch.testing.assert_close(ours, slow)


def test_a_pass_that_is_given_up_is_freed() -> None:
    for proves in (True, False):
        passed = GatedPass(provable=proves)
        gated = passed.gate(predictions(), SIZES)
        values = by_level(gated)
        wrong_level(passed, values.sum(), values)
        node = weakref.ref(gated)
        del passed, gated, values
        gc.disable()
        try:
            assert node() is None
        finally:
            gc.enable()


# -- what is no sum over levels ------------------------------------------------------------------


def checked(x: Tensor, own: object, levels: object = by_level, row: int | None = None) -> object:
    passed = GatedPass()
    gated = passed.gate(x, SIZES, 1, row)
    return wrong_level(passed, own(gated), levels(gated))  # type: ignore[operator]


def test_levels_that_depend_on_each_other_are_found() -> None:
    x = predictions()
    whole = lambda gated: by_level(gated).sum()  # noqa: E731
    assert checked(x, whole) is None

    def coupled(gated: Tensor) -> Tensor:
        values = by_level(gated)
        return values / (1 + gated[:, -1].square().sum())

    assert checked(x, lambda gated: coupled(gated).sum(), coupled) is not None
    softmax = lambda gated: by_level(gated.softmax(dim=1))  # noqa: E731
    assert checked(x, lambda gated: softmax(gated).sum(), softmax) is not None
    detached = lambda gated: by_level(gated) / (1 + gated.detach().square().sum())  # noqa: E731
    assert checked(x, lambda gated: detached(gated).sum(), detached) is None


def test_another_order_of_levels_is_found() -> None:
    x = predictions()
    whole = lambda gated: by_level(gated).sum()  # noqa: E731
    assert checked(x, whole, lambda gated: by_level(gated, SIZES[::-1])) == (None, 0)
    assert checked(x, whole, lambda gated: by_level(gated).flip(1)) == (None, 0)


def test_predictions_that_two_terms_take_are_found() -> None:
    x = predictions()
    assert checked(x, lambda gated: by_level(gated)[1].sum(), row=1) is None
    assert checked(x, lambda gated: by_level(gated).sum(), row=1) == (1, 0)


def test_losses_without_a_gradient_prove_nothing() -> None:
    x = predictions()
    whole = lambda gated: by_level(gated).sum()  # noqa: E731
    assert checked(x, whole, lambda gated: by_level(gated).detach().flip(1)) is None
    assert checked(x, whole, lambda gated: by_level(x).flip(1)) is None


@pytest.mark.parametrize("scale", [1.0, 1e-6, 100.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_proof_knows_how_coarse_numbers_are(dtype: torch.dtype, scale: float) -> None:
    x = predictions((50, 30, 20)).to(dtype).detach().requires_grad_()
    passed = GatedPass()
    gated = passed.gate(x, (50, 30, 20))
    values = by_level(gated.sigmoid().float(), (50, 30, 20)) * scale
    assert wrong_level(passed, values.sum(), values) is None
    assert wrong_level(passed, values.sum(), values.flip(1)) is not None


def test_a_way_around_the_gates_is_found() -> None:
    weight, beside = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(3))
    x = torch.randn(2, 10, 4) * weight
    passed = GatedPass()
    gated = passed.gate(x, SIZES)
    whole = by_level(gated).sum()
    assert passed_by(passed, whole) is None
    assert passed_by(passed, whole + (0 * beside).sum()) is None, "as some do for DistributedDataParallel"
    assert passed_by(passed, whole + beside.square().sum()) is beside
    assert passed_by(passed, by_level(gated * x.mean()).sum()) is weight


def test_two_gates_on_one_way_are_found() -> None:
    x = predictions()
    passed = GatedPass()
    first = passed.gate(x, SIZES)
    passed.gate(x.exp(), SIZES)
    assert not behind_another(passed)
    passed.gate(first.exp(), SIZES)
    assert behind_another(passed)
