"""The trainer of a run: accumulation, precision, and steps that must not be taken."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_detectron2 import BOXES, tiny
from torch import Tensor, nn
from zoo.small_detectron2 import batch

from msbal.backend.kit.nonfinite import OnNonFinite
from msbal.backend.kit.seeding import seed_iteration
from msbal.backend.kit.steps import make_average
from msbal.engine import LevelLosses
from msbal.errors import RunError
from msbal.spec import ScheduleSpec
from msbal_detectron2 import balance
from msbal_detectron2.trainer import Trainer

RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
FASTER = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"


def make(
    model: nn.Module | None = None,
    steps: int = 4,
    skip: bool = False,
    scope: tuple[str, ...] = ("rpn",),
    say: Callable[[str], None] = lambda text: None,
    strategy: str = "equal",
    **schedule: Any,
) -> Trainer:
    model = tiny(RETINANET).train() if model is None else model
    balanced = balance(model, strategy, interval=2, scope=scope)
    optimizer = torch.optim.SGD([*model.parameters(), *balanced.parameters()], lr=1e-3)
    policy = OnNonFinite("skip" if skip else "stop", say)
    spec = ScheduleSpec(**schedule)
    average = make_average(model, spec.ema)
    return Trainer(model, [batch(BOXES)] * steps, optimizer, balanced, spec, policy, 0, average)


def weights(trainer: Trainer) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def spoil(trainer: Trainer, at: int, level: int, term: int, group: str = "all") -> None:
    """A NaN in one level's loss of one iteration."""
    splitter: Any = next(s for s in trainer.balanced.splitters if s.group.name == group)
    own = splitter.level_losses

    def broken(*args: Any) -> LevelLosses:
        losses: LevelLosses = own(*args)
        if trainer.iter == at:
            mask = torch.ones_like(losses.values)
            mask[term, level] = float("nan")
            losses = LevelLosses(losses.values * mask, losses.positives)
        return losses

    splitter.level_losses = broken


def test_accumulated_gradients_are_the_mean_of_the_iterations() -> None:
    model = tiny(RETINANET).train()
    twin = copy.deepcopy(model)
    trainer = make(model, steps=2, accumulate=2)
    found: list[dict[str, Tensor]] = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: found.append(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )
    )
    trainer.train(0, 2)
    expected: dict[str, Tensor] = {}
    for _ in range(2):
        twin.zero_grad(set_to_none=True)
        sum(twin(batch(BOXES)).values()).backward()
        for name, parameter in twin.named_parameters():
            if parameter.grad is not None:
                expected[name] = expected.get(name, 0) + parameter.grad / 2
    assert len(found) == 1 and found[0].keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[0][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_a_nan_stops_before_it_reaches_the_weights_and_is_named() -> None:
    trainer = make(clip_norm=1.0)
    spoil(trainer, at=1, level=2, term=1)
    trainer.train(0, 1)
    before = weights(trainer)
    with pytest.raises(RunError, match=r"^iteration 2, rank 0: the loss P5/bbox is nan; expected finite"):
        trainer.train(1, 2)
    assert same(weights(trainer), before)


def test_of_several_groups_the_group_is_named_too() -> None:
    trainer = make(tiny(FASTER).train(), scope=("rpn", "roi"))
    spoil(trainer, at=0, level=1, term=0, group="roi")
    with pytest.raises(RunError, match="the loss roi P3/cls is nan"):
        trainer.train(0, 1)


def test_a_loss_that_is_not_balanced_is_named_by_detectron2s_name() -> None:
    model = tiny(FASTER).train()
    trainer = make(model)
    with torch.no_grad():
        model.roi_heads.box_predictor.bbox_pred.bias.fill_(float("nan"))
    with pytest.raises(RunError, match="the loss loss_box_reg is nan"):
        trainer.train(0, 1)


@pytest.mark.parametrize("at", [0, 1])
def test_skipping_leaves_the_whole_accumulated_step_out(at: int) -> None:
    said: list[str] = []
    trainer = make(skip=True, say=said.append, accumulate=2)
    spoil(trainer, at=at, level=0, term=0)
    before = weights(trainer)
    trainer.train(0, 2)
    assert same(weights(trainer), before)
    assert said == [f"step left out: iteration {at + 1}, rank 0: the loss P3/cls is nan"]
    trainer.train(2, 4)
    assert not same(weights(trainer), before)
    assert all(bool(torch.isfinite(value).all()) for value in weights(trainer))


@pytest.mark.parametrize("skip", [False, True])
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(skip: bool) -> None:
    said: list[str] = []
    trainer = make(skip=skip, say=said.append)
    bias = trainer.model.head.cls_score.bias
    handle = bias.register_hook(lambda gradient: gradient * float("inf"))
    before = weights(trainer)
    if skip:
        trainer.train(0, 1)
        assert "the gradient of a finite loss is not finite" in said[0]
    else:
        with pytest.raises(RunError, match="iteration 1, rank 0: the gradient of a finite loss"):
            trainer.train(0, 1)
    assert same(weights(trainer), before)
    handle.remove()
    trainer.train(1, 2)
    assert not same(weights(trainer), before)


def test_watching_the_gradients_changes_no_bit() -> None:
    """Against detectron2's own trainer, from the same random numbers."""
    from detectron2.engine import SimpleTrainer

    own, ours = (tiny(FASTER).train() for _ in range(2))
    ours.load_state_dict(own.state_dict())
    theirs = SimpleTrainer(own, [batch(BOXES)] * 3, torch.optim.SGD(own.parameters(), lr=1e-3))
    theirs.before_step = lambda: seed_iteration(0, theirs.iter + 1)  # type: ignore[method-assign]
    theirs.train(0, 3)
    make(ours, scope=("rpn", "roi")).train(0, 3)
    for name, value in own.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_learned_weights_learn_and_resume() -> None:
    trainer = make(strategy="uw", ema=0.5, clip_norm=1.0)
    trainer.train(0, 2)
    (learned,) = trainer.balanced.parameters()
    assert float(learned.detach().abs().max()) > 0
    again = make(strategy="uw", ema=0.5, clip_norm=1.0)
    again.balanced.load_state_dict(trainer.balanced.state_dict())
    assert torch.equal(next(again.balanced.parameters()), learned)
