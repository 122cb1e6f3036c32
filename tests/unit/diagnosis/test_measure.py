"""What is measured of levels whose gradients are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from msbal.backend import LevelGroup, SplitLosses
from msbal.data import DetectionData, ImageRecord
from msbal.diagnosis.measure import choose_batches, equal_norm_weights, measure_levels, spread
from msbal.engine import LevelLosses
from msbal.records.diagnosis import GroupState, Spread

LEVELS = ("P3", "P4", "P5")


class Crafted:
    """A detector whose level k has the gradient `rows[k]` times the batch's factor, on four shared numbers.

    Args:
        rows: ``[K, 4]``.
        positives: of each level in each batch.
    """

    def __init__(self, rows: Any, positives: Sequence[float] = (4, 2, 1)) -> None:
        self.rows, self.positives = torch.tensor(rows, dtype=torch.float64), torch.tensor(positives)
        self.groups = (LevelGroup("all", "Head", LEVELS, (8, 16, 32), ("cls", "bbox")),)
        self.model = nn.Module()
        self.model.shared = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
        self.model.own = nn.ParameterList(torch.ones((), dtype=torch.float64) for _ in LEVELS)

    def batch(self, data: Any, indices: Sequence[int]) -> float:
        return float(indices[0])

    def split_losses(self, batch: float) -> SplitLosses:
        of_level = batch * (self.rows @ self.model.shared) + torch.stack(list(self.model.own))  # type: ignore[operator, arg-type]
        losses = LevelLosses(torch.stack([0.75 * of_level, 0.25 * of_level]), self.positives)
        return SplitLosses(
            {"all": losses}, {}, {"all": {"neck": [self.model.shared], "head": [*self.model.own]}}
        )


def measure(detector: Any, factors: Sequence[int] = (1, 2, 3)) -> tuple[GroupState, list[str]]:
    states, odd = measure_levels(detector, None, [[each] for each in factors], 0, lambda done: None)  # type: ignore[arg-type]
    return states[0], odd


def test_a_level_whose_loss_is_a_hundred_times_the_others() -> None:
    state, odd = measure(Crafted([[100, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]))
    assert not odd
    assert [each.mean for each in state.share] == pytest.approx([100 / 102, 1 / 102, 1 / 102])
    assert state.norm["neck"] == state.norm["shared"]  # the head's numbers are a level's own
    assert [each.mean for each in state.norm["shared"]] == pytest.approx([200, 2, 2])
    assert [each.mean for each in state.norm["head"]] == [1, 1, 1]
    assert state.equal_norms == pytest.approx(np.array([0.01, 1, 1]) * 3 / 2.01)
    assert sum(state.equal_norms) == pytest.approx(3)
    assert state.cosine[0][1] == Spread(0, 0, 0) and state.cosine[0][0].mean == 1


def test_two_levels_that_conflict() -> None:
    state, _ = measure(Crafted([[1, 1, 0, 0], [-2, -2, 0, 0], [1, -1, 0, 0]]))
    assert state.cosine[0][1].mean == pytest.approx(-1)
    assert state.cosine[1][0] == state.cosine[0][1]
    assert state.cosine[0][2].mean == pytest.approx(0, abs=1e-12)


def test_a_level_without_boxes_has_no_direction_and_keeps_its_weight() -> None:
    state, _ = measure(Crafted([[1, 0, 0, 0], [4, 0, 0, 0], [0, 0, 0, 0]], positives=(4, 2, 0)))
    assert state.share[2] == Spread(0, 0, 0)
    assert math.isnan(state.cosine[0][2].mean) and math.isnan(state.cosine[2][2].mean)
    assert state.equal_norms == pytest.approx([2 * 4 / 5, 2 / 5, 1])
    assert state.positives is not None and state.positives[2].mean == 0


def test_the_background_alone_gets_no_weight() -> None:
    assert equal_norm_weights(np.array([1.0, 3.0, 1e-8]), np.array([5.0, 1.0, 0.0])).tolist() == [1.5, 0.5, 1]
    assert equal_norm_weights(np.zeros(3)).tolist() == [1, 1, 1]


def test_intervals_are_students_over_batches() -> None:
    factors = (1, 2, 4, 9)
    state, _ = measure(Crafted(np.eye(4)[:3].tolist()), factors)
    low, high = stats.t.interval(0.95, 3, np.mean(factors), stats.sem(factors))
    assert low < 0
    assert state.norm["shared"][0] == pytest.approx((4, 0, high))  # a norm is not negative
    assert state.share[0] == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    loss = 0.75 * (np.array(factors) + 1)  # level 0: the factor times 1, plus its own 1
    assert state.loss["cls"][0] == pytest.approx(
        (loss.mean(), *stats.t.interval(0.95, 3, loss.mean(), stats.sem(loss)))
    )


def test_a_share_lies_between_0_and_1() -> None:
    assert spread(np.array([0.0, 0.01, 0.2]), 0, 1).low == 0
    assert spread(np.array([0.8, 0.99, 1.0]), 0, 1).high == 1
    one = spread(np.array([0.3, np.nan]))
    assert one.mean == 0.3 and math.isnan(one.low) and math.isnan(one.high)
    assert math.isnan(spread(np.array([np.inf])).mean)


def test_what_is_not_finite_is_said_and_left_out() -> None:
    class Odd(Crafted):
        def split_losses(self, batch: float) -> SplitLosses:
            found = super().split_losses(batch)
            values = found.groups["all"].values
            if batch == 2:
                values = torch.stack([values[:, 0], values[:, 1].detach() * math.nan, values[:, 2]], dim=1)
            if batch == 3:  # a square root at 0, whose gradient spoils that of all levels
                values = values + (0 * self.model.shared.sum()).sqrt()  # type: ignore[union-attr, operator]
            return replace(found, groups={"all": LevelLosses(values, self.positives)})

    state, odd = measure(Odd(np.eye(4)[:3].tolist()))
    others = "NaN or infinite in 1 of 3 batches: the means are of the others"
    assert odd == [
        f"the cls loss of P4 is {others}",
        f"the bbox loss of P4 is {others}",
        f"the gradient of P3, P4, P5 is {others}",
    ]
    assert [each.mean for each in state.norm["shared"]] == [1.5, 1.0, 1.5]
    assert state.loss["cls"][1].mean == pytest.approx(0.75 * (1 * 2 + 1 + 3 * 2 + 1) / 2)


def test_no_share_and_no_cosine_is_measured_by_an_infinite_gradient() -> None:
    class Infinite(Crafted):
        def split_losses(self, batch: float) -> SplitLosses:
            found = super().split_losses(batch)
            values = found.groups["all"].values
            if batch == 2:
                zero = (self.model.shared.sum() - 10) * 1e200 * 1e200  # type: ignore[union-attr, operator]
                values = values + torch.stack([0 * zero.detach(), zero, 0 * zero.detach()])
            return replace(found, groups={"all": LevelLosses(values, self.positives)})

    state, odd = measure(Infinite([[2, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]))
    assert odd == ["the gradient of P4 is NaN or infinite in 1 of 3 batches: the means are of the others"]
    known, _ = measure(Crafted([[2, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]), (1, 3))
    assert [each.mean for each in state.share] == pytest.approx([each.mean for each in known.share])
    assert state.cosine[0][1].mean == pytest.approx(math.sqrt(0.5))


def records(boxes: Sequence[int]) -> DetectionData:
    def record(i: int, count: int) -> ImageRecord:
        return ImageRecord(
            i, Path(f"{i}.png"), 64, 64, np.zeros((abs(count), 4), np.float32), np.zeros(abs(count), np.int64),
            np.ones(abs(count), np.float32), np.full(abs(count), count < 0), np.zeros(abs(count), np.bool_),
        )  # fmt: skip

    return DetectionData("made up", ("a",), (1,), tuple(record(i, count) for i, count in enumerate(boxes)))


def test_no_image_is_measured_twice_and_none_without_a_box() -> None:
    data = records([1, 0, -2, 3, 1, 1, 1, 1, 1, 1])  # one empty, one with crowds alone
    batches = choose_batches(data, 3, 2, seed=4)
    chosen = [index for batch in batches for index in batch]
    assert [len(batch) for batch in batches] == [2, 2, 2]
    assert len(set(chosen)) == 6 and not {1, 2} & set(chosen)
    assert choose_batches(data, 3, 2, seed=4) == batches != choose_batches(data, 3, 2, seed=5)
    assert choose_batches(data, 2, 2, seed=4) == batches[:2]  # more batches are added to the same
    assert [len(batch) for batch in choose_batches(data, 9, 3, 0)] == [3, 3]
    assert [len(batch) for batch in choose_batches(data, 9, 100, 0)] == [8]
    assert choose_batches(records([0, -1]), 8, 2, 0) == []


@pytest.fixture
def detector_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, DetectionData]]:
    pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")
    import torchvision
    from tiny_backbone import TinyResNet

    from msbal.spec import parse_spec
    from msbal.training import prepare

    monkeypatch.setattr(torchvision.models, "resnet18", TinyResNet)

    def make(model: dict[str, Any], **balance: Any) -> tuple[Any, DetectionData]:
        size = {"backbone": "resnet18", "min_size": 96, "max_size": 96, "fpn_channels": 8}
        data = {"format": "generated", "root": str(tmp_path), "train_images": 6, "val_images": 2, "size": 96}
        raw = {
            "backend": "torchvision", "model": {**size, **model}, "data": data, "schedule": {"iterations": 4},
            "balance": {"interval": 2, **balance}, "device": "cpu", "output": "unused",
        }  # fmt: skip
        plan = prepare(parse_spec(raw))
        return plan.detector, plan.train

    return make


def test_a_real_model_stays_as_it_is(detector_of: Callable[..., tuple[Any, DetectionData]]) -> None:
    detector, data = detector_of({"norm": "bn", "head_convs": 1})
    before = {name: value.clone() for name, value in detector.model.state_dict().items()}
    draws = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    first = measure_levels(detector, data, [[0, 1], [2, 3]], 0, lambda done: None)
    assert all(torch.equal(value, before[name]) for name, value in detector.model.state_dict().items())
    assert all(parameter.grad is None for parameter in detector.model.parameters())
    assert torch.equal(torch.get_rng_state(), draws[0])
    assert np.array_equal(np.random.get_state()[1], draws[1])  # type: ignore[arg-type]
    assert not hasattr(detector.model, "_msbal_balanced")
    assert measure_levels(detector, data, [[0, 1], [2, 3]], 0, lambda done: None) == first


def test_both_groups_of_a_two_stage_model_as_computed_slowly(
    detector_of: Callable[..., tuple[Any, DetectionData]],
) -> None:
    from msbal.backend.kit.seeding import mix, seed_everything

    detector, data = detector_of({"name": "fasterrcnn", "norm": "bn"}, scope=["rpn", "roi"])
    states, _ = measure_levels(detector, data, [[0, 1]], 0, lambda done: None)
    assert [state.group for state in states] == ["rpn", "roi"]
    named = dict(detector.model.named_parameters())
    for state in states:
        of_level: list[dict[str, Tensor]] = []
        for k in range(len(state.levels)):
            seed_everything(mix("diagnose", 0, 1))
            losses = detector.split_losses(detector.batch(data, [0, 1])).groups[state.group]
            detector.model.zero_grad(set_to_none=True)
            losses.values[:, k].sum().backward()
            of_level.append({n: p.grad.clone() for n, p in named.items() if p.grad is not None})
            assert [state.loss[t][k].mean for t in state.loss] == losses.values[:, k].tolist()
        shared = [n for n in named if sum(n in each and bool(each[n].any()) for each in of_level) > 1]
        slow = [
            math.sqrt(sum(float(g.double().pow(2).sum()) for n, g in each.items() if n in shared))
            for each in of_level
        ]
        body = [
            math.sqrt(sum(float(g.double().pow(2).sum()) for n, g in each.items() if "backbone.body" in n))
            for each in of_level
        ]
        assert [each.mean for each in state.norm["shared"]] == pytest.approx(slow, rel=1e-4)
        assert [each.mean for each in state.norm["backbone"]] == pytest.approx(body, rel=1e-4)
