"""The engine's records against the slow reference, on random streams of losses."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from msbal_reference import ACTIONS, Settings, philox, run, uniform

from msbal.engine import AVW, RLO, Balancer, Equal, IntervalRecord, MaxLoss, MinLoss, Strategy
from msbal.engine.draw import generator
from msbal.records import open_losses
from msbal.records.replay import replay


def stream(seed: int, iterations: int, levels: int) -> list[list[float]]:
    """Losses that fall, rise again, differ in size over levels, and are sometimes zero."""
    rng = random.Random(seed)
    size = [10 ** rng.uniform(-3, 1) for _ in range(levels)]
    noise = [rng.uniform(0.01, 1) for _ in range(levels)]
    drift = rng.choice([0.9, 1.0, 1.05])
    return [
        [
            0.0 if rng.random() < 0.01 else size[i] * (1 + noise[i] * rng.random()) * drift ** (m / 20)
            for i in range(levels)
        ]
        for m in range(iterations)
    ]


def engine_strategy(s: Settings) -> Strategy:
    if s.strategy == "rlo":
        return RLO(
            amplification=s.amplification, top_k=s.top_k, step=s.step, p_min=s.p_min, p_max=s.p_max,
            actions=s.actions, reward=s.reward,
        )  # fmt: skip
    if s.strategy == "equal":
        return Equal()
    cls = {"avw": AVW, "min_loss": MinLoss, "max_loss": MaxLoss}[s.strategy]
    return cls(amplification=s.amplification, top_k=s.top_k)


def engine_run(losses: list[list[float]], s: Settings) -> list[IntervalRecord]:
    levels = [f"P{i + 3}" for i in range(len(losses[0]))]
    balancer = Balancer(
        levels, engine_strategy(s), interval=s.alpha, seed=s.seed, group=s.group, epsilon=s.epsilon
    )
    for row in torch.tensor(losses, dtype=torch.float64):
        balancer(row)
    return balancer.drain()


def replayed(losses: list[list[float]], s: Settings, folder: Path) -> list[IntervalRecord]:
    """The same through a CSV and `msbal.records.replay`, which computes whole intervals at once."""
    path = folder / "losses.csv"
    names = [f"{s.group}:P{i + 3}/loss" for i in range(len(losses[0]))]
    path.write_text("\n".join([",".join(names), *(",".join(map(repr, row)) for row in losses)]) + "\n")
    (recorded,) = open_losses(path)
    return [report.record for report in replay(recorded, engine_strategy(s), s.alpha, s.seed, s.epsilon)]


@pytest.mark.parametrize("seed", range(12))
def test_replay_on_streams_of_any_kind(seed: int, tmp_path: Path) -> None:
    rng = random.Random(1000 + seed)
    settings = Settings(
        strategy=rng.choice(["rlo", "avw", "min_loss", "max_loss", "equal"]),
        alpha=rng.randint(2, 40),
        amplification=rng.uniform(0, 3),
        top_k=rng.randint(1, 3),
        seed=rng.randint(0, 2**40),
        group=rng.choice(["rpn", "roi", "cls"]),
    )
    losses = stream(seed, 700, rng.randint(4, 8))
    expected = run(losses, settings)
    records = replayed(losses, settings, tmp_path)
    assert [r.action for r in records] == [truth.action for truth in expected]
    assert records == engine_run(losses, settings)
    for record, truth in zip(records, expected, strict=True):
        assert record.weights == pytest.approx(truth.weights, rel=1e-12)
        assert record.probabilities == pytest.approx(truth.probabilities, rel=1e-12)


def assert_agree(losses: list[list[float]], settings: Settings) -> None:
    records, expected = engine_run(losses, settings), run(losses, settings)
    assert len(records) == len(expected) == len(losses) // settings.alpha > 0
    for t, (record, truth) in enumerate(zip(records, expected, strict=True), start=1):
        assert record.interval == t
        assert record.iteration == t * settings.alpha
        assert record.loss == pytest.approx(truth.loss, rel=1e-12)
        assert record.variance == pytest.approx(truth.variance, rel=1e-9, abs=1e-30)
        assert record.variance_reduction == pytest.approx(truth.variance_reduction, rel=1e-9, abs=1e-12)
        assert record.action == truth.action
        assert (record.reward or 0) == truth.reward
        assert record.probabilities == pytest.approx(truth.probabilities, rel=1e-12)
        assert record.weights == pytest.approx(truth.weights, rel=1e-12)


@pytest.mark.parametrize("strategy", ["avw", "min_loss", "max_loss", "equal", "rlo"])
@pytest.mark.parametrize("seed", range(4))
def test_every_strategy(strategy: str, seed: int) -> None:
    assert_agree(stream(seed, 237, 5), Settings(strategy=strategy, alpha=10, seed=seed))


@pytest.mark.parametrize("levels", [3, 4, 7])
@pytest.mark.parametrize("actions", [ACTIONS, ("min_loss", "max_loss"), ("equal", "avw", "max_loss")])
def test_rlo_over_levels_and_action_subsets(levels: int, actions: tuple[str, ...]) -> None:
    settings = Settings(alpha=5, actions=actions, seed=levels, step=0.07, p_min=0.2, p_max=0.6)
    assert_agree(stream(levels, 300, levels), settings)


@pytest.mark.parametrize("seed", range(4))
def test_rlo_rewarded_against_its_trend(seed: int) -> None:
    settings = Settings(alpha=5, seed=seed, step=0.05, reward="trend")
    losses = stream(seed, 300, 5)
    assert_agree(losses, settings)
    other = run(losses, Settings(alpha=5, seed=seed, step=0.05))
    assert [one.reward for one in run(losses, settings)] != [one.reward for one in other]


@pytest.mark.parametrize("seed", range(6))
def test_rlo_hyperparameters(seed: int) -> None:
    rng = random.Random(seed)
    settings = Settings(
        alpha=rng.randint(2, 30),
        amplification=rng.uniform(0, 5),
        top_k=rng.randint(1, 4),
        step=rng.uniform(0.005, 0.3),
        p_min=rng.uniform(0.01, 0.25),
        p_max=rng.uniform(0.25, 0.99),
        epsilon=10 ** rng.uniform(-8, -2),
        seed=rng.randint(-(2**70), 2**70),
        group=rng.choice(["all", "rpn", "rpn:cls", "Größe"]),
    )
    assert_agree(stream(seed, 600, 5), settings)


def test_all_actions_are_drawn_and_moved() -> None:
    """The comparisons above would be worth little if one action were always drawn."""
    settings = Settings(alpha=2, seed=5)
    records = run(stream(5, 400, 5), settings)
    assert {record.action for record in records} == set(ACTIONS)
    assert {record.reward for record in records} >= {-1, 1}


def test_iterations_with_nonfinite_losses() -> None:
    losses = stream(3, 200, 5)
    rng = random.Random(0)
    for m in rng.sample(range(200), 30):
        losses[m][rng.randrange(5)] = rng.choice([float("nan"), float("inf"), float("-inf")])
    assert_agree(losses, Settings(alpha=20))


def test_philox_published_outputs() -> None:
    # The known answers of the authors' own library (random123, kat_vectors, philox4x64 10).
    full = 2**64 - 1
    assert philox((0, 0, 0, 0), (0, 0)) == (
        0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B,
    )  # fmt: skip
    assert philox((full,) * 4, (full,) * 2) == (
        0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0,
    )  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, -1, 42, 2**63, 2**64 + 5, -(2**80)])
@pytest.mark.parametrize("name", ["", "all", "rpn:cls"])
def test_draws_are_philox(seed: int, name: str) -> None:
    for interval in (1, 2, 900, 10**6):
        assert generator(seed, name, interval).random() == uniform(seed, name, interval)


def test_draws_are_uniform_and_differ_by_seed_and_group() -> None:
    def draws(seed: int, name: str) -> np.ndarray:
        return np.array([generator(seed, name, t).random() for t in range(1, 4001)])

    drawn = draws(0, "all")
    assert drawn.min() >= 0 and drawn.max() < 1
    counts, _ = np.histogram(drawn, 20, (0, 1))
    # Chi-squared with 19 degrees of freedom; above 43.8 once in a thousand, and the draw is fixed.
    assert ((counts - 200) ** 2 / 200).sum() < 43.8
    for other in (draws(1, "all"), draws(0, "rpn")):
        assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.06
