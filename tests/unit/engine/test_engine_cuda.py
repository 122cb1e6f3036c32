"""On a CUDA device: one wait in an interval, few kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from msbal.engine import Balancer, IntervalRecord, LevelLosses

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

NAMES = ["rlo", "avw", "uw", "uw_so", "gls", "dwa", "rlw", "cov", "slaw", "autobalance", "positives"]


def make(name: str = "rlo", interval: int = 4) -> Balancer:
    return Balancer(["P3", "P4", "P5", "P6"], name, terms=("cls", "bbox"), interval=interval, seed=1)


def rows(count: int, device: str = "cuda") -> Tensor:
    return (torch.rand(count, 2, 4, generator=torch.Generator().manual_seed(0)) + 0.1).to(device)


def run_on(device: str, name: str, losses: Tensor) -> list[IntervalRecord]:
    balancer = make(name).to(device)
    for row in losses.to(device):
        balancer(LevelLosses(row, torch.ones(4, device=device)))
    return balancer.drain()


def assert_alike(ours: list[IntervalRecord], theirs: list[IntervalRecord]) -> None:
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert (a.interval, a.action, a.reward) == (b.interval, b.action, b.reward)
        assert a.weights == pytest.approx(b.weights, rel=1e-9)
        assert a.probabilities == pytest.approx(b.probabilities, rel=1e-12)


@pytest.fixture
def sync_mode() -> Iterator[Callable[[str], None]]:
    yield torch.cuda.set_sync_debug_mode
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", NAMES)
def test_a_step_never_waits_and_an_interval_once(name: str, sync_mode: Callable[[str], None]) -> None:
    losses, positives = rows(12), torch.ones(4, device="cuda")
    balancer = make(name)

    def step(row: Tensor) -> None:
        balancer(LevelLosses(row.clone().requires_grad_(), positives)).backward()

    step(losses[0])  # brings what there is to the device
    for m, row in enumerate(losses[1:], start=2):
        ends = m % 4 == 0
        sync_mode("warn" if ends else "error")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step(row)
        assert sum("synchroniz" in str(w.message) for w in caught) == int(ends)
    sync_mode("default")
    assert balancer.iteration == 12


@pytest.mark.parametrize("name", NAMES)
def test_the_same_as_on_the_cpu(name: str) -> None:
    assert_alike(run_on("cuda", name, rows(17)), run_on("cpu", name, rows(17)))


def test_moves_to_the_losses_by_itself() -> None:
    balancer = make()
    for row in rows(5):
        assert balancer(row).is_cuda
    assert balancer.weights.is_cuda and balancer.iteration == 5


def kernels(f: object) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        f()  # type: ignore[operator]
        torch.cuda.synchronize()
    return sum(
        event.count for event in profile.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA
    )


def test_kernels_of_a_step() -> None:
    balancer = make(interval=1000).cuda()
    scalars = [torch.rand((), device="cuda", requires_grad=True) for _ in range(8)]
    losses = {"cls": scalars[:4], "bbox": scalars[4:]}
    for _ in range(3):
        balancer(losses)
        torch.stack(scalars).sum()
    plain = kernels(lambda: torch.stack(scalars).sum())
    assert kernels(lambda: balancer(losses)) <= plain + 2


def test_a_graph_that_captures_the_balancer_is_refused() -> None:
    balancer, static = make(), torch.rand(2, 4, device="cuda", requires_grad=True)
    balancer(static)
    with pytest.raises(RuntimeError, match="CUDA graph"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        balancer(static)


def test_compiled_with_cuda_graphs() -> None:
    compiled, eager = make().cuda(), make().cuda()
    step = torch.compile(lambda row: compiled(2 * row / 2), mode="reduce-overhead")
    for row in rows(13):
        torch.compiler.cudagraph_mark_step_begin()
        torch.testing.assert_close(step(row), eager(row))
    assert_alike(compiled.drain(), eager.drain())
    assert compiled.iteration == 13


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision(dtype: torch.dtype) -> None:
    balancer, scaler = make("max_loss"), torch.amp.GradScaler("cuda")
    weight = torch.nn.Parameter(torch.ones(2, 4, device="cuda"))
    optimizer = torch.optim.SGD([weight], 0.01)
    for row in rows(9):
        with torch.autocast("cuda", dtype=dtype):
            total = balancer((weight * row).to(dtype))
        assert total.dtype == torch.float32
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert len(balancer.drain()) == 2


def test_resume_in_the_middle_of_an_interval() -> None:
    losses = rows(13)
    whole, first, second = make("cov"), make("cov"), make("cov")
    for row in losses:
        whole(row)
    for row in losses[:6]:
        first(row)
    second.load_state_dict(first.state_dict())
    for row in losses[6:]:
        second(row)
    assert second.drain() == whole.drain()[1:]


def measured_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.BatchNorm1d(16), torch.nn.Tanh(), torch.nn.Linear(16, 4)
    )


def train_measured(
    device: str, measure: int | None, dtype: torch.dtype = torch.float32
) -> tuple[Balancer, Tensor]:
    model = measured_model().to(device)
    balancer = Balancer(["P3", "P4", "P5", "P6"], interval=4, measure=measure, parameters=model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for m in range(8):
        x = torch.rand(5, 6, generator=torch.Generator().manual_seed(m)).to(device)
        optimizer.zero_grad()
        with torch.autocast(device, dtype=dtype, enabled=dtype is not torch.float32):
            total = balancer(model(x).float().pow(2).mean(dim=0))
        total.backward()
        optimizer.step()
    return balancer, torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_gradients_are_those_on_the_cpu_and_training_keeps_its_bits() -> None:
    balancer, weights = train_measured("cuda", 2)
    assert torch.equal(weights, train_measured("cuda", None)[1])
    assert balancer.gradients is not None and balancer.gradients.seconds > 0
    for ours, theirs in zip(balancer.drain(), train_measured("cpu", 2)[0].drain(), strict=True):
        assert ours.gradient_count == theirs.gradient_count > 0
        assert ours.gradient_norm["shared"] == pytest.approx(theirs.gradient_norm["shared"], rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_in_mixed_precision(dtype: torch.dtype) -> None:
    balancer, weights = train_measured("cuda", 2, dtype)
    assert torch.equal(weights, train_measured("cuda", None, dtype)[1])
    for ours, theirs in zip(balancer.drain(), train_measured("cpu", 2)[0].drain(), strict=True):
        assert ours.gradient_norm["shared"] == pytest.approx(theirs.gradient_norm["shared"], rel=0.1)


def test_without_memory_for_the_gradients_a_run_goes_on() -> None:
    model = measured_model().cuda()
    balancer = Balancer(["P3", "P4", "P5", "P6"], interval=2, measure=1, parameters=model.parameters())
    losses = model(torch.rand(5, 6, device="cuda")).pow(2).mean(dim=0)
    losses.register_hook(lambda _: torch.empty(2**50, dtype=torch.uint8, device="cuda"))
    with pytest.warns(UserWarning, match="were not measured in iteration 1"):
        balancer(losses)
    balancer(model(torch.rand(5, 6, device="cuda")).pow(2).mean(dim=0)).backward()
    assert [record.gradient_count for record in balancer.drain()] == [1]
