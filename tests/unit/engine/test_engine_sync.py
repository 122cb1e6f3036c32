"""A step and an interval's end ask a device for nothing; here on the CPU, by the operators they call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from msbal.engine import Balancer, Fixed, LevelLosses, Strategy, available, host
from msbal.engine.outbox import Outbox

aten = torch.ops.aten
# What makes the host wait for a device, or has a shape that depends on values.
WAITING = {
    aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select,
    aten.unique_dim, aten._unique2, aten.allclose,
}  # fmt: skip


class Watch(TorchDispatchMode):
    """Collects the operators that run, and fails at one that waits."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = func.overloadpacket is aten.index and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        assert func.overloadpacket not in WAITING and not by_mask, f"{func} makes the host wait"
        self.calls.append(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


def strategy(name: str) -> Strategy | str:
    return Fixed((1, 2, 3, 4)) if name == "fixed" else name


def test_the_watch_sees_waiting() -> None:
    with Watch(), pytest.raises(AssertionError, match="_local_scalar_dense"):
        float(torch.ones(3).sum())
    with Watch(), pytest.raises(AssertionError, match="wait"):
        torch.ones(3)[torch.ones(3) > 0]


@pytest.mark.parametrize("name", sorted(available()))
def test_no_waiting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "readable", lambda tensor: False)  # as on a device
    balancer = Balancer(["a", "b", "c", "d"], strategy(name), terms=("cls", "bbox"), interval=3)
    with Watch():
        for _ in range(7):
            scalars = [torch.rand((), requires_grad=True) for _ in range(8)]
            values = torch.stack(scalars).view(2, 4)
            balancer(LevelLosses(values, torch.ones(4))).backward()
    assert balancer.iteration == 7
    assert len(balancer.drain()) == 2


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("terms", [("loss",), ("cls", "bbox")])
@pytest.mark.parametrize("name", sorted(available()))
def test_a_device_that_has_no_values_to_look_at(
    name: str, terms: tuple[str, ...], captured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's meta device: every look at a value raises there, and so does a tensor that was left on the CPU."""
    sent: list[torch.Tensor] = []
    monkeypatch.setattr(Outbox, "send", lambda outbox, report: sent.append(report))
    balancer = Balancer(["a", "b", "c", "d"], strategy(name), terms=terms, interval=3).to("meta")
    balancer._captured = captured  # as from the first step in a CUDA graph on
    for _ in range(7):
        values = torch.empty(len(terms), 4, device="meta", requires_grad=True)
        balancer(LevelLosses(values, torch.empty(4, device="meta"))).backward()
        assert values.grad is not None
    assert {tensor.device.type for tensor in balancer.state_dict().values()} == {"meta"}
    # A captured step cannot send: whoever drains asks for the last report.
    assert [report.device.type for report in sent] == ([] if captured else ["meta", "meta"])


def operators(f: Any) -> list[str]:
    views = {"aten.detach", "aten.view", "aten.expand", "aten.select", "aten.unbind", "aten.t"}
    with Watch() as watch:
        f()
    return [call for call in watch.calls if call not in views]


@pytest.mark.parametrize("name", ["rlo", "avw", "equal"])
@pytest.mark.parametrize("device", [False, True])
def test_a_step_has_at_most_three_kernels_more_than_a_sum(
    name: str, device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device:
        monkeypatch.setattr(host, "readable", lambda tensor: False)
    balancer = Balancer(["a", "b", "c", "d"], name, terms=("cls", "bbox"), interval=100)
    scalars = [torch.rand((), requires_grad=True) for _ in range(8)]
    losses = {"cls": scalars[:4], "bbox": scalars[4:]}
    balancer(losses).backward()  # the first step prepares

    plain = operators(lambda: torch.stack(scalars).sum().backward())
    balanced = operators(lambda: balancer(losses).backward())
    # A product and a sum in one for the sum, its derivative, and the losses into the interval.
    plain[plain.index("aten.sum")] = "aten.dot"
    for call in plain:
        balanced.remove(call)
    # On the CPU the host writes the losses into the interval itself.
    assert sorted(balanced) == (["aten.copy_", "aten.mul"] if device else ["aten.mul"])
