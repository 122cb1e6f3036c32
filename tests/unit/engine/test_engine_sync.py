"""How often an iteration and an interval's end wait for the device, and what they run on it; here without one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from msbal.baselines import Fixed
from msbal.engine import Balancer, LevelLosses, Strategy, available
from msbal.testing.card import Card
from msbal.testing.strategies import GeneratedGradients

VIEWS = {
    f"aten.{name}" for name in ("detach", "view", "_unsafe_view", "expand", "select", "slice", "unbind", "t")
}


def make(name: str, terms: tuple[str, ...] = ("cls", "bbox"), interval: int = 3, **options: Any) -> Balancer:
    strategy: Strategy | str = Fixed((1, 2, 3, 4)) if name == "fixed" else name
    parameters = (
        GeneratedGradients()
    )  # for those that decide by gradients; a measurement's own waits are not counted
    return Balancer(
        ["P3", "P4", "P5", "P6"], strategy, terms=terms, interval=interval, parameters=parameters, **options
    )


def train(balancer: Balancer, iterations: int, positives: bool = True) -> None:
    counts = torch.empty(4, device="meta") if positives else None
    for _ in range(iterations):
        values = torch.empty(len(balancer.terms), 4, device="meta", requires_grad=True)
        balancer(LevelLosses(values, counts)).backward()
        assert values.grad is not None


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("terms", [("loss",), ("cls", "bbox")])
@pytest.mark.parametrize("name", sorted(available()))
def test_one_wait_in_an_interval(name: str, terms: tuple[str, ...], rescale: bool) -> None:
    balancer = make(name, terms, rescale=rescale).to("meta")
    train(balancer, 1)  # brings what there is to the device
    with Card() as card:
        train(balancer, 1)
        assert card.waits == 0
        train(balancer, 1)  # ends the interval
        assert card.waits == 1
        train(balancer, 9)
    assert card.waits == 1 + 3
    assert balancer.intervals == 4 and len(balancer.drain()) == 4


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x[0] > 0),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.equal(x, x),
        lambda x: x.tolist(),
    ],
)
def test_every_other_look_is_noticed(look: Callable[[torch.Tensor], object]) -> None:
    """What the test above would miss otherwise, if a step did it."""
    with Card() as card:
        try:
            look(torch.empty(4, device="meta"))
        except (RuntimeError, NotImplementedError):
            return
    assert card.waits == 1


def test_copies_that_wait_are_counted() -> None:
    values = torch.empty(4, device="meta")
    with Card() as card:
        values.cpu()
        torch.ones(4).to("meta")
        values.copy_(torch.ones(4))
        assert card.waits == 3
        torch.ones(4).to("meta", non_blocking=True)
        assert card.waits == 3


def operators(f: Callable[[], object]) -> Counter[str]:
    with Card() as card:
        f()
    return Counter({name: count for name, count in card.calls.items() if name not in VIEWS})


@pytest.mark.parametrize("name", ["rlo", "avw", "equal", "dwa"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_step_has_two_kernels_more_than_a_sum(name: str, device: str) -> None:
    balancer = make(name, interval=100)
    scalars = [torch.rand((), device=device, requires_grad=True) for _ in range(8)]
    losses = {"cls": scalars[:4], "bbox": scalars[4:]}
    balancer(losses).backward()  # brings what there is to the device

    plain = operators(lambda: torch.stack(scalars).sum().backward())
    balanced = operators(lambda: balancer(losses).backward())
    # A product and a sum in one for the sum; more are its derivative, and the losses into the interval's row.
    plain["aten.dot"] = plain.pop("aten.sum")
    assert balanced - plain == Counter({"aten.copy_": 1, "aten.mul": 1})
    assert plain - balanced == Counter()
