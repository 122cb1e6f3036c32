"""The losses of one batch, of a model that is balanced and of one that is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from test_kit_balanced import LEVELS, Model, Splitter

from msbal.backend import LevelGroup
from msbal.backend.kit.balanced import Balanced, balanced_of, group_names
from msbal.backend.kit.one_batch import balanced_losses, framework_losses, split_losses
from msbal.baselines import Fixed
from msbal.engine import BalancerSet

GROUP = LevelGroup("all", "Head", LEVELS, (8, 16, 32), ("cls", "bbox"))


class Remembering(Splitter):
    """Of a head that divides by a running mean."""

    def state(self) -> dict[str, Any]:
        return {"mean": self.owner.mean}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.owner.mean = state["mean"]


@pytest.mark.parametrize("is_balanced", [False, True])
def test_levels_and_the_rest_add_up_and_nothing_is_counted(is_balanced: bool) -> None:
    model = Model()
    splitters = [Remembering(model.head, GROUP, ("loss_cls", "loss_box"))]
    balancers = BalancerSet(group_names([GROUP]), Fixed((3.0, 0.5, 2.0)), interval=2)
    if is_balanced:
        Balanced(model, splitters, balancers)
    model.eval()
    for _ in range(2):
        torch.manual_seed(0)
        own = framework_losses(model, splitters, lambda: model(torch.tensor(2.0)))
        torch.manual_seed(0)
        found = split_losses(model, splitters, lambda: model(torch.tensor(2.0)))
        assert list(own) == ["loss_cls", "loss_box", "loss_other"] and list(found.rest) == ["loss_other"]
        torch.testing.assert_close(
            sum(own.values()), found.groups["all"].values.sum() + found.rest["loss_other"]
        )
        assert found.groups["all"].values.requires_grad
    assert balancers.balancers["all"].iteration == 0 and not model.training
    assert model.head.mean == 1.0 and model.head.seen == 0
    assert (balanced_of(model) is not None) == is_balanced


@pytest.mark.parametrize("is_balanced", [False, True])
def test_a_training_pass_with_other_weights_leaves_no_trace(is_balanced: bool) -> None:
    model = Model()
    splitters = [Remembering(model.head, GROUP, ("loss_cls", "loss_box"))]
    balancers = BalancerSet(group_names([GROUP]), Fixed((3.0, 0.5, 2.0)), interval=2)
    if is_balanced:
        Balanced(model, splitters, balancers)
    model.eval()

    def losses() -> Mapping[str, torch.Tensor]:
        torch.manual_seed(0)
        found: Mapping[str, torch.Tensor] = model(torch.tensor(2.0))
        return found

    levels = split_losses(model, splitters, losses).groups["all"].values.sum(dim=0)
    own = framework_losses(model, splitters, losses)
    found = balanced_losses(model, splitters, losses, Fixed((1.0, 4.0, 0.25)))
    expected = levels @ torch.tensor([1.0, 4.0, 0.25]) + own["loss_other"]
    torch.testing.assert_close(sum(found.values()), expected)
    assert balancers.balancers["all"].iteration == 0 and not model.training and model.head.mean == 1.0
    assert (balanced_of(model) is not None) == is_balanced


def test_what_a_model_does_with_its_heads_losses_is_in_its_levels() -> None:
    class Own(Model):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            losses = super().forward(x)
            return {"total": 3 * losses["loss_cls"] + losses["loss_other"], "box": losses["loss_box"]}

    model = Own()
    splitters = [Remembering(model.head, GROUP, ("loss_cls", "loss_box"))]
    torch.manual_seed(0)
    cls, box = model.head.levels(torch.tensor(2.0))
    model.head.mean = 1.0
    torch.manual_seed(0)
    found = split_losses(model, splitters, lambda: model(torch.tensor(2.0)))
    torch.testing.assert_close(found.groups["all"].values, torch.stack([3 * cls, box]))
    assert list(found.rest) == ["total"]
    torch.testing.assert_close(found.rest["total"].detach(), 2 * model.other.detach())


def test_a_head_that_is_called_twice_is_split_whole() -> None:
    """A student's head is: once with labels, once with its teacher's."""

    class Twice(Model):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            first, second = super().forward(x), super().forward(3 * x)
            return {"sup_loss": sum(first.values()), "unsup_loss": 4 * sum(second.values())}  # type: ignore[dict-item]

    model = Twice()
    splitters = [Remembering(model.head, GROUP, ("loss_cls", "loss_box"))]

    def losses() -> Mapping[str, torch.Tensor]:
        torch.manual_seed(0)
        found: Mapping[str, torch.Tensor] = model(torch.tensor(2.0))
        return found

    found = split_losses(model, splitters, losses)
    weighted = balanced_losses(model, splitters, losses, Fixed((3.0, 3.0, 3.0)))
    rest = sum(found.rest.values())
    torch.testing.assert_close(
        sum(framework_losses(model, splitters, losses).values()), found.groups["all"].values.sum() + rest
    )
    torch.testing.assert_close(sum(weighted.values()), 3 * found.groups["all"].values.sum() + rest)
