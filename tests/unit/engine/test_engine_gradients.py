"""The gradient of each level's loss: what it should be, that training keeps its bits, and what happens without it."""

from __future__ import annotations

import copy
import io
import math
import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from msbal.engine import (
    Balancer,
    BalancerSet,
    GradientError,
    GroupNames,
    IntervalRecord,
    LevelGradients,
    LevelLosses,
    Strategy,
    StrategyError,
)
from msbal.engine.gradients import SHARED, cosines, norms
from msbal.engine.statistics import Array

LEVELS, TERMS = ("a", "b", "c"), ("cls", "box")
MEASURED = ("gradient_norm", "gradient_cosine", "gradient_count")


class Pyramid(nn.Module):
    """A backbone, a lateral layer a level, and a head that all levels share: ``[T, K]`` losses."""

    def __init__(self, dropout: float = 0.0, how: str = "plain") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.backbone = nn.Sequential(
            nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(dropout), nn.Linear(5, 3)
        )
        self.neck = nn.ModuleList(nn.Linear(3, 3) for _ in LEVELS)
        self.head, self.unused = nn.Linear(3, 2), nn.Linear(2, 2)
        self.head.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        match self.how:
            case "checkpoint":
                features = checkpoint(self.backbone, x, use_reentrant=False)
            case "checkpoint that draws anew":
                features = checkpoint(self.backbone, x, use_reentrant=False, preserve_rng_state=False)
            case "selective checkpoint":
                kept = partial(create_selective_checkpoint_contexts, [torch.ops.aten.addmm.default])
                features = checkpoint(self.backbone, x, use_reentrant=False, context_fn=kept)
            case "reentrant checkpoint":
                features = checkpoint(self.backbone, x.requires_grad_(), use_reentrant=True)
            case _:
                features = self.backbone(x)
        each = [self.head(lateral(features)).pow(2).mean(dim=0) for lateral in self.neck]
        return torch.stack([loss * (k + 1) for k, loss in enumerate(each)], dim=1)

    def parts(self) -> dict[str, Iterable[nn.Parameter]]:
        return {name: module.parameters() for name, module in self.named_children()}


def inputs(seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(6, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)


def slow(
    model: nn.Module, parts: Mapping[str, Iterable[nn.Parameter]], losses: Callable[[], Tensor]
) -> dict[str, list[list[float]]]:
    """A backward pass for each level as anybody would write it, and loops."""
    trained = [p for p in model.parameters() if p.requires_grad]
    found = []
    for k in range(len(LEVELS)):
        model.zero_grad()
        losses()[k].backward()
        found.append([[] if p.grad is None else p.grad.double().flatten().tolist() for p in trained])

    def gramian(of: list[nn.Parameter]) -> list[list[float]]:
        where = [i for i, p in enumerate(trained) if any(p is other for other in of)]
        return [
            [math.fsum(a * b for i in where for a, b in zip(one[i], two[i], strict=False)) for two in found]
            for one in found
        ]

    out = {name: gramian(list(part)) for name, part in parts.items()}
    both = [p for i, p in enumerate(trained) if sum(any(each[i]) for each in found) >= 2]
    return out | {SHARED: gramian(both)}


def assert_gramians(found: Mapping[str, Array], wanted: Mapping[str, Any], rel: float = 1e-5) -> None:
    assert found.keys() == wanted.keys()
    for name, gramian in wanted.items():
        np.testing.assert_allclose(
            found[name], gramian, rtol=rel, atol=rel * np.max(np.abs(gramian)), err_msg=name
        )


# -- what is measured ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_to_the_slow_reference(dtype: torch.dtype) -> None:
    model = Pyramid().to(dtype)
    losses = lambda: model(inputs(dtype=dtype)).sum(dim=0)  # noqa: E731
    found = LevelGradients(model.parts()).measure(losses())
    assert_gramians(found, slow(model, model.parts(), losses), 1e-5 if dtype is torch.float32 else 1e-12)
    assert not found["unused"].any()
    # A level's own lateral layer is not shared, whatever zeros reach it from the others.
    np.testing.assert_allclose(found["neck"], np.diag(np.diagonal(found["neck"])))
    np.testing.assert_allclose(found[SHARED], found["backbone"] + found["head"], rtol=1e-6)


def test_norms_are_those_of_finite_differences() -> None:
    model, x, step = Pyramid().double(), inputs(dtype=torch.float64), 1e-6
    found = LevelGradients(model.parts()).measure(model(x).sum(dim=0))
    with torch.no_grad():
        for name, part in model.parts().items():
            squares, pairs = torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
            for parameter in (p for p in part if p.requires_grad):
                for i in range(parameter.numel()):
                    before = float(parameter.view(-1)[i])
                    parameter.view(-1)[i] = before + step
                    above = model(x).sum(dim=0)
                    parameter.view(-1)[i] = before - step
                    slope = (above - model(x).sum(dim=0)) / (2 * step)
                    parameter.view(-1)[i] = before
                    squares += slope**2
                    pairs += torch.outer(slope, slope)
            np.testing.assert_allclose(norms(found[name]), squares.sqrt(), rtol=1e-7, atol=1e-8)
            np.testing.assert_allclose(found[name], pairs, rtol=1e-6, atol=1e-8)


def test_cosines() -> None:
    parameter = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    directions = torch.tensor(
        [[3.0, 0.0], [0.0, 0.1], [-4.0, 0.0], [0.0, 0.0], [1.0, 1.0]], dtype=torch.float64
    )
    gramian = LevelGradients([parameter]).measure(directions @ parameter)["model"]
    half = math.sqrt(0.5)
    assert norms(gramian).tolist() == pytest.approx([3, 0.1, 4, 0, math.sqrt(2)])
    np.testing.assert_allclose(
        cosines(gramian),
        [[1, 0, -1, 0, half], [0, 1, 0, 0, half], [-1, 0, 1, 0, -half], [0] * 5, [half, half, -half, 0, 1]],
    )
    assert np.diagonal(cosines(gramian)).tolist() == [1, 1, 1, 0, 1]


def test_a_level_whose_loss_needs_no_gradient_has_none() -> None:
    model = Pyramid()
    whole = LevelGradients(model.parts()).measure(model(inputs()).sum(dim=0))
    values = model(inputs()).sum(dim=0)
    without = torch.stack([values[0], values[1].detach(), values[2]])
    found = LevelGradients(model.parts()).measure(without)
    for name, gramian in found.items():
        assert not gramian[1].any()
        assert gramian[::2, ::2] == pytest.approx(whole[name][::2, ::2])


def test_what_is_trained_may_change_between_measurements() -> None:
    model, x = Pyramid(), inputs()
    gradients = LevelGradients(model.parts())
    losses = lambda: model(x).sum(dim=0)  # noqa: E731
    for frozen in (False, True, False):
        for parameter in model.backbone.parameters():
            parameter.requires_grad_(not frozen)
        found = gradients.measure(losses())
        assert_gramians(found, slow(model, model.parts(), losses))
        assert found["backbone"].any() != frozen
    assert gradients.count == 3


def test_a_parameter_counts_once_in_a_part_and_in_each_that_has_it() -> None:
    model = Pyramid()
    losses = model(inputs()).sum(dim=0)
    once = LevelGradients({"head": model.head.parameters()}).measure(losses)
    twice = [*model.head.parameters(), model.head.weight]
    found = LevelGradients({"head": twice, "again": twice, "none": []}).measure(losses)
    assert (found["head"] == once["head"]).all() and (found["again"] == once["head"]).all()
    assert (found[SHARED] == once[SHARED]).all() and not found["none"].any()


def test_any_layout_and_dtype_of_parameters() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 3)).to(memory_format=torch.channels_last)
    x = torch.rand(2, 3, 8, 8)
    losses = lambda: model(x).pow(2).mean(dim=(0, 2, 3))  # noqa: E731
    assert_gramians(
        LevelGradients(model.parameters()).measure(losses()),
        slow(model, {"model": list(model.parameters())}, losses),
    )
    wide = LevelGradients(model.parameters()).measure(losses())["model"]
    model.bfloat16()
    half = LevelGradients(model.parameters()).measure(model(x.bfloat16()).pow(2).float().mean(dim=(0, 2, 3)))
    assert half["model"] == pytest.approx(wide, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 2.0**-14])
def test_half_precision_neither_underflows_nor_overflows(dtype: torch.dtype, size: float) -> None:
    """A gradient of 2**-30 is 0 in float16; and at the highest scale the third level's is infinite."""
    model = Pyramid()
    factors = torch.tensor([size * 1e-3, size, 2.0**4])

    def measure() -> Array:
        return LevelGradients(model.parameters()).measure(model(inputs()).sum(dim=0).float() * factors)[
            "model"
        ]

    wanted = measure()
    with torch.autocast("cpu", dtype=dtype):
        found = measure()
    assert norms(found) == pytest.approx(norms(wanted), rel=0.03)
    assert np.abs(cosines(found) - cosines(wanted)).max() < 0.03


def test_overflow_at_every_scale_is_no_measurement() -> None:
    parameter = nn.Parameter(torch.ones(2))
    losses = torch.stack([parameter.sum(), (parameter * 1e30).sum() * 1e30])
    found = LevelGradients([parameter]).measure(losses)["model"]
    assert found[0, 0] == 2 and not np.isfinite(found[1, 1])


# -- training keeps its bits ---------------------------------------------------------------------


def state_of(*objects: Any) -> Any:
    return copy.deepcopy([each.state_dict() for each in objects])


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def unmeasured(records: Iterable[IntervalRecord]) -> list[IntervalRecord]:
    return [replace(record, gradient_norm={}, gradient_cosine=(), gradient_count=0) for record in records]


def train(measure: int | None, how: str = "plain", forward: str = "forward", **options: Any) -> Any:
    """Train for 11 iterations; return all that there is at the end, and the records."""
    model = Pyramid(0.5, how)
    options = {"interval": 4, "seed": 3} | options
    group = GroupNames(LEVELS, TERMS)
    balancers = BalancerSet(
        {"rpn": group, "roi": group} if forward == "groups" else {"all": group},
        options.pop("strategy", "rlo"), measure=measure, parameters=model.parts(), **options,
    )  # fmt: skip
    optimizer = torch.optim.SGD([*model.parameters(), *balancers.parameters()], 0.05, momentum=0.9)
    torch.manual_seed(1)
    for m in range(11):
        values = model(inputs(m))
        match forward:
            case "forward" | "accumulation":
                total = balancers({"all": LevelLosses(values)})
            case "groups":
                total = balancers({"rpn": LevelLosses(values), "roi": LevelLosses(values.sqrt() / 9)})
            case _:
                total = balancers.weighted("all", LevelLosses(values)).sum()
        total.backward()
        if forward != "accumulation" or m % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()
    assert measure is None or all(b.gradients and b.gradients.count for b in balancers.balancers.values())
    return state_of(model, optimizer), torch.get_rng_state(), torch.rand(3), balancers.drain()


@pytest.mark.parametrize(
    ("how", "forward", "options"),
    [
        ("plain", "forward", {}),
        ("plain", "weighted", {}),
        ("plain", "accumulation", {}),
        ("plain", "weighted", {"per_term": True}),
        ("plain", "groups", {"rescale": True}),
        ("plain", "forward", {"strategy": "uw"}),
        ("plain", "weighted", {"strategy": "uw"}),
        ("plain", "forward", {"strategy": "cov"}),
        ("checkpoint", "forward", {}),
        ("checkpoint that draws anew", "weighted", {}),
    ],
)  # fmt: skip
def test_training_with_measure_is_bit_for_bit_training_without(how: str, forward: str, options: Any) -> None:
    *with_measure, records = train(3, how, forward, **options)
    *without, others = train(None, how, forward, **options)
    assert same(with_measure, without)
    assert unmeasured(records) == others
    assert [record.gradient_count for record in records[:1]] == [2]  # in iterations 1 and 3
    for record in records:
        assert set(record.gradient_norm) == {"backbone", "neck", "head", "unused", SHARED}


def test_recomputed_running_statistics_are_measured_around() -> None:
    """Each recomputation advances them: the measurement's must not be kept, and the training's own must."""
    *_, checkpointed = train(1, "checkpoint")
    *_, plain = train(1, "plain")
    assert [r.gradient_norm for r in checkpointed] == [r.gradient_norm for r in plain]


@pytest.mark.parametrize("how", ["plain", "checkpoint", "checkpoint that draws anew"])
def test_the_gradients_add_up_to_that_of_the_training_step(how: str) -> None:
    model = Pyramid(0.5, how)
    losses = model(inputs()).sum(dim=0)
    found = LevelGradients(model.parameters()).measure(losses)["model"]
    losses.sum().backward()
    whole = sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None)
    assert found.sum() == pytest.approx(whole, rel=1e-5)


def test_it_measures_in_the_first_iteration_and_in_multiples() -> None:
    model = Pyramid()
    balancer = Balancer(LEVELS, "equal", terms=TERMS, interval=5, measure=4, parameters=model.parameters())
    gradients, counts = balancer.gradients, []
    assert gradients is not None
    for m in range(12):
        balancer(model(inputs(m))).backward()
        counts.append(gradients.count)
    assert counts == [1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4]
    with torch.no_grad():
        balancer(model(inputs()))
    balancer.eval()(model(inputs()))
    assert gradients.count == 4
    assert 0 < gradients.seconds < 60


def test_an_interval_has_the_mean_gramian_of_its_measurements() -> None:
    model = Pyramid()
    balancer = Balancer(LEVELS, "equal", terms=TERMS, interval=4, measure=2, parameters=model.parts())
    single: list[dict[str, Array]] = []
    for m in range(8):
        values = model(inputs(m))
        if m in (0, 1, 3, 5, 7):
            single.append(LevelGradients(model.parts()).measure(values.sum(dim=0)))
        balancer(values)
    first, second = balancer.drain()
    for record, own in ((first, single[:3]), (second, single[3:])):
        assert record.gradient_count == len(own)
        for part, found in record.gradient_norm.items():
            assert found == pytest.approx(norms(np.mean([each[part] for each in own], axis=0)))
        shared = np.mean([each[SHARED] for each in own], axis=0)
        assert np.array(record.gradient_cosine) == pytest.approx(cosines(shared))


def test_a_step_without_a_measurement_has_no_operator_more() -> None:
    def operators(measure: int | None) -> list[tuple[str, int]]:
        model = Pyramid()
        balancer = Balancer(LEVELS, "rlo", terms=TERMS, measure=measure, parameters=model.parameters())
        balancer(model(inputs()))
        values = model(inputs())
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            balancer(values)
        return sorted((event.key, event.count) for event in profile.key_averages())

    assert operators(50) == operators(None) != []


def test_hooks_on_tensors_see_each_levels_pass_and_those_on_parameters_accumulation_do_not() -> None:
    model, seen = Pyramid(), {"tensor": 0, "accumulated": 0}

    def count(name: str, _: Any) -> None:
        seen[name] += 1

    x = inputs().requires_grad_()
    hidden = model.backbone(x)
    hidden.register_hook(partial(count, "tensor"))
    model.head.weight.register_post_accumulate_grad_hook(partial(count, "accumulated"))
    losses = torch.stack([model.head(lateral(hidden)).sum() for lateral in model.neck])
    LevelGradients(model.parameters()).measure(losses)
    assert seen == {"tensor": 3, "accumulated": 0}
    assert all(parameter.grad is None for parameter in model.parameters()) and x.grad is None


# -- copies and state ----------------------------------------------------------------------------


class WithBalancer(nn.Module):
    """A user's model with the balancer in it, before the parameters that it measures on."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Pyramid()
        self.balancer = Balancer(
            LEVELS, "rlo", terms=TERMS, interval=4, measure=1, parameters=self.net.parameters()
        )
        self._modules = {"balancer": self.balancer, "net": self.net}

    def forward(self, x: Tensor) -> Tensor:
        return self.balancer(self.net(x))


def pickled(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))  # type: ignore[no-any-return]


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_the_copy_of_a_model_measures_itself(copied: Callable[[nn.Module], nn.Module]) -> None:
    model = WithBalancer()
    names = set(dict(model.named_parameters()))
    assert names == {f"net.{name}" for name, _ in model.net.named_parameters()}
    assert set(model.state_dict()) == {f"net.{n}" for n in model.net.state_dict()} | {"balancer._extra_state"}
    model(inputs(0)).backward()
    twin = copied(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2)
    for m in range(1, 4):
        model(inputs(m))
        twin(inputs(m))
    (ours,), (theirs,) = model.balancer.drain(), twin.balancer.drain()  # type: ignore[union-attr, operator]
    assert ours.gradient_count == theirs.gradient_count == 4
    assert ours.gradient_norm != theirs.gradient_norm
    untouched = copied(model)
    assert untouched(inputs(5)) == model(inputs(5))
    ours, theirs = model.balancer.so_far(), untouched.balancer.so_far()  # type: ignore[union-attr, operator, assignment]
    assert ours.gradient_norm == theirs.gradient_norm != {}


def test_a_resume_in_the_middle_of_an_interval_has_the_same_records() -> None:
    def fresh() -> tuple[Pyramid, Balancer]:
        model = Pyramid()
        return model, Balancer(LEVELS, terms=TERMS, interval=5, measure=2, parameters=model.parts())

    model, whole = fresh()
    for m in range(12):
        if m == 7:
            file = io.BytesIO()
            torch.save([model.state_dict(), whole.state_dict()], file)
            so_far = whole.so_far()
        whole(model(inputs(m)))
    model, second = fresh()
    of_model, of_balancer = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    model.load_state_dict(of_model)
    second.load_state_dict(of_balancer)
    assert second.so_far() == so_far and so_far is not None and so_far.gradient_count == 1
    for m in range(7, 12):
        second(model(inputs(m)))
    assert second.drain() == whole.drain()[1:]
    assert second.so_far() == whole.so_far()
    second.reset_parameters()
    assert second.so_far() is None
    second(model(inputs(0)))
    again = second.so_far()
    assert again is not None and again.gradient_count == 1


def test_a_state_from_before_measuring_loads_and_another_measure_too() -> None:
    model = Pyramid()
    make = partial(Balancer, LEVELS, terms=TERMS, interval=5, parameters=list(model.parameters()))
    old = make()
    old(model(inputs(0)))
    assert "measured" not in old.get_extra_state()
    new = make(measure=1)
    new.load_state_dict(old.state_dict())
    new(model(inputs(1)))
    again = make(measure=3)
    again.load_state_dict(new.state_dict())
    for m in range(2, 5):
        again(model(inputs(m)))
    assert [record.gradient_count for record in again.drain()] == [2]


class ByGradients(Strategy):
    """Weights are the norms of the gradients; the first decision fails."""

    name, needs_gradients, fails = "by_gradients", True, 1
    left: ClassVar[list[int]] = [1]

    def decide(self, statistics: Any, state: Any, rng: Any) -> Any:
        if self.left and self.left.pop():
            raise ArithmeticError("not yet")
        if statistics.gradients is None:
            return statistics.weights, state
        return norms(statistics.gradients), state


def test_another_measure_is_refused_where_it_would_decide() -> None:
    model = Pyramid()
    parameters = list(model.parameters())
    make = partial(Balancer, LEVELS, ByGradients(), terms=TERMS, interval=4, parameters=parameters)
    assert make().measure == 4
    with pytest.raises(RuntimeError, match="saved state has measure 4, this balancer has 2"):
        make(measure=2).load_state_dict(make().state_dict())


@pytest.mark.parametrize(
    "damage", [{"count": 1}, *({"count": 1, "sums": {"model": rows}} for rows in ([[1.0]], [[math.nan] * 3] * 3))]
)  # fmt: skip
def test_a_damaged_measurement_is_refused(damage: Any) -> None:
    balancer = Balancer(LEVELS, interval=4)
    balancer(torch.ones(3))
    state = balancer.state_dict()
    state["_extra_state"]["measured"] = damage
    with pytest.raises(RuntimeError, match="damaged"):
        Balancer(LEVELS, interval=4).load_state_dict(state)


def test_a_strategy_that_fails_leaves_the_measurements_alone() -> None:
    model = Pyramid()
    ByGradients.left[:] = [1]
    balancer = Balancer(
        LEVELS, ByGradients(), terms=TERMS, interval=4, measure=2, parameters=model.parameters()
    )
    for m in range(3):
        balancer(model(inputs(m)))
    before = balancer.so_far()
    with pytest.raises(StrategyError, match="not yet"):
        balancer(model(inputs(3)))
    assert balancer.so_far() == before
    balancer(model(inputs(3)))
    (record,) = balancer.drain()
    assert record.gradient_count == 3  # of iterations 1, 2 and 4
    assert record.weights == pytest.approx(record.gradient_norm[SHARED])


# -- what cannot be measured ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [3, nn.Linear(2, 2), dict(nn.Linear(2, 2).named_modules()), {"shared": []}, ["a"], {"model": None}]
)  # fmt: skip
def test_parameters_that_are_none_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"parameters should be a model's parameters\(\)"):
        Balancer(LEVELS, measure=2, parameters=wrong)


def test_named_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="Found a tuple"):
        BalancerSet({"all": GroupNames(LEVELS, TERMS)}, parameters=nn.Linear(2, 2).named_parameters())  # type: ignore[arg-type]


def test_measuring_without_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match=r"parameters=model\.parameters\(\)"):
        Balancer(LEVELS, measure=2)(torch.ones(3))


class Breaks(torch.autograd.Function):
    """Its backward pass raises, or spoils what it has saved, while told to."""

    error: ClassVar[Exception | None] = None
    spoils: ClassVar[bool] = False

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.factor = torch.ones(())
        return x * 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        if Breaks.error is not None:
            raise type(Breaks.error)(
                *Breaks.error.args
            )  # anew: an error keeps the frames that it came through
        factor = ctx.factor.clone()
        if Breaks.spoils:
            ctx.factor += 1
        return gradient * factor


@pytest.fixture
def breaks() -> Iterable[type[Breaks]]:
    yield Breaks
    Breaks.error, Breaks.spoils = None, False


def first_error(model: nn.Module, parameters: Iterable[nn.Parameter] | None = None, **options: Any) -> str:
    given = model.parameters() if parameters is None else parameters
    balancer = Balancer(LEVELS, terms=TERMS, interval=4, measure=100, parameters=given, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(GradientError) as caught:
            balancer(model(inputs()))
    text = str(caught.value)
    assert text.startswith("the levels' gradients cannot be measured: ") and "\n" not in text
    assert text.endswith("; or leave `measure` out")
    assert balancer.iteration == 0
    return text


def test_what_cannot_be_measured_is_refused_in_the_first_iteration(breaks: type[Breaks]) -> None:
    assert "use_reentrant=False" in first_error(Pyramid(how="reentrant checkpoint"))
    assert "selective activation checkpointing" in first_error(Pyramid(how="selective checkpoint"))
    assert "are they this model's?" in first_error(Pyramid(), Pyramid().parameters())
    assert "none of the parameters requires a gradient" in first_error(Pyramid(), [])
    model = Pyramid()
    model.backbone.append(Hidden())
    breaks.spoils = True
    assert "its first backward pass changes the second" in first_error(model)
    breaks.spoils, breaks.error = False, AttributeError("no attribute 'saved':\n  it was freed")
    assert "AttributeError: no attribute 'saved': it was freed" in first_error(model)


class Hidden(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Breaks.apply(x)  # type: ignore[no-any-return]


def test_a_spoilt_graph_is_never_trained_on(breaks: type[Breaks]) -> None:
    """Where the first measurement comes later, as after a resume, an error is better than a wrong step."""
    model = Pyramid()
    model.backbone.append(Hidden())
    balancer = Balancer(LEVELS, terms=TERMS, interval=4)
    balancer(model(inputs(0)))
    second = Balancer(LEVELS, terms=TERMS, interval=4, measure=2, parameters=model.parameters())
    second.load_state_dict(balancer.state_dict())
    breaks.spoils = True
    with pytest.raises(GradientError, match="its first backward pass changes the second"):
        second(model(inputs(1)))


def test_a_balancer_within_a_checkpoint() -> None:
    """A reentrant one shows only its own part of the graph; another repeats the call while it is measured."""

    def run(reentrant: bool) -> Balancer:
        model = Pyramid()
        balancer = Balancer(LEVELS, terms=TERMS, interval=4, measure=1, parameters=model.parameters())
        for m in range(4):
            x = inputs(m).requires_grad_()
            checkpoint(lambda x: balancer(model(x)), x, use_reentrant=reentrant).backward()
        return balancer

    with pytest.raises(GradientError, match=r"within a reentrant checkpoint\(\)"):
        run(True)
    balancer = run(False)
    (record,) = balancer.drain()
    assert balancer.iteration == 4 and record.gradient_count == 4


def test_what_fails_later_is_left_out_and_said_once(breaks: type[Breaks]) -> None:
    model = Pyramid()
    model.backbone.append(Hidden())
    balancer = Balancer(LEVELS, terms=TERMS, interval=4, measure=1, parameters=model.parameters())
    for m in range(8):
        breaks.error = RuntimeError("trying to backward a second time") if 2 <= m < 5 else None
        if m == 2:
            with pytest.warns(UserWarning, match="not measured in iteration 3, .*: RuntimeError: trying to"):
                balancer(model(inputs(m)))
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            balancer(model(inputs(m)))
    assert [record.gradient_count for record in balancer.drain()] == [2, 3]
    assert balancer.gradients is not None and balancer.gradients.failed == 3


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_without_memory_a_run_goes_on_even_from_the_first_iteration(
    error: Exception, breaks: type[Breaks]
) -> None:
    model = Pyramid()
    model.backbone.append(Hidden())
    balancer = Balancer(LEVELS, ByGradients(), terms=TERMS, interval=4, parameters=model.parameters())
    ByGradients.left.clear()
    breaks.error = error
    with pytest.warns(UserWarning, match=r"not measured in iteration 1, .* memory") as caught:
        for m in range(4):
            balancer(model(inputs(m)))
    assert len(caught) == 1
    (record,) = balancer.drain()
    assert (record.gradient_count, record.gradient_norm, record.weights) == (0, {}, (1, 1, 1))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_measurement_that_is_not_finite_is_left_out(bad: float) -> None:
    model = Pyramid()
    balancer = Balancer(LEVELS, terms=TERMS, interval=4, measure=1, parameters=model.parameters())
    for m in range(8):
        factor = torch.ones(2, 3)
        factor[1, 2] = bad if m == 1 else 1
        balancer(model(inputs(m)) * factor)
    first, second = balancer.drain()
    assert (first.gradient_count, second.gradient_count) == (3, 4)
    assert all(np.isfinite(numbers).all() for numbers in first.gradient_norm.values())
    assert np.isfinite(first.gradient_cosine).all()


def test_memory_is_freed(breaks: type[Breaks]) -> None:
    """After a measurement, and after one that failed, no gradient is kept."""
    import gc

    model = Pyramid()
    model.backbone.append(Hidden())
    gradients = LevelGradients(model.parameters())
    for error in (None, torch.cuda.OutOfMemoryError("no memory")):
        values = model(inputs()).sum(dim=0)
        gc.collect()
        gc.disable()
        try:
            before = sum(type(each) is Tensor for each in gc.get_objects())
            breaks.error = error
            try:
                gradients.measure(values)
            except torch.cuda.OutOfMemoryError:
                assert error is not None
            assert sum(type(each) is Tensor for each in gc.get_objects()) == before
        finally:
            gc.enable()
