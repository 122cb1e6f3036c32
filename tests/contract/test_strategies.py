"""The strategies' contract: all of ours keep it, and what is wrong fails it and is told why."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from msbal.baselines import (
    DWA,
    GLS,
    RLW,
    SLAW,
    STCH,
    UW,
    UWSO,
    Autobalance,
    CoV,
    Fixed,
    Floor,
    GradNorm,
    Gramian,
    Positives,
    ReLoBRaLo,
    SoftAdapt,
    Stride,
)
from msbal.engine import (
    AVW,
    RLO,
    Equal,
    IntervalStatistics,
    Iteration,
    MaxLoss,
    MinLoss,
    State,
    StepStrategy,
    Strategy,
    Weighing,
    available,
    register,
)
from msbal.engine.strategies import registry
from msbal.spec import balance_models
from msbal.testing.strategies import ODD, StrategyContract


class TestOurs(StrategyContract):
    strategies = (
        AVW(), MinLoss(), MaxLoss(), Equal(), RLO(), RLO(step=0.3, p_min=0.05, actions=("min_loss", "equal")),
        RLO(reward="trend"), SoftAdapt(), SoftAdapt(beta=-3, normalized=False, loss_weighted=True), ReLoBRaLo(),
        ReLoBRaLo(decay=0, lookback=1, temperature=0.05), STCH(),
        STCH(mu=0.01, preference=(1, 2, 3, 4)), Floor(), Floor(share=0.25, cap=1000),
        Fixed((1, 2, 0, 0.5)), DWA(), UW(), UW(initial=-0.5), UWSO(), GLS(), RLW(), CoV(), CoV(decay=0.9), SLAW(),
        SLAW(decay=0.7), Autobalance(decay=0.9), Autobalance(initial=(1, 2, 3, 4)), Positives(),
        Stride(), Stride(q=1.0, strides=(4, 8, 12, 100)),
    )  # fmt: skip


def test_no_strategy_is_forgotten() -> None:
    others = {GradNorm, Gramian}  # in test_gradient_strategies.py
    assert {type(strategy) for strategy in TestOurs.strategies} | others == set(available().values())


# -- mutants: each is wrong in one way -------------------------------------------------------------


@dataclass(frozen=True)
class Sound(Strategy):
    """What the mutants are made from: weighs the levels by their shares, and remembers the last."""

    name: ClassVar[str] = "sound"

    def initial_state(self, levels: int) -> State:
        return {"share": [1 / levels] * levels}

    def decide(self, statistics: IntervalStatistics, state: State, rng: Any) -> Any:
        share = statistics.loss / (statistics.loss.sum() or 1)
        mean = (np.array(state["share"]) + share) / 2 + 0.01
        return mean * len(mean), {"share": share.tolist()}


@dataclass(frozen=True)
class SoundStep(StepStrategy):
    """The same at every iteration."""

    name: ClassVar[str] = "sound_step"

    def initial_state(self, levels: int) -> State:
        return {"mean": [0.0] * levels}

    def weigh(self, iteration: Iteration, state: Any) -> Weighing:
        mean = 0.9 * state["mean"] + 0.1 * iteration.losses
        return Weighing(1 + 0 * mean, {"mean": mean})


def mutant(base: type[Strategy] = Sound, **members: Any) -> Strategy:
    return dataclass(frozen=True)(
        type("Mutant", (base,), {"name": "mutant", "__module__": __name__, **members})
    )()


def deciding(f: Any) -> dict[str, Any]:
    """`f` of the sound decision."""

    def decide(self: Sound, statistics: IntervalStatistics, state: State, rng: Any) -> Any:
        return f(*Sound.decide(self, statistics, state, rng), statistics, state)

    return {"decide": decide}


def in_place(weights: Any, new: Any, statistics: Any, state: Any) -> Any:
    state["share"][0] = 1.0
    return weights, new


def argument_in_place(weights: Any, new: Any, statistics: Any, state: Any) -> Any:
    statistics.loss[0] = 1.0
    return weights, new


def by_gradients(f: Any) -> Strategy:
    return mutant(
        needs_gradients=True, **deciding(lambda w, s, statistics, _: (f(w, statistics.gradients), s))
    )


def by_norm(gradients: Any, least: float = 0.0) -> Any:
    with np.errstate(divide="ignore"):
        return 1 / np.maximum(np.diagonal(gradients), least)


def step(f: Any) -> dict[str, Any]:
    def weigh(self: SoundStep, iteration: Iteration, state: Any) -> Weighing:
        return f(SoundStep.weigh(self, iteration, state), iteration, state)

    return {"weigh": weigh}


def changing_state(found: Weighing, iteration: Iteration, state: Any) -> Weighing:
    state["mean"].add_(1.0)
    return found


def looking(found: Weighing, iteration: Iteration, state: Any) -> Weighing:
    return found if float(iteration.losses[0]) > 0 else found._replace(state=found.state)


MUTANTS: dict[str, tuple[Strategy, str]] = {
    "a list": (mutant(**deciding(lambda w, s, *_: (w.tolist(), s))), "a NumPy array of 4 weights was expected"),
    "a scalar": (mutant(**deciding(lambda w, s, *_: (1.0, s))), "a NumPy array of 4 weights"),
    "too few": (mutant(**deciding(lambda w, s, *_: (w[:2], s))), "a NumPy array of 4 weights"),
    "weights alone": (mutant(**deciding(lambda w, s, *_: w)), "a pair was expected"),
    "NaN": (mutant(**deciding(lambda w, s, *_: (w * np.nan, s))), "should be finite, at least 0"),
    "negative": (mutant(**deciding(lambda w, s, *_: (w - 2, s))), "should be finite, at least 0"),
    "nothing counts": (mutant(**deciding(lambda w, s, *_: (0 * w, s))), "not all 0"),
    "divides by zero": (
        mutant(**deciding(lambda w, s, statistics, _: (1 / statistics.loss, s))), "should be finite"
    ),
    "raises": (mutant(**deciding(lambda *_: {}["x"])), r"strategy `mutant` failed in decide\(\) at interval"),
    "an object as state": (mutant(**deciding(lambda w, s, *_: (w, {"share": object()}))), "tolist"),
    "state in place": (mutant(**deciding(in_place)), "should not change the state"),
    "argument in place": (mutant(**deciding(argument_in_place)), "read-only"),
    "gradients without asking": (by_gradients(lambda w, gradients: gradients.sum(axis=1) ** 2), "NoneType"),
    "divides by a gradient": (by_gradients(lambda w, gradients: by_norm(gradients)), "finite"),
    "forgets in an interval without gradients": (
        by_gradients(lambda w, gradients: w if gradients is None else by_norm(gradients, 1)), "should keep the weights"
    ),
    "its own draws": (
        mutant(**deciding(lambda w, s, *_: (w + np.random.random(), s))), "same arguments|global generator"
    ),
    "draws of random": (mutant(**deciding(lambda w, s, *_: (w + random.random(), s))), "same arguments|`random`"),
    "remembers beside its state": (
        mutant(
            calls=[], **deciding(lambda w, s, *_: (w + len(_memory.append(1) or _memory), s))
        ),
        "same arguments",
    ),
    "weighs with a list": (mutant(SoundStep, **step(lambda found, *_: ([1.0] * 4, {}))), "a Weighing with weights"),
    "weighs too few": (
        mutant(SoundStep, **step(lambda found, *_: found._replace(weights=found.weights[:2]))),
        "a Weighing with weights",
    ),
    "weighs by NaN": (
        mutant(SoundStep, **step(lambda found, *_: found._replace(weights=found.weights * torch.nan))),
        "should be finite",
    ),
    "loses its state": (mutant(SoundStep, **step(lambda found, *_: found._replace(state={}))), "KeyError: 'mean'"),
    "its state in place": (mutant(SoundStep, **step(changing_state)), "should not change the state's `mean`"),
    "looks at a value": (mutant(SoundStep, **step(looking)), "meta|waits"),
    "draws of torch": (
        mutant(SoundStep, **step(lambda found, *_: found._replace(weights=found.weights + torch.rand(4)))),
        "torch's generator",
    ),
}  # fmt: skip
_memory: list[int] = []


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Register a strategy for one test."""
    available()
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    balance_models.cache_clear()
    yield lambda strategy: register(type(strategy))
    balance_models.cache_clear()


def failures(strategy: Strategy) -> list[str]:
    """What the contract says against it."""
    said = []
    contract = type("Contract", (StrategyContract,), {"strategies": (strategy,)})()
    values = {"odd": ODD, "at": (0, 6), "how": ("deepcopy",), "rescale": (False,), "dtype": (torch.float32,)}
    for name, test in inspect.getmembers(contract, inspect.ismethod):
        if name.startswith("test_"):
            wanted = [key for key in inspect.signature(test).parameters if key != "strategy"]
            for value in values[wanted[0]] if wanted else (None,):
                arguments = {wanted[0]: value} if wanted else {}
                if len(wanted) > 1:
                    arguments[wanted[1]] = values[wanted[1]][0]
                try:
                    test(strategy, **arguments)
                except Exception as error:
                    said.append(f"{name}: {type(error).__name__}: {error}")
    return said


@pytest.mark.parametrize("kind", [Sound, SoundStep])
def test_what_the_mutants_are_made_from_is_sound(kind: type[Strategy], only: Any) -> None:
    only(kind())
    assert failures(kind()) == []


@pytest.mark.parametrize("name", list(MUTANTS))
def test_a_mutant_fails_and_is_told_why(name: str, only: Any) -> None:
    strategy, says = MUTANTS[name]
    only(strategy)
    said = failures(strategy)
    assert said, "the contract passes it"
    assert any(re.search(says, text) for text in said), said


def test_what_is_not_registered_fails(only: Any) -> None:
    unknown = mutant()
    assert any("registered under its name" in text for text in failures(unknown))
