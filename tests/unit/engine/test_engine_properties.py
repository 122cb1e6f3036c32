"""What holds for all losses."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msbal.baselines import Fixed
from msbal.engine import (
    AVW,
    RLO,
    Balancer,
    IntervalRecord,
    LevelLosses,
    MaxLoss,
    MinLoss,
    Strategy,
    available,
)
from msbal.engine.statistics import IntervalStatistics, interval_statistics

ALPHA = 4
quick = settings(max_examples=25, deadline=None)


def streams(
    levels: int = 5, low: float = 0.0, high: float = 100.0, intervals: int = 4
) -> st.SearchStrategy[list[list[float]]]:
    loss = st.floats(low, high, allow_nan=False)
    row = st.lists(loss, min_size=levels, max_size=levels)
    return st.lists(row, min_size=ALPHA * intervals, max_size=ALPHA * intervals)


def distinct_streams(scale: int = 1000) -> st.SearchStrategy[torch.Tensor]:
    """Streams without ties: variances far above 1e-5, and no two sums or variances equal."""

    def build(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        losses = torch.rand(ALPHA * 4, 5, dtype=torch.float64, generator=generator)
        return scale * (1 + losses)

    return st.integers(0, 2**31).map(build)


def records(strategy: Strategy, losses: object, seed: int = 0) -> list[IntervalRecord]:
    rows = torch.as_tensor(losses, dtype=torch.float64)
    balancer = Balancer([f"P{i}" for i in range(rows.shape[1])], strategy, interval=ALPHA, seed=seed)
    for row in rows:
        balancer(row)
    return balancer.drain()


@quick
@given(streams(intervals=8), st.integers(0, 10**6), st.floats(0.01, 0.9))
def test_probabilities(losses: list[list[float]], seed: int, step: float) -> None:
    done = records(RLO(step=step, p_min=0.15, p_max=0.7), losses, seed)
    for before, now in itertools.pairwise(done):
        assert sum(now.probabilities.values()) == pytest.approx(1, abs=1e-12)
        assert all(0 < p < 1 for p in now.probabilities.values())
        moved = now.probabilities[before.action]
        assert 0.15 <= moved <= 0.7
        rose = moved > before.probabilities[before.action]
        assert rose <= (now.reward == 1 or before.probabilities[before.action] < 0.15)


@quick
@given(streams(), st.floats(0, 10), st.integers(1, 4), st.sampled_from([AVW, MinLoss, MaxLoss, RLO]))
def test_weights_are_within_bounds(
    losses: list[list[float]], amplification: float, top_k: int, cls: type[RLO]
) -> None:
    for record in records(cls(amplification=amplification, top_k=top_k), losses):
        assert all(1 <= w <= 1 + amplification + 1e-12 for w in record.weights)
        assert sum(w > 1 for w in record.weights) <= top_k
        assert sum(record.weights) <= 5 + amplification + 1e-9


@quick
@given(distinct_streams(), st.floats(1e-3, 1e6), st.sampled_from([MinLoss, MaxLoss, AVW]))
def test_scaling_all_losses_changes_no_choice(
    losses: torch.Tensor, factor: float, cls: type[MinLoss]
) -> None:
    plain, scaled = records(cls(), losses), records(cls(), factor * losses)
    # Eq 4 measures the first variance against 1, which has a scale.
    start = 1 if cls is AVW else 0
    for a, b in zip(plain[start:], scaled[start:], strict=True):
        assert a.weights == pytest.approx(b.weights, rel=1e-9)


@quick
@given(distinct_streams(), st.permutations(range(5)), st.sampled_from([MinLoss, MaxLoss, AVW, RLO]))
def test_permuting_levels_permutes_weights(losses: torch.Tensor, order: list[int], cls: type[RLO]) -> None:
    plain, permuted = records(cls(), losses), records(cls(), losses[:, order])
    for a, b in zip(plain, permuted, strict=True):
        assert b.weights == pytest.approx([a.weights[i] for i in order], rel=1e-9)
        assert a.action == b.action


@quick
@given(st.floats(0.001, 100), st.sampled_from([MinLoss, MaxLoss, AVW]))
def test_of_equal_levels_the_finer_win(loss: float, cls: type[MinLoss]) -> None:
    for record in records(cls(), [[loss] * 5] * ALPHA):
        assert [w > 1 for w in record.weights] == [True, True, False, False, False]


def moments(losses: list[list[float]]) -> IntervalStatistics:
    """Of two levels and one term."""
    rows, ones = np.array(losses).reshape(1, -1, 1, 2), np.ones(2)
    return interval_statistics(1, rows, None, ones, 0 * ones, ones)


@quick
@given(
    st.lists(
        st.lists(st.floats(-1e30, 1e30).filter(lambda x: x == 0 or abs(x) > 1e-30), min_size=2, max_size=2),
        min_size=3, max_size=12,
    )
)  # fmt: skip
def test_moments_against_exact_arithmetic(losses: list[list[float]]) -> None:
    found = moments(losses)
    count, loss, by_term, variance = found.count, found.loss, found.loss_by_term, found.variance
    assert count == len(losses)
    for i in range(2):
        exact = [Fraction(row[i]) for row in losses]
        total = sum(exact)
        mean = total / len(exact)
        spread = sum((x - mean) ** 2 for x in exact) / (len(exact) - 1)
        size = max(map(abs, exact))
        assert float(loss[i]) == pytest.approx(float(total), rel=1e-12, abs=1e-14 * float(size))
        assert float(by_term[0, i]) == float(loss[i])
        # Relative to itself, however small beside the losses: nothing is lost by cancellation.
        assert float(variance[i]) == pytest.approx(float(spread), rel=1e-12, abs=0.0)


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1.0, 1e15, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_variance_of_tiny_and_huge_losses(size: float, dtype: torch.dtype) -> None:
    rows = (size * torch.tensor([[1, 2, 3], [2, 2, 5], [4, 2, 1]], dtype=torch.float64)).to(dtype)
    balancer = Balancer(["a", "b", "c"], MaxLoss(top_k=1), interval=3)
    for row in rows:
        balancer(row)
    (record,) = balancer.drain()
    # 1 2 4: mean 7/3, variance 7/3; 2 2 2: 0; 3 5 1: mean 3, variance 4.
    relative = 1e-6 if dtype == torch.float32 else 1e-12
    assert [v / size**2 for v in record.variance] == pytest.approx([7 / 3, 0, 4], rel=relative)
    # 7, 6, 9 of 22: the third is chosen.
    assert record.weights == pytest.approx((1, 1, 1 + 1.5 * 9 / 22), rel=relative)


def test_small_spread_on_a_large_loss() -> None:
    """Where E[x^2] - E[x]^2 would leave nothing: 1e8 +- 1 has a variance of 4/3."""
    losses = [[1e8 + d, 1.0] for d in (1, -1, 1, -1)]
    assert moments(losses).variance[0] == pytest.approx(4 / 3, rel=1e-12)


@quick
@given(st.floats(1e-30, 1e30), st.integers(2, 150))
def test_equal_losses_have_no_variance(size: float, count: int) -> None:
    """Though their mean, rounded, may not be equal to them: at 1e30 that alone would be a variance of 1e28."""
    assert moments([[size, size]] * count).variance.tolist() == [0.0, 0.0]


def _strategies() -> dict[str, Strategy]:
    """All that decide by losses, with their defaults, or four weights where they ask for weights."""
    made: dict[str, Strategy] = {}
    for name, strategy in sorted(available().items()):
        if strategy.needs_gradients:
            continue  # the strategies' contract gives them some
        made[name] = Fixed((1.0, 2.0, 3.0, 0.5)) if strategy is Fixed else strategy()
    return made


@pytest.mark.parametrize("name", sorted(_strategies()))
@pytest.mark.parametrize("pattern", ["always", "one interval", "all levels", "then huge"])
def test_levels_without_any_loss(name: str, pattern: str) -> None:
    """A level that is zero throughout, or for a whole interval: weights stay finite, and come back."""
    generator = torch.Generator().manual_seed(3)
    losses = torch.rand(6 * ALPHA, 4, dtype=torch.float64, generator=generator) + 0.5
    losses[slice(None) if pattern in ("always", "then huge") else slice(2 * ALPHA, 3 * ALPHA), 1] = 0.0
    if pattern == "all levels":
        losses[2 * ALPHA : 3 * ALPHA] = 0.0
    if pattern == "then huge":
        losses[3 * ALPHA :, 1:3] = 1e30
    balancer = Balancer(["P3", "P4", "P5", "P6"], _strategies()[name], interval=ALPHA)
    for row in losses:
        total = balancer(LevelLosses(row.view(1, -1), torch.tensor([3, 0, 2, 1])))
        assert bool(torch.isfinite(total))
    found = balancer.drain()
    assert len(found) == 6
    for record in found:
        assert record.count == ALPHA
        assert all(math.isfinite(x) and x >= 0 for x in (*record.weights, *record.variance))
        assert all(math.isfinite(p) for p in record.probabilities.values())
    assert found[2].loss[1] == found[2].variance[1] == 0.0
