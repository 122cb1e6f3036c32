"""`reward: trend`: what it rewards, and that a state saved before there was a choice still loads."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch

from msbal.engine import RLO, Balancer, IntervalRecord, IntervalStatistics
from msbal.engine.draw import generator

LEVELS = ("P3", "P4", "P5", "P6", "P7")


def trained(strategy: RLO, totals: list[float], noise: float = 0.0, seed: int = 0) -> list[IntervalRecord]:
    rng = random.Random(seed)
    balancer = Balancer(LEVELS, strategy, interval=2, seed=seed)
    for total in totals:
        for _ in range(2):
            balancer(torch.tensor([total * (1 + rng.gauss(0, noise)) for _ in LEVELS], dtype=torch.float64))
    return balancer.drain()


def rewards(strategy: RLO, totals: list[float], noise: float = 0.0, seed: int = 0) -> list[int]:
    return [record.reward or 0 for record in trained(strategy, totals, noise, seed)]


def share_of_rewards(strategy: RLO, curve: Callable[[int], float], noise: float) -> float:
    """The part of +1 among what is judged: early, where eq 6 says little."""
    found = [
        reward
        for seed in range(5)
        for reward in rewards(strategy, [*map(curve, range(1, 31))], noise, seed)[2:]
    ]
    return sum(reward > 0 for reward in found) / len(found)


@pytest.mark.parametrize("power", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("noise", [0.005, 0.03])
def test_it_is_balanced_where_eq_6_rewards_nearly_everything(power: float, noise: float) -> None:
    curve = lambda t: 10 * t**-power  # noqa: E731
    assert share_of_rewards(RLO(), curve, noise) > 0.7
    assert 0.35 < share_of_rewards(RLO(reward="trend"), curve, noise) < 0.65


def likelihood(reward: Literal["fall", "trend"], seed: int, better: str = "max_loss") -> float:
    """The probability, after 100 intervals, of the action under which losses fall twice as fast."""
    strategy, rng = RLO(reward=reward), np.random.default_rng(seed)
    state, true, previous = strategy.initial_state(5), np.array([3.0, 2.0, 1.0, 0.5, 0.3]), np.zeros(5)
    for t in range(1, 101):
        if t > 1:
            true = true * ((t - 0.5) / (t - 1.5)) ** (-0.8 if state["action"] == better else -0.4)
        loss = true * (1 + 0.003 * rng.standard_normal(5))
        statistics = IntervalStatistics(
            interval=t, count=10, loss=loss, loss_by_term=loss[None], variance=loss, positives=None,
            variance_reduction=rng.random(5), previous_loss=previous, weights=np.ones(5),
        )  # fmt: skip
        _, state = strategy.decide(statistics, state, generator(seed, "all", t))
        previous = loss
    return float(state["probabilities"][better])


def test_it_finds_the_action_under_which_losses_fall_faster() -> None:
    assert min(likelihood("trend", seed) for seed in range(10)) > 0.6
    assert max(likelihood("fall", seed) for seed in range(10)) < 0.45, "eq 6 rewards the others as well"


def test_what_falls_faster_than_lately_is_rewarded_and_what_stalls_is_not() -> None:
    falling = [10 * t**-0.5 for t in range(1, 11)]
    assert rewards(RLO(reward="trend"), [*falling, falling[-1] / 2])[-1] == 1
    assert rewards(RLO(reward="trend"), [*falling, falling[-1] * 0.999])[-1] == -1
    assert rewards(RLO(), [*falling, falling[-1] * 0.999])[-1] == 1


def test_one_explosion_does_not_spoil_the_average() -> None:
    """A rise without limit would, and every later interval would look like a fast fall."""
    calm = [10 * t**-0.5 for t in range(1, 41)]
    spoilt = [*calm[:10], 1e20, *calm[11:]]
    assert rewards(RLO(reward="trend"), spoilt)[10] == -1
    later = rewards(RLO(reward="trend"), spoilt, noise=0.01)[20:]
    assert 0.3 < sum(reward > 0 for reward in later) / len(later) < 0.7


def test_nothing_is_judged_before_there_is_a_trend() -> None:
    first, second, third = trained(RLO(reward="trend"), [3.0, 2.0, 1.5])
    assert [first.reward, second.reward] == [0, 0] and third.reward
    assert first.probabilities == second.probabilities != third.probabilities


def test_the_unit_of_the_losses_does_not_matter() -> None:
    totals = [3 + random.Random(1).random() / t for t in range(1, 30)]
    assert rewards(RLO(reward="trend"), totals) == rewards(RLO(reward="trend"), [1024 * x for x in totals])


def test_losses_of_zero() -> None:
    assert rewards(RLO(reward="trend"), [0.0] * 5) == [0] * 5


def test_another_reward_is_refused() -> None:
    with pytest.raises(ValueError, match=r"reward should be one of fall, trend\. Found `rise`\."):
        RLO(reward="rise")  # type: ignore[arg-type]


def halfway(strategy: RLO) -> Balancer:
    balancer = Balancer(LEVELS, strategy, interval=2)
    for total in range(12, 5, -1):
        balancer(torch.full((5,), float(total)))
    return balancer


def test_a_state_from_before_the_option_loads() -> None:
    saved = halfway(RLO()).state_dict()
    state = saved["_extra_state"]
    assert set(state["state"]) == {"probabilities", "action", "reward"}, "eq 6 remembers what it always has"
    del state["of"]["strategy.reward"]
    balancer = Balancer(LEVELS, "rlo", interval=2)
    balancer.load_state_dict(saved)
    assert balancer.intervals == 3
    with pytest.raises(
        RuntimeError, match=r"strategy\.reward 'fall', this balancer has 'trend'; make it with"
    ):
        Balancer(LEVELS, RLO(reward="trend"), interval=2).load_state_dict(saved)
