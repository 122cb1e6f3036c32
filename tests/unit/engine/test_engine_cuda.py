"""On a CUDA device: no waiting, few kernels, graphs."""

from __future__ import annotations

from collections.abc import Iterator

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
    return Balancer(["a", "b", "c", "d"], name, terms=("cls", "bbox"), interval=interval, seed=1)


def rows(count: int, device: str = "cuda") -> Tensor:
    return (torch.rand(count, 2, 4, generator=torch.Generator().manual_seed(0)) + 0.1).to(device)


def run_on(device: str, name: str, losses: Tensor) -> list[IntervalRecord]:
    balancer = make(name).to(device)
    for row in losses.to(device):
        balancer(LevelLosses(row, torch.ones(4, device=device)))
    return balancer.drain(wait=True)


def assert_alike(ours: list[IntervalRecord], theirs: list[IntervalRecord]) -> None:
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert (a.interval, a.action, a.reward) == (b.interval, b.action, b.reward)
        assert a.weights == pytest.approx(b.weights, rel=1e-9)
        assert a.probabilities == pytest.approx(b.probabilities, rel=1e-12)


@pytest.fixture
def no_waiting() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", NAMES)
def test_no_synchronisation(name: str, no_waiting: None) -> None:
    losses, positives = rows(13), torch.ones(4, device="cuda")
    balancer = make(name).cuda()
    torch.cuda.set_sync_debug_mode("error")
    for row in losses:
        values = row.clone().requires_grad_()
        balancer(LevelLosses(values, positives)).backward()
        balancer.reports()
    torch.cuda.set_sync_debug_mode("default")
    assert balancer.iteration == 13


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
    assert kernels(lambda: balancer(losses)) <= plain + 3


@pytest.mark.parametrize("name", ["rlo", "cov", "uw"])
def test_a_captured_graph_goes_on_balancing(name: str) -> None:
    losses = rows(21)
    captured, eager = make(name).cuda(), make(name).cuda()
    static, gradient = torch.zeros(2, 4, device="cuda", requires_grad=True), torch.zeros(2, 4, device="cuda")

    def step() -> Tensor:
        total = captured(static)
        (found,) = torch.autograd.grad(total, static)
        gradient.copy_(found)
        return total.detach()

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total = step()
    captured.load_state_dict(eager.state_dict())

    ours, theirs = [], []
    for m, row in enumerate(losses):
        values = row.clone().requires_grad_()
        expected = eager(values)
        expected.backward()
        if m % 7 == 3:  # an eager step among the replays
            captured(row)
        else:
            with torch.no_grad():
                static.copy_(row)
            graph.replay()
            torch.testing.assert_close(total, expected.detach())
            torch.testing.assert_close(gradient, values.grad)
        ours += captured.drain(wait=True)
        theirs += eager.drain(wait=True)
    assert_alike(ours, theirs)
    assert captured.iteration == eager.iteration == 21


def test_compiled_with_cuda_graphs() -> None:
    compiled, eager = make().cuda(), make().cuda()
    step = torch.compile(compiled, fullgraph=True, mode="reduce-overhead")
    for row in rows(13):
        torch.compiler.cudagraph_mark_step_begin()
        torch.testing.assert_close(step(row), eager(row))
    torch.testing.assert_close(compiled.weights, eager.weights)
    assert compiled.iteration == 13
