"""Rows to levels, and reductions by level, against loops over rows."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from msbal_mmdet.splitters.reduction import (
    LevelReduction,
    levels_of_selected,
    listen,
    on_first_level,
    replace_modules,
    row_levels,
    sum_rows,
)

CPU = torch.device("cpu")


def slow_levels(sizes: list[int], images: int, level_major: bool) -> list[int]:
    """The level of each row, row by row."""
    if level_major:
        return [level for level, size in enumerate(sizes) for _ in range(images * size)]
    return [level for _ in range(images) for level, size in enumerate(sizes) for _ in range(size)]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.booleans(),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_sums_agree_with_a_loop_over_rows(
    images: int, sizes: list[int], level_major: bool, width: int, random: Any
) -> None:
    slow = slow_levels(sizes, images, level_major)
    level = row_levels(sizes, images, level_major, CPU)
    assert level.tolist() == slow
    values = torch.tensor([[random.uniform(-1, 1) for _ in range(width)] for _ in slow])
    selected = torch.tensor([random.random() < 0.4 for _ in slow])
    found = levels_of_selected(level, selected, int(selected.sum()))
    assert found.tolist() == level[selected].tolist()
    for k in range(len(sizes)):
        rows = [i for i, at in enumerate(slow) if at == k]
        expected = pytest.approx(values[rows].sum().item(), abs=1e-5)
        assert sum_rows(values, level, len(sizes))[k].item() == expected
        assert sum_rows(values.flatten(), level, len(sizes))[k].item() == expected
        chosen = pytest.approx(values[[i for i in rows if selected[i]]].sum().item(), abs=1e-5)
        assert sum_rows(values[selected], found, len(sizes))[k].item() == chosen


def test_a_row_that_nothing_selected_belongs_to_no_level() -> None:
    level = levels_of_selected(torch.tensor([0, 1, 1]), torch.tensor([False, True, False]), 2)
    assert sum_rows(torch.tensor([2.0, 3.0]), level, 2).tolist() == [0, 2]


def test_one_levels_nan_stays_on_its_level() -> None:
    sums = sum_rows(torch.tensor([1.0, float("nan"), 3.0]), torch.tensor([0, 1, 2]), 3)
    assert sums[0] == 1 and torch.isnan(sums[1]) and sums[2] == 3


def test_a_level_without_rows_is_zero() -> None:
    assert sum_rows(torch.tensor([2.0]), torch.tensor([1]), 3).tolist() == [0, 2, 0]


def test_zeros_keep_their_graph() -> None:
    scores = torch.ones(3, requires_grad=True)
    on_first_level((scores * 0).sum(), 4).sum().backward()
    assert scores.grad is not None and not scores.grad.any()


def losses() -> dict[str, tuple[Any, tuple[Tensor, ...], dict[str, Any]]]:
    """mmdet's losses with 12 rows of input, none of their weights a power of two."""
    from mmdet.models import losses as m

    torch.manual_seed(0)
    scores, boxes = torch.randn(12, 3), torch.rand(12, 4) * 10
    boxes[:, 2:] += boxes[:, :2] + 1
    moved, labels, weight = boxes + torch.rand(12, 4), torch.randint(0, 4, (12,)), torch.rand(12)
    wide = weight[:, None].expand(12, 4)
    return {
        "focal": (m.FocalLoss(loss_weight=1.3), (scores, labels), {"avg_factor": 3.7}),
        "cross entropy": (
            m.CrossEntropyLoss(use_sigmoid=True, loss_weight=0.7),
            (scores[:, 0], (labels > 0).float()),
            {"avg_factor": 5.0},
        ),
        "softmax": (m.CrossEntropyLoss(loss_weight=0.7), (torch.randn(12, 4), labels, weight), {"avg_factor": 3}),
        "mean": (m.L1Loss(loss_weight=0.3), (boxes, moved), {}),
        "sum": (m.L1Loss(reduction="sum", loss_weight=0.3), (boxes, moved), {}),
        "giou": (m.GIoULoss(loss_weight=2.1), (boxes, moved, weight), {"avg_factor": torch.tensor(2.5)}),
        "iou": (m.IoULoss(loss_weight=2.1), (boxes, moved, weight), {"avg_factor": 4}),
        "smooth": (m.SmoothL1Loss(beta=0.11, loss_weight=1.7), (boxes, moved, wide), {"avg_factor": 7}),
        "varifocal": (m.VarifocalLoss(loss_weight=1.1), (scores, torch.rand(12, 3)), {"avg_factor": 2.2}),
        "no weight": (m.GIoULoss(loss_weight=2.1), (boxes, moved, torch.zeros(12)), {"avg_factor": 1}),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(losses()))
def test_a_reduction_by_level_gives_the_losss_own_gradient_bit_for_bit(name: str) -> None:
    loss, (pred, *rest), options = losses()[name]
    level = row_levels([1, 2, 3], 2, True, CPU)
    plain = pred.clone().requires_grad_()
    loss(plain, *rest, **options).backward()

    split = pred.clone().requires_grad_()
    reduction = LevelReduction(loss, lambda _a, _k: level, 3)
    by_level = reduction(split, *rest, **options)
    assert by_level.shape == (3,)
    by_level.sum().backward()
    assert torch.equal(plain.grad, split.grad)
    assert by_level.sum().item() == pytest.approx(loss(pred, *rest, **options).item(), rel=1e-5)

    # And a level's loss is that of its rows alone.
    alone = pred.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(reduction(alone, *rest, **options)[2], alone)
    assert not gradient[:6].any()


def test_loss_weight_is_put_back_even_when_the_loss_fails() -> None:
    from mmdet.models.losses import L1Loss

    loss = L1Loss(loss_weight=0.3)
    with pytest.raises(Exception):  # noqa: B017
        LevelReduction(loss, lambda _a, _k: torch.zeros(3), 2)(torch.zeros(3, 4), torch.zeros(2, 4))
    assert loss.loss_weight == 0.3


def test_replaced_modules_leave_no_trace() -> None:
    owner = nn.Module()
    owner.loss = nn.Identity()
    keys, before = list(owner.state_dict()), owner.loss
    heard: list[Any] = []
    with replace_modules(owner, {"loss": nn.ReLU()}), listen(owner, "extra_repr", heard.append):
        assert isinstance(owner.loss, nn.ReLU)
        owner.extra_repr()
    assert owner.loss is before and list(owner.state_dict()) == keys and heard == [""]
    assert "extra_repr" not in vars(owner)
