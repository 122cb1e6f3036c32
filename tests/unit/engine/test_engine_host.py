"""The host's own arithmetic on the CPU decides as the kernels of a device do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from msbal.engine import (
    AVW,
    DWA,
    GLS,
    RLO,
    RLW,
    SLAW,
    UW,
    UWSO,
    Autobalance,
    Balancer,
    CoV,
    Equal,
    Fixed,
    IntervalRecord,
    Iteration,
    LevelLosses,
    MaxLoss,
    MinLoss,
    Positives,
    StepStrategy,
    Strategy,
    Weighing,
    available,
    host,
)
from msbal.engine.draw import Draw
from msbal.engine.host import numbers_of
from msbal.engine.strategies.base import State
from msbal.engine.strategies.rlo import reinforce, reinforced
from msbal.engine.weighting import amplify_top

ALL: list[Strategy] = [
    AVW(), DWA(), GLS(), RLO(), RLO(step=0.2), RLW(), SLAW(), SLAW(decay=0.7), UW(), UW(initial=-0.5), UWSO(),
    Autobalance(), CoV(), CoV(decay=0.9), Equal(), Fixed((1, 2, 3, 4)), MaxLoss(), MinLoss(), Positives(),
]  # fmt: skip


@contextmanager
def as_on_a_device() -> Iterator[None]:
    """On the CPU, but as if the host could read nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "readable", lambda tensor: False)
        yield


def test_all_strategies_are_here() -> None:
    assert {strategy.name for strategy in ALL} == set(available())


Run = tuple[list[float], list[list[float]], list[list[float]], list[IntervalRecord]]


def run(strategy: Strategy, rows: Tensor, positives: Tensor | None, dtype: torch.dtype) -> Run:
    """Totals, the losses' gradients, the parameters and the records of a training of the parameters."""
    balancer = Balancer(list("abcd"), strategy, terms=("cls", "bbox"), interval=4, seed=2)
    totals, gradients, learned = [], [], []
    for m, row in enumerate(rows):
        values = row.to(dtype).requires_grad_()
        total = balancer(LevelLosses(values, None if positives is None else positives[m]))
        total.backward()
        assert values.grad is not None and total.dtype == dtype
        totals.append(total.item())
        gradients.append(values.grad.flatten().tolist())
        for parameter in balancer.parameters():
            if parameter.grad is not None:
                parameter.data -= 0.1 * parameter.grad
                parameter.grad = None
            learned.append(parameter.tolist())
    return totals, gradients, learned, balancer.drain()


def assert_alike(ours: Run, theirs: Run, rel: float) -> None:
    for mine, other in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(mine, other, rtol=rel, atol=0, equal_nan=True)
    assert len(ours[3]) == len(theirs[3])
    for a, b in zip(ours[3], theirs[3], strict=True):
        assert (a.interval, a.action, a.reward, a.count, a.nonfinite, a.positives) == (
            b.interval, b.action, b.reward, b.count, b.nonfinite, b.positives,
        )  # fmt: skip
        for field in (
            "loss", "variance", "variance_reduction", "weights", "previous_weights", "probabilities",
        ):  # fmt: skip
            assert getattr(a, field) == pytest.approx(getattr(b, field), rel=1e-9, nan_ok=True), field


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("strategy", ALL, ids=str)
def test_every_strategy(strategy: Strategy, counted: bool, dtype: torch.dtype) -> None:
    if isinstance(strategy, Positives) and not counted:
        pytest.skip("needs positives")
    generator = torch.Generator().manual_seed(1)
    rows = torch.rand(30, 2, 4, generator=generator, dtype=torch.float64) + 0.05
    positives = torch.randint(0, 9, (30, 4), generator=generator)
    rows[3, :, 1] = 0.0  # a level without a loss, once
    rows[8:16, :, 3] = 0.0  # for two intervals
    rows[17, 0, 2] = float("nan")
    rows[18, 1, 0] = float("inf")
    rows[20:24] = float("nan")  # an interval of nothing
    rows[25] = 0.0
    found = positives if counted else None
    ours = run(strategy, rows, found, dtype)
    with as_on_a_device():
        theirs = run(strategy, rows, found, dtype)
    assert_alike(ours, theirs, 1e-6 if dtype == torch.float32 else 1e-11)


LOSS = st.floats(0, 1e300)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.one_of(LOSS, st.floats(-9, 9)), st.one_of(LOSS, st.floats(-9, 9))), min_size=3),
    st.floats(0, 10),
    st.integers(1, 2),
)
def test_equation_5(levels: list[tuple[float, float]], amplification: float, top_k: int) -> None:
    score, loss = (torch.tensor(column, dtype=torch.float64) for column in zip(*levels, strict=True))
    theirs = amplify_top(score, loss, top_k, amplification)
    ours = torch.tensor(
        amplify_top(numbers_of(score), numbers_of(loss), top_k, amplification).tolist(), dtype=torch.float64
    )
    assert bool((ours >= 1).all()) and bool((ours <= 1 + amplification).all())
    # A total that is all but zero, of losses of both signs, is rounding alone.
    if abs(loss.sum()) > 1e-6 * loss.abs().sum():
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@given(
    st.lists(st.floats(0.01, 1), min_size=2, max_size=6),
    st.data(),
    st.sampled_from([-1.0, 0.0, 1.0]),
    st.floats(0.001, 0.5),
)
def test_equation_7(raw: list[float], data: st.DataObject, earned: float, step: float) -> None:
    probabilities = torch.tensor(raw, dtype=torch.float64) / sum(raw)
    action = torch.tensor(data.draw(st.integers(-1, len(raw) - 1)))
    reward = torch.tensor(earned, dtype=torch.float64)
    theirs = reinforce(probabilities, action, reward, step, 0.05, 0.9)
    ours = reinforced(probabilities.tolist(), int(action), earned, step, 0.05, 0.9)
    assert ours == pytest.approx(theirs.tolist(), rel=1e-12)
    assert sum(ours) == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 5, 600])
@pytest.mark.parametrize("first", [0, 1, 509, 511, 512, 100_000])
def test_draws_do_not_depend_on_what_was_drawn_before(first: int, count: int) -> None:
    fresh, used = Draw(5, "rpn"), Draw(5, "rpn")
    used.normal(3 * first + 7, 9)
    found = fresh.normal(first, count).tolist()
    assert found == used.normal(first, count).tolist() and len(found) == count
    assert found == pytest.approx(Draw(5, "rpn").normal(torch.tensor(first), count).tolist(), rel=1e-12)
    assert fresh.number(first) == float(fresh.uniform(torch.tensor(first)))


@dataclass(frozen=True)
class Learner(StepStrategy):
    """As another package may write one: tensors, and functions that Numbers do not have."""

    name: ClassVar[str] = "learner"

    def initial_parameters(self, levels: int) -> dict[str, Tensor]:
        return {"scale": torch.ones(levels)}

    def initial_state(self, levels: int) -> dict[str, Tensor]:
        return {"last": torch.zeros(levels, dtype=torch.float64)}

    def weigh(self, iteration: Iteration, state: State, draw: Draw) -> Weighing:
        assert isinstance(iteration.losses, Tensor) and state["scale"].dtype == torch.float64
        weights = torch.cumsum(state["scale"], dim=0) + state["last"]
        return Weighing(weights, {"last": iteration.losses}, {"scale": iteration.losses * 2})

    def decide(self, statistics: object, state: State, draw: Draw) -> tuple[Tensor, State]:
        return statistics.weights, state  # type: ignore[attr-defined]


def test_a_strategy_of_tensors() -> None:
    balancer = Balancer(list("abcd"), Learner(), terms=("cls", "bbox"), interval=3)
    (scale,) = balancer.parameters()
    first = torch.rand(2, 4, requires_grad=True)
    second = torch.rand(2, 4, requires_grad=True)
    one, two = balancer(first), balancer(second)
    (one + two).backward()  # both at once, as when gradients are accumulated
    assert first.grad is not None and second.grad is not None and scale.grad is not None
    assert first.grad.tolist() == [[1, 2, 3, 4]] * 2
    expected = torch.tensor([1.0, 2, 3, 4]) + first.detach().sum(dim=0)
    torch.testing.assert_close(second.grad, expected.expand(2, 4))
    torch.testing.assert_close(scale.grad, 2 * (first + second).detach().sum(dim=0))
    torch.testing.assert_close(one.detach(), (first * torch.tensor([1.0, 2, 3, 4])).sum().detach())


def test_state_that_the_host_cannot_write() -> None:
    @dataclass(frozen=True)
    class OfTensors(Learner):
        def initial_state(self, levels: int) -> dict[str, Tensor]:
            return {"last": torch.zeros(2, levels)}

    @dataclass(frozen=True)
    class OfNumbers(OfTensors):
        on_numbers: ClassVar[bool] = True

    @dataclass(frozen=True)
    class OfTensorsAgain(OfNumbers):
        """Its methods may be others, so it has to say so anew."""

    Balancer(["a", "b"], OfTensors(), interval=3)
    Balancer(["a", "b"], OfTensorsAgain(), interval=3)
    with pytest.raises(ValueError, match=r"`learner`: `last`.*scalar or a vector.* Found the shape \[2, 2\]"):
        Balancer(["a", "b"], OfNumbers(), interval=3)


def test_parameters_of_another_shape() -> None:
    @dataclass(frozen=True)
    class Wrong(Learner):
        def initial_parameters(self, levels: int) -> dict[str, Tensor]:
            return {"scale": torch.ones(2, levels)}

    with pytest.raises(
        ValueError, match=r"`scale` should have the shape \[2\], one number a level. Found \[2, 2\]"
    ):
        Balancer(["a", "b"], Wrong(), interval=3)


def test_a_parameter_in_half_precision() -> None:
    balancer = Balancer(["a", "b"], "uw", interval=3)
    (learned,) = balancer.parameters()
    learned.data = learned.data.bfloat16()
    balancer(torch.tensor([1.0, 3.0])).backward()
    assert learned.grad is not None and learned.grad.tolist() == [0, -1]  # (1 - L) / 2


def test_draws_go_on_after_compiled_steps() -> None:
    """The host counts again, from where the device has come to."""
    compiled, eager = (Balancer(list("abc"), "rlw", interval=3, seed=1) for _ in range(2))
    step = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    rows = torch.rand(14, 3)
    for m, row in enumerate(rows):
        found = step(row) if 2 <= m < 9 else compiled(row)
        torch.testing.assert_close(found, eager(row))


def test_what_the_host_writes_is_the_state() -> None:
    balancer = Balancer(list("abc"), "slaw", terms=("cls", "bbox"), interval=5)
    rows = torch.rand(3, 2, 3)
    for row in rows:
        balancer(row)
    state = balancer.state_dict()
    torch.testing.assert_close(state["losses"][0, :3], rows.to(torch.float64), rtol=0, atol=0)
    assert state["strategy_count"].tolist() == [3, 3, 3]
    copy = Balancer(list("abc"), "slaw", terms=("cls", "bbox"), interval=5)
    copy.load_state_dict(deepcopy(state), assign=True)  # other tensors in the buffers' places
    for row in torch.rand(4, 2, 3):
        torch.testing.assert_close(copy(row), balancer(row), rtol=0, atol=0)
    assert copy.state_dict()["strategy_count"].tolist() == [7, 7, 7]
    assert copy.drain()[0].loss == balancer.drain()[0].loss
