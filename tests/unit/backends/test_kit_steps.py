"""Optimizer steps as the backends take them: which are skipped, what a person is told, and what learns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from msbal.backend import LevelGroup
from msbal.backend.kit.nonfinite import MAX_MESSAGES, OnNonFinite, Sighting, name_losses, poisoned
from msbal.backend.kit.steps import Stepper, add_learned, average_gradients
from msbal.errors import RunError

CPU = torch.device("cpu")
RPN = LevelGroup("rpn", "RPN", ("P3", "P4"), (8, 16), ("cls", "bbox"))
ROI = LevelGroup("roi", "RoI", ("P4", "P5"), (16, 32), ("cls",))


def stepper(weight: nn.Parameter, **options: object) -> Stepper:
    return Stepper(torch.optim.SGD([weight], lr=1.0), options.pop("amp", "none"), CPU, **options)  # type: ignore[arg-type]


def test_gradients_of_a_step_are_averaged_over_its_passes() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    steps = stepper(weight, accumulate=2)
    for factor in (1.0, 3.0):
        steps.backward((factor * weight).sum())
    steps.step()
    assert weight.tolist() == [-1.0, 0.0] and weight.grad is None


def test_a_step_is_clipped_to_its_norm() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    steps = stepper(weight, clip_norm=0.5)
    steps.backward((weight * weight).sum() / 2)
    steps.step()
    assert weight.tolist() == pytest.approx([2.7, 3.6])


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_loss_that_is_not_finite_moves_nothing_and_the_next_step_does(clip: float | None) -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    steps = stepper(weight, clip_norm=clip)
    # The gradient of the maximum is finite where the loss is not.
    loss = torch.maximum(weight, torch.tensor([math.inf])).sum() + weight.sum()
    steps.backward(poisoned(loss))
    steps.step()
    assert weight.item() == 1.0
    assert steps.left_out_a_step() and not steps.left_out_a_step()
    steps.backward(poisoned(weight.sum()))
    steps.step()
    assert weight.item() == pytest.approx(0.0, abs=1e-5) and not steps.left_out_a_step()


def test_poison_changes_no_bit_of_a_finite_loss() -> None:
    weight = nn.Parameter(torch.rand(5))
    (loss,) = [(weight**3).sum()]
    gradient, again = (torch.autograd.grad(x, weight, retain_graph=True)[0] for x in (loss, poisoned(loss)))
    assert torch.equal(gradient, again) and torch.equal(loss, poisoned(loss))


def test_the_forward_pass_runs_in_the_precision_asked_for() -> None:
    weight = nn.Parameter(torch.rand(2, 2))
    for amp, dtype in (("none", torch.float32), ("bf16", torch.bfloat16)):
        with stepper(weight, amp=amp).autocast():
            assert (weight @ weight).dtype is dtype


def test_losses_are_named_by_group_level_and_term() -> None:
    losses = {"rpn": torch.tensor([[1.0, math.nan], [0.0, 1.0]]), "roi": torch.tensor([[math.inf, 1.0]])}
    rest = {"loss_mask": torch.tensor(-math.inf), "loss_fine": torch.tensor(1.0)}
    assert name_losses([RPN, ROI], losses, rest) == (
        "the loss rpn P4/cls is nan, roi P4/cls is inf, loss_mask is -inf"
    )
    assert name_losses([RPN], {"rpn": losses["rpn"]}) == "the loss P4/cls is nan"
    assert name_losses([ROI], {}) == "the loss summed over the levels is not finite"


def test_stop_says_in_one_line_what_was_seen_where() -> None:
    policy = OnNonFinite("stop", lambda text: None)
    policy.deal([])
    seen = [Sighting(7, 0, "the loss P4/cls is nan"), Sighting(7, 1, "the loss P3/cls is inf")]
    with pytest.raises(
        RunError, match=r"iteration 7, rank 0.*P4/cls is nan; on rank 1 .*P3/cls is inf"
    ) as caught:
        policy.deal(seen)
    assert "\n" not in str(caught.value)


def test_skip_says_each_step_until_there_are_too_many() -> None:
    said: list[str] = []
    policy = OnNonFinite("skip", said.append)
    for iteration in range(2 * MAX_MESSAGES):
        policy.deal([Sighting(iteration, 0, "the loss P4/cls is nan")])
    assert said[0] == "step left out: iteration 0, rank 0: the loss P4/cls is nan"
    assert len(said) == MAX_MESSAGES and said[-1].endswith("(further ones are only recorded)")


def test_what_a_strategy_learns_is_not_decayed() -> None:
    model, learned = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([model], lr=0.5, weight_decay=1.0)
    assert add_learned(optimizer, []) is None
    group = add_learned(optimizer, [learned])
    assert group is not None and group["lr"] == 0.5
    learned.grad = torch.zeros(3)
    average_gradients([learned])  # alone: as it was
    optimizer.step()
    assert torch.equal(learned.detach(), torch.ones(3))
