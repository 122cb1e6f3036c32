"""How much of a gradient is common to all batches, where that is known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from msbal.backend import LevelGroup, SplitLosses
from msbal.diagnosis.conflicts import CONFLICT
from msbal.diagnosis.measure import measure_levels
from msbal.diagnosis.signal import CommonGradients, signal_cosines
from msbal.engine import LevelGradients, LevelLosses
from msbal.records.diagnosis import GroupState, LevelDiagnosis, ModelState, read_diagnosis, write_diagnosis

SIZE = 4000


class Noisy:
    """A detector whose level k has the gradient ``batches[b, k]`` on the shared numbers, and one of its own.

    Args:
        batches: ``[B, K, n]``.
    """

    def __init__(self, batches: Tensor) -> None:
        self.batches = batches
        levels = tuple(f"P{k + 3}" for k in range(batches.shape[1]))
        self.groups = (LevelGroup("all", "Head", levels, (8,) * len(levels), ("loss",)),)
        self.model = nn.Module()
        self.model.shared = nn.Parameter(torch.zeros(batches.shape[2], dtype=batches.dtype))
        self.model.own = nn.ParameterList(torch.zeros((), dtype=batches.dtype) for _ in levels)

    def batch(self, data: Any, indices: Sequence[int]) -> int:
        return indices[0]

    def split_losses(self, batch: int) -> SplitLosses:
        losses = self.batches[batch] @ self.model.shared + 9 * torch.stack(list(self.model.own))  # type: ignore[operator, arg-type]
        return SplitLosses({"all": LevelLosses(losses[None], None)}, {}, {})


def measured(batches: Tensor) -> tuple[GroupState, list[str]]:
    indices = [[b] for b in range(len(batches))]
    states, odd = measure_levels(Noisy(batches), None, indices, 0, lambda done: None)  # type: ignore[arg-type]
    return states[0], odd


def gradients(
    common: Sequence[Sequence[float]], noise: Sequence[float], count: int = 8, seed: int = 0
) -> Tensor:
    """Return ``[B, K, n]``: what is common, in the first numbers, and noise of these norms, new in each batch."""
    draw = torch.Generator().manual_seed(seed)
    found = torch.randn(count, len(noise), SIZE, generator=draw, dtype=torch.float64) / math.sqrt(SIZE)
    found *= torch.tensor(noise)[:, None]
    found[:, :, : len(common[0])] += torch.tensor(common)
    return found


def test_the_signal_is_that_which_was_put_in() -> None:
    state, odd = measured(gradients([[1, 0], [1, 0], [0, 0], [0, 3]], noise=[1, 3, 1, 0]))
    assert not odd
    assert state.signal == pytest.approx((0.5, 0.1, 0, 1), abs=0.02)
    alike, unrelated = state.signal_cosine[0][1], state.signal_cosine[0][3]
    assert alike is not None and alike.mean == pytest.approx(1, abs=0.15) and alike.high == 1
    assert unrelated is not None and unrelated.mean == pytest.approx(0, abs=0.05)
    assert state.signal_cosine[1][0] == pytest.approx(alike)
    assert state.signal_cosine[0][0] == pytest.approx((1, 1, 1))


def test_it_is_without_bias() -> None:
    found = [
        measured(gradients([[0.3], [0]], noise=[1, 1], count=3, seed=seed))[0].signal for seed in range(40)
    ]
    mean = np.mean(found, axis=0)
    assert mean == pytest.approx([0.09 / 1.09, 0], abs=0.003)
    assert min(each[1] for each in found) < 0  # type: ignore[type-var, operator]


def test_a_conflict_that_noise_hides() -> None:
    state, _ = measured(gradients([[1], [-1]], noise=[2.5, 2.5], count=16))
    assert abs(state.cosine[0][1].mean) < 0.2
    cosine = state.signal_cosine[0][1]
    assert cosine is not None and cosine.mean == pytest.approx(-1, abs=0.1) and cosine.high < -0.5


def test_it_is_that_of_all_pairs_of_batches_computed_slowly() -> None:
    batches = gradients([[1, 0, 2], [0, 1, 1], [-1, 0, 0]], noise=[1, 2, 1], count=4)
    batches[1, 2] = 0  # a level without a loss in one batch
    batches[:, :, 7] = torch.tensor([5.0, 0, 0])
    state, _ = measured(batches)
    g = batches.numpy()
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    expected = np.mean([g[a] @ g[b].T for a, b in pairs], axis=0)
    own = np.mean([np.diag(one @ one.T) for one in g], axis=0)
    assert state.signal == pytest.approx(np.diag(expected) / own, rel=1e-9)
    length = np.sqrt(np.diag(expected))
    cosine = expected / np.outer(length, length)
    assert np.array(state.signal_cosine)[:, :, 0] == pytest.approx(np.clip(cosine, -1, 1), rel=1e-9)
    without = []  # the jackknife of P3 and P4
    for b in range(4):
        kept = [(a, c) for a, c in pairs if b not in (a, c)]
        one = np.mean([g[a] @ g[c].T for a, c in kept], axis=0)
        without.append(one[0, 1] / math.sqrt(one[0, 0] * one[1, 1]))
    reach = stats.t.ppf(0.975, 3) * math.sqrt(3 / 4 * np.sum((np.array(without) - np.mean(without)) ** 2))
    assert state.signal_cosine[0][1] == pytest.approx(
        (cosine[0, 1], max(-1, cosine[0, 1] - reach), min(1, cosine[0, 1] + reach))
    )


def test_a_long_gradient_is_sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = gradients([[1] * 30, [1] * 15 + [-1] * 15, [0] * 30], noise=[5, 5, 3], count=8)
    exact, _ = measured(batches)
    monkeypatch.setattr("msbal.diagnosis.signal.WIDTH", 997)
    assert measured(batches)[0].signal == pytest.approx(exact.signal, abs=0.04)


@pytest.mark.parametrize(("signal", "batches"), [(0.0, 8), (0.25, 8), (0.5, 8), (0.25, 16)])
def test_the_intervals_hold_where_noise_has_few_directions(signal: float, batches: int) -> None:
    """Then the estimates are as uncertain as they can be, and still unrelated levels are hardly ever in conflict."""
    draw, wrong, found = np.random.default_rng(0), 0, 0
    for _ in range(100):
        rows = np.zeros((batches, 3, 8))
        rows[:, :, :5] = draw.normal(size=(batches, 3, 5)) * math.sqrt((1 - signal) / 5)
        rows[:, [0, 1, 2], [5, 5, 6]] = np.array([1, -1, 1]) * math.sqrt(signal)
        pairs = np.einsum("bkn,cjn->bckj", rows, rows)
        cosines = signal_cosines(pairs)
        opposed = [[each is not None and each.high < CONFLICT for each in row] for row in cosines]
        wrong += opposed[0][2] or opposed[1][2]
        found += opposed[0][1]
    assert wrong <= 8
    assert found >= 85 or signal < 0.5


def test_what_is_not_finite_counts_for_nothing() -> None:
    batches = gradients([[1], [1]], noise=[1, 1], count=5)
    spoilt = batches.clone()
    spoilt[2, 1, 0] = math.nan
    state, odd = measured(spoilt)
    assert odd
    assert state.signal == pytest.approx(measured(batches[[0, 1, 3, 4]])[0].signal)


def test_one_batch_has_no_signal_and_no_gradient_none() -> None:
    assert measured(gradients([[1], [1]], noise=[1, 1], count=1))[0].signal == ()
    state, _ = measured(gradients([[1], [0], [1]], noise=[1, 0, 1]))
    assert state.signal[1] is None and state.signal_cosine[0][1] is None
    assert state.signal_cosine[0][2] is not None


def test_it_is_read_as_it_was_written_and_older_files_have_none(tmp_path: Path) -> None:
    batches = gradients([[1], [0], [1]], noise=[1, 0, 1])
    found = LevelDiagnosis("m", "torchvision", 8, 4, {}, {}, (ModelState(0, (measured(batches)[0],)),))
    file = tmp_path / "diagnosis.json"
    write_diagnosis(file, found)
    (group,) = read_diagnosis(file).states[0].groups
    (written,) = found.states[0].groups
    assert (group.signal, group.signal_cosine) == (written.signal, written.signal_cosine)
    raw = json.loads(file.read_text())
    for key in ("signal", "signal_cosine"):
        del raw["states"][0]["groups"][0][key]
    file.write_text(json.dumps(raw))
    older = read_diagnosis(file)
    assert older.states[0].groups[0].signal == () and not older.tells(older.states[0].groups[0], 0)


def test_a_loss_scale_that_overflows_is_not_added_twice() -> None:
    """In float32, 2 ** 16 times a gradient of 1e34 is infinite: that level is measured again, the others are not."""
    parameter, loud = nn.Parameter(torch.ones(3)), CommonGradients
    found = []
    for factor in (1.0, 1e34):
        common = loud([parameter])
        for batch in range(3):
            rows = torch.tensor([[1.0, batch, 0], [factor, 0, factor * batch]])
            common.measure(rows @ parameter)
        products = common.products()
        assert products is not None
        pairs, squared = products
        found.append([pairs / np.outer([1, factor], [1, factor]), squared / [1, factor**2]])
    assert found[1] == [pytest.approx(each, rel=1e-6) for each in found[0]]


def test_no_further_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    passes, grad = [], torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *args, **kwargs: passes.append(1) or grad(*args, **kwargs)
    )
    parameter = nn.Parameter(torch.ones(3))
    for kind in (LevelGradients, CommonGradients):
        each = kind([parameter])
        for _ in range(3):
            each.measure(torch.eye(3)[:2] @ parameter)
        if isinstance(each, CommonGradients):
            assert each.products() is not None and not each._latest
    assert len(passes) == 2 * 3 * 2
