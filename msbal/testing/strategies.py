"""The contract that every strategy keeps, as one test class.

Subclass it in a test module of your own::

    class TestMine(StrategyContract):
        strategies = (Mine(), Mine(step=0.5))

It trains a balancer on generated losses and gradients: ordinary ones, and those of odd data, which a strategy has to
survive.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import pickle
import random
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from msbal.engine import (
    Balancer,
    IntervalRecord,
    IntervalStatistics,
    LevelGradients,
    LevelLosses,
    StepStrategy,
    Strategy,
    available,
)
from msbal.engine.gradients import SHARED
from msbal.engine.statistics import Array
from msbal.engine.strategies.base import plain
from msbal.records import to_json
from msbal.spec import balance_models
from msbal.testing.card import Card

ALPHA = 4
TERMS = ("cls", "bbox")

ODD = (
    "zero", "a level of zero", "an interval of zero", "equal", "tiny", "huge", "a NaN", "an infinity",
    "an interval of NaN", "one finite iteration", "one level holds nearly all",
)  # fmt: skip

ODD_GRADIENTS = (
    "zero",
    "one of zero",
    "one alone",
    "opposed",
    "parallel",
    "one dominates",
    "tiny",
    "huge",
    "a NaN",
)


def stream(levels: int, intervals: int = 6, seed: int = 0) -> Tensor:
    """Return ordinary losses ``[iterations, T, K]``, which fall, fluctuate and differ in size over the levels."""
    generator = torch.Generator().manual_seed(seed)
    count = intervals * ALPHA
    noise = 0.2 + torch.rand(count, len(TERMS), levels, dtype=torch.float64, generator=generator)
    return noise * torch.linspace(0.5, 2, levels) * torch.linspace(1, 0.3, count).view(-1, 1, 1)


def odd_stream(what: str, levels: int) -> Tensor:
    """Return losses of one of the kinds in `ODD`; the first two intervals are ordinary."""
    losses = stream(levels)
    third = losses[2 * ALPHA : 3 * ALPHA]
    match what:
        case "zero":
            losses.zero_()
        case "a level of zero":
            losses[:, :, 1] = 0
        case "an interval of zero":
            third.zero_()
        case "equal":
            losses.fill_(0.7)
        case "tiny" | "huge":
            losses *= 1e-30 if what == "tiny" else 1e30
        case "a NaN" | "an infinity":
            third[1, 0, 0] = torch.nan if what == "a NaN" else torch.inf
        case "an interval of NaN":
            third.fill_(torch.nan)
        case "one finite iteration":
            third[1:, 1, 1] = torch.nan
        case "one level holds nearly all":
            losses[:, :, 0] *= 1e6
    return losses


class GeneratedGradients(LevelGradients):
    """Gradients of a model that is not there: each is its level's loss times a direction of its own.

    Args:
        odd: of the kinds in `ODD_GRADIENTS`; by default ordinary.
    """

    def __init__(self, odd: str = "") -> None:
        super().__init__([])
        self.odd = odd

    def measure(self, losses: Tensor) -> dict[str, Array]:
        """Return their Gramian."""
        self.count += 1
        if losses.is_meta:
            return {SHARED: np.eye(len(losses))}
        directions = np.cos(np.outer(np.arange(1, len(losses) + 1), np.arange(1, 12)))
        gradients = losses.detach().cpu().double().numpy()[:, None] * directions
        match self.odd:
            case "zero":
                gradients[:] = 0
            case "one of zero":
                gradients[1] = 0
            case "one alone":
                gradients[1:] = 0
            case "opposed":
                gradients[1] = -gradients[0]
            case "parallel":
                gradients[:] = gradients[0]
            case "one dominates":
                gradients[0] *= 1e6
            case "tiny" | "huge":
                gradients *= 1e-30 if self.odd == "tiny" else 1e30
            case "a NaN" if self.count == 2:
                gradients[0, 0] = np.nan
        return {SHARED: gradients @ gradients.T}


class StrategyContract:
    """Tests that run once for each strategy.

    Attributes:
        strategies: what is tested, with the hyperparameters that matter.
        levels: K of the generated losses.
    """

    strategies: ClassVar[Sequence[Strategy]] = ()
    levels: ClassVar[int] = 4

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrise by strategy."""
        if "strategy" in metafunc.fixturenames:
            metafunc.parametrize("strategy", list(self.strategies), ids=str)
        if "odd" in metafunc.fixturenames:
            metafunc.parametrize("odd", ODD)

    def _balancer(self, strategy: Strategy, levels: int | None = None, **options: Any) -> Balancer:
        names = [f"P{i + 3}" for i in range(levels or self.levels)]
        settings = {
            "terms": TERMS,
            "interval": ALPHA,
            "seed": 5,
            "parameters": GeneratedGradients(),
            **options,
        }
        return Balancer(names, strategy, **settings)

    def _train(self, balancer: Balancer, losses: Tensor) -> Iterator[tuple[float, list[list[float]]]]:
        """Yield each iteration's total and gradient; parameters move as by an optimizer."""
        for row in losses:
            values = row.clone().requires_grad_()
            positives = torch.tensor([(balancer.iteration + i) % 5 + 1 for i in range(losses.shape[2])])
            total = balancer(LevelLosses(values, positives))
            total.backward()
            assert values.grad is not None
            for parameter in balancer.parameters():
                assert parameter.grad is not None, "a parameter of the strategy should receive a gradient"
                parameter.data -= 0.1 * parameter.grad
                parameter.grad = None
            yield float(total.detach()), values.grad.tolist()

    def _records(self, balancer: Balancer, losses: Tensor) -> list[IntervalRecord]:
        for _ in self._train(balancer, losses):
            pass
        return balancer.drain()

    def _check(self, records: Sequence[IntervalRecord], levels: int) -> None:
        for record in records:
            weights = np.array(record.weights)
            assert weights.shape == (levels,), "one weight a level"
            assert np.isfinite(weights).all(), f"interval {record.interval}: weights should be finite"
            assert (weights >= 0).all(), f"interval {record.interval}: weights should be at least 0"
            assert weights.any(), f"interval {record.interval}: a weight should be above 0"
            if record.probabilities:
                assert sum(record.probabilities.values()) == pytest.approx(1), "probabilities should sum to 1"
            json.loads(to_json(record))

    # -- what a strategy is ------------------------------------------------------------------------

    def test_is_a_frozen_dataclass_that_is_known_by_its_name(self, strategy: Strategy) -> None:
        kind = type(strategy)
        assert dataclasses.is_dataclass(kind) and vars(kind)["__dataclass_params__"].frozen, (
            "should be a frozen dataclass"
        )
        assert vars(kind).get("name"), "should have a name of its own"
        assert available().get(strategy.name) is kind, "should be registered under its name"
        assert hash(strategy) == hash(copy.deepcopy(strategy)) and strategy == copy.deepcopy(strategy)

    def test_its_hyperparameters_are_a_section_of_the_spec(self, strategy: Strategy) -> None:
        values = {field.name: getattr(strategy, field.name) for field in dataclasses.fields(strategy)}
        section = json.loads(json.dumps({"strategy": strategy.name, **values}))
        assert balance_models()[strategy.name].model_validate(section).make_strategy() == strategy

    def test_says_which_numbers_of_levels_it_takes(self, strategy: Strategy) -> None:
        for levels in range(2, 9):
            try:
                strategy.check(levels)
            except ValueError as error:
                assert "\n" not in str(error) and "Found" in str(error), "a refusal should say what was found"
                assert levels != self.levels
            else:
                self._check(self._records(self._balancer(strategy, levels), stream(levels)), levels)

    # -- what it decides ---------------------------------------------------------------------------

    def test_the_gradient_is_that_of_the_weighted_sum(self, strategy: Strategy) -> None:
        losses = stream(self.levels)
        balancer = self._balancer(strategy)
        for row, (total, gradient) in zip(losses, self._train(balancer, losses), strict=True):
            assert gradient[0] == gradient[1], "all terms of a level should have its weight"
            assert total == pytest.approx(float((row * torch.tensor(gradient)).sum()))

    @pytest.mark.parametrize("rescale", [False, True])
    def test_goes_on_whatever_the_losses_are(self, strategy: Strategy, odd: str, rescale: bool) -> None:
        balancer = self._balancer(strategy, rescale=rescale)
        records = self._records(balancer, odd_stream(odd, self.levels))
        assert len(records) == 6
        self._check(records, self.levels)
        if rescale:
            for record in records:
                assert sum(record.weights) == pytest.approx(self.levels), "rescaled weights should sum to K"

    def test_decides_by_gradients_where_they_are_measured(self, strategy: Strategy) -> None:
        measured = self._records(self._balancer(strategy, measure=2 * ALPHA), stream(self.levels))
        assert [record.gradient_count for record in measured] == [1, 1, 0, 1, 0, 1]
        if not strategy.needs_gradients:
            same = self._records(self._balancer(strategy), stream(self.levels))
            assert [r.weights for r in measured] == [r.weights for r in same], (
                "measuring should change nothing"
            )
            return
        for record in measured:
            if not record.gradient_count and record.action == strategy.name:
                assert record.weights == pytest.approx(record.previous_weights), (
                    "an interval without gradients should keep the weights"
                )
        for odd in ODD_GRADIENTS:
            balancer = self._balancer(strategy, parameters=GeneratedGradients(odd))
            records = self._records(balancer, stream(self.levels))
            assert len(records) == 6, f"gradients: {odd}"
            self._check(records, self.levels)

    def test_an_interval_that_is_not_finite_decides_nothing(self, strategy: Strategy) -> None:
        balancer, losses = self._balancer(strategy), odd_stream("an interval of NaN", self.levels)
        _, second, third, *_ = self._records(balancer, losses)
        assert third.count == 0
        assert third.weights == second.weights and third.probabilities == second.probabilities

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_takes_losses_of_any_precision(self, strategy: Strategy, dtype: torch.dtype) -> None:
        self._check(self._records(self._balancer(strategy), stream(self.levels).to(dtype)), self.levels)

    # -- that it is a pure function ----------------------------------------------------------------

    def test_changes_none_of_its_arguments(self, strategy: Strategy) -> None:
        if isinstance(strategy, StepStrategy):
            losses = stream(self.levels)[0]
            balancer = self._balancer(strategy)
            assert balancer._now.step is not None
            state = balancer._now.step.state
            before = {key: value.clone() for key, value in state.items()}
            list(self._train(balancer, losses.unsqueeze(0)))
            for key, value in before.items():
                assert torch.equal(state[key], value), (
                    f"weigh() should not change the state's `{key}` in place"
                )
            return
        state = plain(strategy.initial_state(self.levels))
        for t in range(1, 4):
            arrays = {name: np.arange(1.0, self.levels + 1) / t for name in _VECTORS}
            for array in arrays.values():
                array.flags.writeable = False  # an assignment raises
            by_term = np.tile(arrays["loss"], (len(TERMS), 1)) / len(TERMS)
            gramian = GeneratedGradients().measure(torch.from_numpy(arrays["loss"].copy()))[SHARED]
            gramian.flags.writeable = False
            statistics = IntervalStatistics(
                interval=t, count=ALPHA, loss_by_term=by_term, gradients=gramian, **arrays
            )
            kept = copy.deepcopy(state)
            first = strategy.decide(statistics, state, np.random.default_rng(t))
            assert state == kept, "decide() should not change the state that it is given"
            again = strategy.decide(statistics, copy.deepcopy(kept), np.random.default_rng(t))
            assert first[0].tolist() == again[0].tolist() and plain(first[1]) == plain(again[1]), (
                "decide() should give the same for the same arguments"
            )
            state = plain(first[1])

    def test_draws_from_nothing_but_what_it_is_given(self, strategy: Strategy) -> None:
        python, numpy, own = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
        first = self._records(self._balancer(strategy), stream(self.levels, 20))
        assert random.getstate() == python, "should not draw from `random`"
        assert str(np.random.get_state()) == numpy, "should not draw from NumPy's global generator"
        assert torch.equal(torch.get_rng_state(), own), "should not draw from torch's generator"
        assert self._records(self._balancer(strategy), stream(self.levels, 20)) == first

    @pytest.mark.parametrize("at", [0, 1, ALPHA - 1, ALPHA, 2 * ALPHA + 2])
    def test_a_resumed_run_is_the_unbroken_one(self, strategy: Strategy, at: int) -> None:
        losses = stream(self.levels)
        whole, first, second = (self._balancer(strategy) for _ in range(3))
        expected = list(self._train(whole, losses))
        list(self._train(first, losses[:at]))
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second.load_state_dict(torch.load(file, weights_only=True))
        assert list(self._train(second, losses[at:])) == expected[at:]
        assert second.drain() == whole.drain()[at // ALPHA :]

    @pytest.mark.parametrize("how", ["deepcopy", "pickle"])
    def test_a_copy_goes_on_alike(self, strategy: Strategy, how: str) -> None:
        losses, balancer = stream(self.levels), self._balancer(strategy)
        self._records(balancer, losses[:10])
        twin: Balancer = (
            copy.deepcopy(balancer) if how == "deepcopy" else pickle.loads(pickle.dumps(balancer))
        )
        assert self._records(twin, losses[10:]) == self._records(balancer, losses[10:])

    # -- what it costs -----------------------------------------------------------------------------

    def test_waits_for_the_device_once_an_interval(self, strategy: Strategy) -> None:
        balancer = self._balancer(strategy).to("meta")

        def train(iterations: int) -> None:
            for _ in range(iterations):
                values = torch.empty(len(TERMS), self.levels, device="meta", requires_grad=True)
                balancer(LevelLosses(values, torch.empty(self.levels, device="meta"))).backward()

        train(1)  # brings what there is to the device
        with Card() as card:
            train(3 * ALPHA - 1)
        assert card.waits == 3, (
            f"{card.waits} waits in 3 intervals: weigh() should not look at a tensor's value"
        )


_VECTORS = ("loss", "variance", "variance_reduction", "previous_loss", "positives", "weights")
