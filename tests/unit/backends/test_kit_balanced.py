"""The handle that every backend returns, on a toy model with two heads."""

from __future__ import annotations

import copy
import io
import json
import pickle
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from msbal.backend import LevelGroup
from msbal.backend.kit.balance import balance_function
from msbal.backend.kit.balanced import Balanced, balanced_of
from msbal.backend.kit.splitter import LossSplitter, Split
from msbal.baselines import Fixed
from msbal.engine import LevelLosses
from msbal.errors import SpecError

LEVELS = ("P3", "P4", "P5")


class Head(nn.Module):
    """Three levels; its loss draws a number, and divides by a running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        self.mean = 1.0
        self.register_buffer("seen", torch.zeros(()))
        self.parts = [nn.Linear(1, 1)]  # not in the module's own tables, as in detectron2's ResNet

    def levels(self, x: Tensor) -> Tensor:
        self.mean = 0.5 * self.mean + 1.0
        self.seen += 1
        noise = 1 + torch.rand(())
        rows = [(self.weight * x).square() * noise, (self.weight - x).abs() * noise]
        return torch.stack(rows) / self.mean

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        cls, box = self.levels(x).sum(dim=1)
        return {"loss_cls": cls, "loss_box": box}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = Head()
        self.other = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {**self.head.losses(x), "loss_other": self.other * x}


class Splitter(LossSplitter):
    method = "losses"
    factor = 1.0

    def split(self, own: Callable[..., Any], args: Any, kwargs: Any) -> Split:
        values = self.factor * self.owner.levels(*args, **kwargs)  # type: ignore[operator]
        return Split(LevelLosses(values, torch.ones(3)), self.result)

    @staticmethod
    def result(weighted: Tensor) -> dict[str, Tensor]:
        cls, box = weighted.sum(dim=1)
        return {"loss_cls": cls, "loss_box": box}

    def terms(self, result: dict[str, Tensor]) -> list[Tensor | None]:
        return [result[key] for key in self.keys]

    def state(self) -> dict[str, Any]:
        return {"mean": self.owner.mean}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.owner.mean = state["mean"]


def balanced(
    model: Any, strategy: Any = "equal", splitter: type[Splitter] = Splitter, **options: Any
) -> Balanced:
    group = LevelGroup("all", "Head", LEVELS, (8, 16, 32), ("cls", "bbox"))
    splitters = [splitter(model.head, group, ("loss_cls", "loss_box"))]
    balance = balance_function(lambda model, request: request.put(model, splitters))
    return balance(model, strategy, **{"interval": 2, **options})


def total(model: nn.Module, x: float = 2.0) -> Tensor:
    result: Tensor = sum(model(torch.tensor(x)).values())  # type: ignore[assignment]
    return result


def steps(model: nn.Module, count: int = 5) -> list[Tensor]:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(count):
        optimizer.zero_grad()
        total(model).backward()
        optimizer.step()
    return [*(p.detach().clone() for p in model.parameters()), model.head.seen.clone(), torch.rand(3)]  # type: ignore[union-attr, operator]


def test_equal_weights_change_no_bit_and_the_proof_leaves_no_trace() -> None:
    plain, ours = Model(), Model()
    handle = balanced(ours)
    parts, seen = ours.head.parts, ours.head.seen
    before, after = steps(plain), steps(ours)
    assert ours.head.parts is parts and ours.head.seen is seen, "what others know by identity is still there"
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert plain.head.mean == ours.head.mean
    assert [record.iteration for record in handle.drain()] == [2, 4]


def test_the_gradient_is_that_of_the_weighted_sum() -> None:
    plain, ours = Model(), Model()
    balanced(ours, Fixed((3.0, 0.5, 2.0)))
    torch.manual_seed(0)
    (plain.head.levels(torch.tensor(2.0)) * torch.tensor([3.0, 0.5, 2.0])).sum().backward()
    torch.manual_seed(0)
    total(ours).backward()
    torch.testing.assert_close(ours.head.weight.grad, plain.head.weight.grad)


@pytest.mark.parametrize(
    "change", ["scaled in a subclass", "a tuple", "a wrapper", "a hook", "forward called directly"]
)
def test_what_a_user_does_afterwards_is_kept(change: str) -> None:
    class Scaled(Model):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {key: 10 * value for key, value in super().forward(x).items()}

    class Pair(Model):
        def forward(self, x: Tensor, branch: str = "") -> Any:
            return super().forward(x), branch

    def gradient(strategy: Any) -> Tensor:
        model: Any = {"scaled in a subclass": Scaled, "a tuple": Pair}.get(change, Model)()
        if change == "a wrapper":
            own = model.forward
            model.forward = lambda x: {key: 10 * value for key, value in own(x).items()}
        if strategy is not None:
            balanced(model, strategy)
        if change == "a hook":
            model.register_forward_hook(lambda m, i, o: {key: 10 * value for key, value in o.items()})
        torch.manual_seed(0)
        x = torch.tensor(2.0)
        if change == "a tuple":
            losses, branch = model(x, branch="pseudo")
            assert branch == "pseudo"
        else:
            losses = model.forward(x) if change == "forward called directly" else model(x)
        sum(losses.values()).backward()
        return model.head.weight.grad  # type: ignore[no-any-return]

    own = gradient(None)
    assert torch.equal(own, gradient("equal"))
    torch.testing.assert_close(gradient(Fixed((3.0,) * 3)), 3 * own)


def test_levels_that_do_not_add_up_are_refused_before_anything_is_trained() -> None:
    class Wrong(Splitter):
        factor = 1.3

    model = Model()
    handle = balanced(model, splitter=Wrong)
    with pytest.raises(SpecError, match=r"Head\.losses.*loss_cls") as caught:
        total(model)
    assert "\n" not in str(caught.value) and model.head.weight.grad is None
    assert handle.balancers.balancers["all"].iteration == 0


def test_a_loss_of_zero_proves_nothing() -> None:
    class Wrong(Splitter):
        factor = 1.3

    model = Model()
    balanced(model, splitter=Wrong)
    with torch.no_grad():
        weight = model.head.weight.clone()
        model.head.weight.zero_()
    total(model, 0.0)
    with torch.no_grad():
        model.head.weight.copy_(weight)
    with pytest.raises(SpecError, match="loss_cls"):
        total(model)


def test_half_precision_rounds_more() -> None:
    model = Model().bfloat16()
    balanced(model)
    model(torch.tensor(2.0, dtype=torch.bfloat16))


def test_what_losses_remember_in_any_form_is_put_back() -> None:
    class Remembering(Head):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("_average", torch.zeros(()))
            self._count, self.last, self.rows = 0, deque([0.0], maxlen=2), np.zeros(2)

        def levels(self, x: Tensor) -> Tensor:
            self._average += 1  # type: ignore[operator]
            self._count += 1
            self.rows += 1
            self.last.append(float(self._count))
            return super().levels(x)

    plain, ours = Model(), Model()
    for model in (plain, ours):
        model.head = Remembering()
    balanced(ours)
    for model in (plain, ours):
        total(model).backward()
    for name in ("_average", "_count", "last"):
        assert getattr(plain.head, name) == getattr(ours.head, name), name
    assert (plain.head.rows == ours.head.rows).all()  # type: ignore[union-attr]


def test_the_same_head_in_another_model_is_not_weighed_twice() -> None:
    class Around(nn.Module):
        def __init__(self, inner: Model) -> None:
            super().__init__()
            self.inner, self.head = inner, inner.head

        def forward(self, x: Tensor) -> Any:
            return self.inner(x)

    model = Model()
    balanced(model)
    with pytest.raises(SpecError, match="balanced already"):
        balanced(Around(model))


def test_a_copy_of_the_head_alone_has_its_own_loss() -> None:
    model, other, plain = Model(), Model(), Model()
    handle = balanced(model, Fixed((3.0,) * 3))
    other.head = copy.deepcopy(model.head)
    torch.manual_seed(0)
    ours = float(total(other).detach())
    torch.manual_seed(0)
    assert ours == float(total(plain).detach())
    assert handle.balancers.balancers["all"].iteration == 0


def test_a_method_that_was_wrapped_after_balance_has_its_own_loss_after_remove() -> None:
    model, plain = Model(), Model()
    handle = balanced(model, Fixed((3.0,) * 3))
    inner = model.head.losses
    vars(model.head)["losses"] = lambda *a: inner(*a)
    handle.remove()
    torch.manual_seed(0)
    ours = float(total(model).detach())
    torch.manual_seed(0)
    assert ours == float(total(plain).detach())


def test_a_model_in_eval_mode_that_is_trained_on_says_so() -> None:
    model = Model()
    balanced(model)
    model.eval()
    with pytest.warns(UserWarning, match="eval mode"):
        total(model)


def test_a_head_that_is_never_called_is_an_error() -> None:
    class Own(Model):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"loss": self.head.levels(x).sum()}

    model = Own()
    balanced(model)
    with pytest.raises(SpecError, match=r"Head\.losses was never called"):
        model(torch.tensor(1.0))


def test_a_first_loss_that_is_not_finite_was_called_and_proves_nothing() -> None:
    class Wrong(Splitter):
        factor = 1.3

    model = Model()
    balanced(model, splitter=Wrong)
    total(model, float("nan"))
    with pytest.raises(SpecError, match="add up to"):
        total(model)


def test_a_copy_made_between_two_steps_is_balanced() -> None:
    model = Model()
    handle = balanced(model)
    handle.pause()
    twin = copy.deepcopy(model)
    total(twin)
    total(model)
    assert balanced_of(twin).balancers.balancers["all"].iteration == 1  # type: ignore[union-attr]
    assert handle.balancers.balancers["all"].iteration == 0


def test_a_part_that_is_replaced_afterwards_is_an_error() -> None:
    model = Model()
    balanced(model)
    total(model)
    model.head = Head()
    with pytest.raises(SpecError, match="after balance"):
        total(model)


def test_a_wrapper_around_a_part_is_none() -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: Any) -> None:
            super().__init__()
            self.module, self.losses = module, module.losses

    model = Model()
    handle = balanced(model)
    model.head = Wrapper(model.head)
    total(model)
    assert handle.balancers.balancers["all"].iteration == 1


def test_validation_counts_for_nothing() -> None:
    model = Model()
    handle = balanced(model, Fixed((2.0, 2.0, 2.0)))
    iteration = lambda: handle.balancers.balancers["all"].iteration  # noqa: E731
    total(model)
    assert iteration() == 1
    with torch.no_grad():
        total(model)
    model.eval()
    with pytest.warns(UserWarning, match="eval mode"):
        total(model)
    model.train()
    with handle.paused():
        plain = total(model)
    assert iteration() == 1 and float(plain.detach()) != float(total(model).detach())


def test_copies_have_handles_of_their_own() -> None:
    model = Model()
    handle = balanced(model, "rlo", top_k=1)
    steps(model, 3)
    twin: Any = copy.deepcopy(model)
    own = balanced_of(twin)
    assert own is not None and own is not handle and balanced_of(model) is handle
    steps(twin, 3)
    assert handle.balancers.balancers["all"].iteration == 3 and own.balancers.balancers["all"].iteration == 6
    assert own.splitters[0].owner is twin.head


def test_pickles_and_saves_whole() -> None:
    model = Model()
    balanced(model)
    steps(model, 3)
    again = pickle.loads(pickle.dumps(model))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for one in (again, loaded):
        found = balanced_of(one)
        assert found is not None and found.balancers.balancers["all"].iteration == 3
        total(one).backward()
    assert set(model.state_dict()) == set(Model().state_dict())


def test_remove_gives_back_what_was_there() -> None:
    model = Model()
    mine = model.head.losses
    vars(model.head)["losses"] = mine
    names = set(vars(model)), set(vars(model.head))
    handle = balanced(model)
    with pytest.raises(SpecError, match="balanced already"):
        balanced(model)
    handle.remove()
    assert (set(vars(model)), set(vars(model.head))) == names and vars(model.head)["losses"] == mine
    assert balanced_of(model) is None and not model._forward_hooks
    balanced(model).remove()


def test_state_goes_on() -> None:
    whole, first, second = Model(), Model(), Model()
    for model in (whole, first, second):
        balanced(model, "rlo", top_k=1)
    steps(whole, 7)
    steps(first, 4)
    second.load_state_dict(first.state_dict())
    handle = balanced_of(second)
    state = balanced_of(first).state_dict()  # type: ignore[union-attr]
    handle.load_state_dict(state)  # type: ignore[union-attr]
    assert second.head.mean == first.head.mean != Model().head.mean, "which is in no state_dict of the model"
    steps(second, 3)
    assert handle.balancers.balancers["all"].iteration == 7  # type: ignore[union-attr]


def test_records_in_a_folder(tmp_path: Path) -> None:
    def iterations() -> list[int]:
        return [
            json.loads(line)["iteration"] for line in (tmp_path / "intervals.jsonl").read_text().splitlines()
        ]

    model = Model()
    handle = balanced(model, "max_loss", records=tmp_path)
    steps(model, 5)
    saved = copy.deepcopy(handle.state_dict())
    steps(model, 3)
    steps(copy.deepcopy(model), 4)
    assert iterations() == [2, 4, 6, 8]
    model = Model()
    handle = balanced(model, "max_loss", records=tmp_path)
    handle.load_state_dict(saved)
    steps(model, 1)
    assert iterations() == [2, 4, 6], "what comes again is not there twice"
    model = Model()
    balanced(model, "max_loss", records=tmp_path)
    with pytest.warns(UserWarning, match=r"earlier start.*intervals\.1\.jsonl"):
        steps(model, 2)
    assert iterations() == [2] and len((tmp_path / "intervals.1.jsonl").read_text().splitlines()) == 3


def test_arguments_that_do_not_fit() -> None:
    for options in (
        {"interval": 0},
        {"strategy": "rol"},
        {"top_k": 9},
        {"strategy": Fixed((1.0,) * 3), "top_k": 1},
    ):
        with pytest.raises(SpecError, match=r"balance\(\)"):
            balanced(Model(), **options)
