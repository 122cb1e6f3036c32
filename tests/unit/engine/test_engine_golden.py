"""Equations 1 to 7 on numbers that can be checked by hand.

Four levels, alpha = 2, lambda = 1.5, top_k = 2:

            P3   P4   P5   P6                       P3        P4       P5       P6
    L_1      1    2    3    4     interval 1   L     4         4        8       14    (sum 30)
    L_2      3    2    5   10                  Var   2         0        2       18    ((a - b)^2 / 2)
                                               r   -1/1.00001  1/1.00001  -1/1.00001  -17/1.00001
    L_3      1    1    1    1     interval 2   L     3         4        2        6    (sum 15)
    L_4      2    3    1    5                  Var   0.5       2        0        8
                                               r   1.5/2.00001  -2/0.00001  2/2.00001  10/18.00001
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from msbal.baselines import Fixed
from msbal.engine import AVW, RLO, Balancer, Equal, MaxLoss, MinLoss, Strategy
from msbal.engine.strategies.actions import amplify, select_top
from msbal.engine.strategies.rlo import reinforce, reward

LEVELS = ("P3", "P4", "P5", "P6")
LOSSES = torch.tensor([[1, 2, 3, 4], [3, 2, 5, 10], [1, 1, 1, 1], [2, 3, 1, 5]], dtype=torch.float64)


def balancer_after(strategy: Strategy, losses: torch.Tensor = LOSSES) -> Balancer:
    balancer = Balancer(LEVELS, strategy, interval=2)
    for row in losses:
        balancer(row)
    return balancer


def test_statistics() -> None:
    first, second = balancer_after(Equal()).drain()
    assert (first.interval, first.iteration, first.count) == (1, 2, 2)
    assert first.loss == (4, 4, 8, 14)
    assert first.variance == (2, 0, 2, 18)
    assert first.variance_reduction == pytest.approx([-1 / 1.00001, 1 / 1.00001, -1 / 1.00001, -17 / 1.00001])
    assert (second.interval, second.iteration) == (2, 4)
    assert second.loss == (3, 4, 2, 6)
    assert second.variance == (0.5, 2, 0, 8)
    assert second.variance_reduction == pytest.approx([1.5 / 2.00001, -2e5, 2 / 2.00001, 10 / 18.00001])


@pytest.mark.parametrize(
    ("strategy", "first", "second"),
    [
        # P4 first; P3 and P5 tie for the second place and the finer wins: 1 + 1.5 * 4 / 30 = 1.2 both.
        # Then P5 and P3: 1 + 1.5 * 2 / 15 = 1.2 and 1 + 1.5 * 3 / 15 = 1.3.
        (AVW(), (1.2, 1.2, 1, 1), (1.3, 1, 1.2, 1)),
        # P3 and P4; then P5 and P3.
        (MinLoss(), (1.2, 1.2, 1, 1), (1.3, 1, 1.2, 1)),
        # P6 and P5: 1 + 1.5 * 14 / 30 = 1.7, 1 + 1.5 * 8 / 30 = 1.4; then P6 and P4: 1.6 and 1.4.
        (MaxLoss(), (1, 1, 1.4, 1.7), (1, 1.4, 1, 1.6)),
        (Equal(), (1, 1, 1, 1), (1, 1, 1, 1)),
        (Fixed((0.5, 2, 0, 1)), (0.5, 2, 0, 1), (0.5, 2, 0, 1)),
        # lambda = 3 and one level: 1 + 3 * 14 / 30; 1 + 3 * 6 / 15.
        (MaxLoss(amplification=3, top_k=1), (1, 1, 1, 2.4), (1, 1, 1, 2.2)),
        # A tie for the only place.
        (MinLoss(top_k=1), (1.2, 1, 1, 1), (1, 1, 1.2, 1)),
    ],
)
def test_weights(strategy: Strategy, first: tuple[float, ...], second: tuple[float, ...]) -> None:
    records = balancer_after(strategy).drain()
    assert records[0].weights == pytest.approx(first)
    assert records[1].weights == pytest.approx(second)
    assert records[1].previous_weights == records[0].weights
    assert records[0].action == strategy.name and records[0].reward is None
    assert records[0].probabilities == {}


def test_eq_1_uses_the_weights_of_the_interval_before() -> None:
    balancer = Balancer(LEVELS, MaxLoss(), interval=2)
    totals = [float(balancer(row)) for row in LOSSES]
    # 1 + 2 + 3 + 4; 3 + 2 + 5 + 10; then with (1, 1, 1.4, 1.7): 1 + 1 + 1.4 + 1.7; 2 + 3 + 1.4 + 8.5.
    assert totals == pytest.approx([10, 20, 5.1, 14.9])


def test_terms_are_summed_within_a_level_and_share_its_weight() -> None:
    balancer = Balancer(LEVELS, MaxLoss(), terms=("cls", "bbox"), interval=2)
    for row in LOSSES[:2]:
        balancer({"bbox": 0.75 * row, "cls": 0.25 * row})
    (record,) = balancer.drain()
    assert record.loss == (4, 4, 8, 14)
    assert record.variance == (2, 0, 2, 18)
    assert record.loss_by_term == {"cls": (1, 1, 2, 3.5), "bbox": (3, 3, 6, 10.5)}
    values = torch.ones(2, 4, requires_grad=True)
    balancer(values).backward()
    assert values.grad is not None
    assert values.grad[0].tolist() == values.grad[1].tolist() == pytest.approx([1, 1, 1.4, 1.7])


def test_rlo_first_two_intervals() -> None:
    records = balancer_after(RLO(), LOSSES).drain()
    actions = ("avw", "min_loss", "max_loss", "equal")
    weights = {
        "avw": [(1.2, 1.2, 1, 1), (1.3, 1, 1.2, 1)],
        "min_loss": [(1.2, 1.2, 1, 1), (1.3, 1, 1.2, 1)],
        "max_loss": [(1, 1, 1.4, 1.7), (1, 1.4, 1, 1.6)],
        "equal": [(1, 1, 1, 1), (1, 1, 1, 1)],
    }
    # No action has been taken before the first interval's end: reward 0, all probabilities 1/4.
    assert records[0].reward == 0
    assert records[0].probabilities == dict.fromkeys(actions, 0.25)
    # The loss fell from 30 to 15: the first action rises to 0.26, the others to 0.25 * 0.74 / 0.75.
    assert records[1].reward == 1
    taken = records[0].action
    expected = {a: 0.26 if a == taken else 0.25 * 0.74 / 0.75 for a in actions}
    assert records[1].probabilities == pytest.approx(expected)
    for t in range(2):
        assert records[t].weights == pytest.approx(weights[records[t].action][t])


def test_reward() -> None:
    def of(before: float, now: float) -> int:
        return reward(np.array([before, 1.0]), np.array([now, 1.0]))

    assert (of(2, 1), of(1, 1), of(1, 2)) == (1, 0, -1)


@pytest.mark.parametrize(
    ("p", "action", "earned", "expected"),
    [
        ([0.25] * 4, 0, 1, [0.26] + [0.25 * 0.74 / 0.75] * 3),
        ([0.25] * 4, 2, -1, [0.25 * 0.76 / 0.75] * 2 + [0.24] + [0.25 * 0.76 / 0.75]),
        # No change of the loss is no reward: punished.
        ([0.25] * 4, 3, 0, [0.25 * 0.76 / 0.75] * 3 + [0.24]),
        # Kept within [0.1, 0.9]; the others may leave it.
        ([0.895, 0.035, 0.035, 0.035], 0, 1, [0.9] + [0.1 / 3] * 3),
        ([0.105, 0.395, 0.25, 0.25], 0, -1, [0.1, 0.395 * 0.9 / 0.895] + [0.25 * 0.9 / 0.895] * 2),
        # Outside of it already: brought back.
        ([0.05, 0.95], 0, 1, [0.1, 0.9]),
    ],
)
def test_eq_7(p: list[float], action: int, earned: int, expected: list[float]) -> None:
    names = "abcd"[: len(p)]
    new = reinforce(dict(zip(names, p, strict=True)), names[action], earned, 0.01, 0.1, 0.9)
    assert list(new.values()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("step", [0.01, 0.3])
def test_probabilities_still_sum_to_one_after_many_intervals(step: float) -> None:
    # Divided by 1 - p, as eq 7 has it, the sum is off by 0.03 after a thousand intervals of step 0.3.
    rng = random.Random(0)
    p = dict.fromkeys("abcd", 0.25)
    for _ in range(2000):
        (action,) = rng.choices(list(p), list(p.values()))
        p = reinforce(p, action, rng.choice((-1, 0, 1)), step, 0.05, 0.95)
    assert sum(p.values()) == pytest.approx(1, abs=1e-14)
    assert min(p.values()) > 0


def test_select_top_breaks_ties_to_the_finer_level() -> None:
    score = np.array([1.0, 3.0, 3.0, 1.0, 3.0])
    assert select_top(score, 2).tolist() == [False, True, True, False, False]
    assert select_top(score, 4).tolist() == [True, True, True, False, True]
    assert select_top(np.zeros(5), 2).tolist() == [True, True, False, False, False]


def test_amplify_extremes() -> None:
    chosen = np.array([True, False, True])
    assert amplify(chosen, np.zeros(3), 1.5).tolist() == [1, 1, 1]
    huge = np.array([1e308, 1e308, 1e308])
    assert amplify(chosen, huge, 1.5).tolist() == pytest.approx([1.5, 1, 1.5])
    negative = np.array([-1.0, 2.0, 3.0])
    assert amplify(chosen, negative, 1.0).tolist() == pytest.approx([1, 1, 1 + 3 / 4])
