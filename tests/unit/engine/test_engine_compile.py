"""torch.compile: the graph breaks at the balancer, and all else is the same as eager, whichever runs when."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from msbal.engine import Balancer, GradientError, IntervalRecord, LevelLosses

ROWS = torch.rand(14, 2, 3, generator=torch.Generator().manual_seed(0)) + 0.1


def make(name: str) -> Balancer:
    options = {"interval": 3, "seed": 4, "terms": ("cls", "bbox")}
    if name == "rlo":
        from msbal.engine import RLO

        return Balancer(["a", "b", "c"], RLO(top_k=1, step=0.1), **options)  # type: ignore[arg-type]
    return Balancer(["a", "b", "c"], name, **options)  # type: ignore[arg-type]


def step(balancer: Balancer) -> Callable[[Tensor], Tensor]:
    positives = torch.tensor([2.0, 1.0, 3.0])

    def weigh(row: Tensor) -> Tensor:
        # Part of a model: something before the balancer and something behind it.
        values = torch.stack([2 * scalar for scalar in row.flatten()]).view(2, 3) / 2
        return balancer(LevelLosses(values, positives)) * 1.0

    return weigh


def run(
    steps: list[Callable[[Tensor], Tensor]], balancer: Balancer, rows: Tensor
) -> tuple[list[float], list[list[float]], list[IntervalRecord]]:
    """Row m through ``steps[m % len(steps)]``."""
    totals, gradients, records = [], [], []
    for m, row in enumerate(rows):
        values = row.clone().requires_grad_()
        total = steps[m % len(steps)](values)
        total.backward()
        assert values.grad is not None
        totals.append(total.item())
        gradients.append(values.grad.flatten().tolist())
        records += balancer.drain()
    return totals, gradients, records


def assert_alike(compiled: Balancer, how: list[Callable[[Tensor], Tensor]], eager: Balancer) -> None:
    rows = ROWS.clone()
    rows[7, 0, 1] = float("nan")
    totals, gradients, records = run(how, compiled, rows)
    expected_totals, expected_gradients, expected_records = run([step(eager)], eager, rows)
    assert totals == pytest.approx(expected_totals, rel=1e-6, nan_ok=True)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-6, atol=1e-7, equal_nan=True)
    assert len(records) == len(expected_records) == 4
    for a, b in zip(records, expected_records, strict=True):
        assert (a.interval, a.iteration, a.action, a.reward, a.nonfinite, a.count, a.positives) == (
            b.interval, b.iteration, b.action, b.reward, b.nonfinite, b.count, b.positives,
        )  # fmt: skip
        assert a.loss == pytest.approx(b.loss)
        assert a.weights == pytest.approx(b.weights)
        assert a.variance == pytest.approx(b.variance)
        assert a.probabilities == pytest.approx(b.probabilities)
    assert compiled.iteration == eager.iteration == len(rows)


@pytest.mark.timeout(300)
def test_compiled_equals_eager() -> None:
    torch._dynamo.reset()
    compiled, eager = make("rlo"), make("rlo")
    weigh = torch.compile(step(compiled), backend="aot_eager")
    assert_alike(compiled, [weigh], eager)
    # The same graph goes on after eager steps in the middle of an interval, and eager after it.
    mixed = make("rlo")
    compiled.load_state_dict(mixed.state_dict())
    assert_alike(compiled, [step(compiled), weigh, weigh, step(compiled), step(compiled)], mixed)


@pytest.mark.parametrize("name", ["uw", "cov"])
@pytest.mark.timeout(300)
def test_strategies_of_every_step_compile(name: str) -> None:
    torch._dynamo.reset()
    compiled, eager = make(name), make(name)
    weigh = torch.compile(step(compiled), backend="aot_eager")
    assert_alike(compiled, [weigh, weigh, step(compiled)], eager)
    if name == "uw":
        ours, theirs = compiled.strategy_log_variance.grad, eager.strategy_log_variance.grad
        torch.testing.assert_close(ours, theirs)
        assert bool((ours != 0).all())


@pytest.mark.parametrize("name", ["avw", "uw_so", "gls", "dwa", "rlw", "slaw", "autobalance", "positives"])
@pytest.mark.timeout(300)
def test_every_strategy_compiles(name: str) -> None:
    """The tracer alone, which is where a graph breaks."""
    torch._dynamo.reset()
    compiled, eager = make_small(name), make_small(name)
    weigh = torch.compile(step(compiled), backend="eager")
    assert_alike(compiled, [weigh], eager)


def make_small(name: str) -> Balancer:
    from msbal.engine import AVW

    options = {"interval": 3, "seed": 4, "terms": ("cls", "bbox")}
    return Balancer(["a", "b", "c"], AVW(top_k=1) if name == "avw" else name, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backward_of_a_compiled_step_uses_its_own_weights(dtype: torch.dtype) -> None:
    """A compiler may recompute a copy of the weights in the backward, when they have changed already."""
    from msbal.engine import MaxLoss

    torch._dynamo.reset()
    balancer = Balancer(["a", "b", "c"], MaxLoss(top_k=1), interval=2)
    weigh = torch.compile(balancer, backend="aot_eager")
    values = [row[0].to(dtype).requires_grad_() for row in ROWS[:2]]
    totals = [weigh(value) for value in values]
    assert float(balancer.weights.max()) > 1
    for value, total in zip(values, totals, strict=True):
        total.backward()
        assert value.grad is not None and value.grad.tolist() == [1, 1, 1]


def test_nonfinite_losses_of_a_compiled_step_are_named() -> None:
    torch._dynamo.reset()
    balancer = Balancer(["a", "b"], "equal", interval=2)
    weigh = torch.compile(balancer, backend="eager")
    for m in range(1, 6):
        weigh(torch.tensor([1.0, float("inf") if m in (2, 3) else 1.0]))
        named = [(found.iteration, found.level, found.value) for found in balancer.nonfinite()]
        assert named == ([(m, "b", "inf")] if m in (2, 3) else [])


@pytest.mark.release
@pytest.mark.timeout(600)
def test_inductor() -> None:
    torch._dynamo.reset()
    compiled, eager = make("rlo"), make("rlo")
    weigh = torch.compile(step(compiled))
    try:
        assert_alike(compiled, [weigh, weigh, step(compiled), weigh], eager)
    except torch._dynamo.exc.BackendCompilerFailed as error:
        if "distutils" in str(error):
            pytest.skip("another module of this process keeps setuptools from its distutils: no compiler")
        raise


def train_measured(measure: int | None, backend: str) -> tuple[list[IntervalRecord], dict[str, Tensor]]:
    """Train a compiled model; return the records and the weights."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 3), torch.nn.Sigmoid()
    )  # fmt: skip
    compiled = torch.compile(model, backend=backend)
    balancer = Balancer(["a", "b", "c"], interval=3, measure=2, parameters=model.parameters())
    if measure is None:
        balancer = Balancer(["a", "b", "c"], interval=3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    for _ in range(6):
        optimizer.zero_grad()
        balancer(compiled(images).pow(2).mean(dim=(0, 2, 3))).backward()
        optimizer.step()
    return balancer.drain(), model.state_dict()


def assert_measured(backend: str) -> None:
    records, weights = train_measured(2, backend)
    _, unmeasured = train_measured(None, backend)
    assert all(torch.equal(unmeasured[key], value) for key, value in weights.items())
    eager, _ = train_measured(2, "eager")
    for ours, theirs in zip(records, eager, strict=True):
        assert ours.gradient_count == theirs.gradient_count > 0
        assert ours.gradient_norm["model"] == pytest.approx(theirs.gradient_norm["model"], rel=1e-4)


@pytest.mark.timeout(300)
def test_a_compiled_model_is_measured_and_keeps_its_bits() -> None:
    assert_measured("aot_eager")


@pytest.mark.release
@pytest.mark.timeout(600)
def test_inductors_backward_pass_is_measured_or_refused_at_once() -> None:
    """It may give buffers away in the first backward pass, which would spoil the second."""
    try:
        assert_measured("inductor")
    except GradientError as error:
        assert "donated_buffer = False at the start of the script" in str(error) and "\n" not in str(error)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import torch._functorch.config;"
        " torch._functorch.config.donated_buffer = False;"
        " import test_engine_compile; test_engine_compile.assert_measured('inductor')"
    )
    # Not from the cache, in which graphs of both kinds are the same.
    environment = os.environ | {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_the_compiler_is_imported_by_those_who_compile() -> None:
    """It takes as long as the rest of torch, and every command would wait for it."""
    code = (
        "import sys, torch; before = set(sys.modules); import msbal.engine.balancer;"
        " print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = done.stdout.split()
    assert "msbal.engine.balancer" in imported
    assert "torch._dynamo" not in imported
