"""Opening and closing the seams; who is refused; `balance`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")

import torch
from states import assert_same_state
from tiny_mmdet import make
from torch import nn

import msbal_mmdet
from msbal.errors import RunError, SpecError
from msbal_mmdet.attach import attach, find
from msbal_mmdet.seams import REFUSED, HeadSeam, known, look_up, register


def forward(model: Any, batch: Any) -> dict[str, Any]:
    from msbal_mmdet.proof import _forward

    return _forward(model, batch, 0)


def test_every_head_of_the_zoo_has_a_seam_or_a_reason() -> None:
    import mmdet.models.dense_heads as heads

    # Heads that hold others, or compute no loss of their own.
    containers = {"AnchorFreeHead", "BaseDenseHead", "CascadeRPNHead", "YOLACTProtonet", "CondInstMaskHead",
                  "BoxInstMaskHead", "BaseMaskHead"}  # fmt: skip
    for name in heads.__all__:
        cls = getattr(heads, name)
        if not hasattr(cls, "loss_by_feat") or name in containers:
            continue
        blank = cls.__new__(cls)
        nn.Module.__init__(blank)
        assert look_up(blank) is not None, f"{name} is neither split nor refused"
    assert not set(known()) & set(REFUSED)


def test_a_head_that_overrides_its_bases_loss_is_not_guessed_at() -> None:
    from mmdet.models.dense_heads import RetinaHead

    class Third(RetinaHead):
        def loss_by_feat(self, *args: Any, **kwargs: Any) -> Any:
            return {}

    class Heir(RetinaHead):
        pass

    third, heir = Third.__new__(Third), Heir.__new__(Heir)
    found = look_up(third)
    assert isinstance(found, str) and "own way" in found
    assert look_up(heir) is known()["RetinaHead"]


def test_another_packages_class_of_the_same_name_is_unknown() -> None:
    class RetinaHead(nn.Module):
        pass

    RetinaHead.__module__ = "elsewhere.heads"
    assert look_up(RetinaHead()) is None


def test_third_parties_can_register() -> None:
    class Elsewhere(nn.Module):
        pass

    Elsewhere.__module__ = "elsewhere.heads"

    @register
    class ElsewhereSeam(HeadSeam):
        heads = ("Elsewhere",)
        package = "elsewhere"

    assert look_up(Elsewhere()) is ElsewhereSeam


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("yolof/yolof_r50-c5_8xb8-1x_coco.py", "one level"),
        ("centernet/centernet_r18_8xb16-crop512-140e_coco.py", "one level"),
        ("autoassign/autoassign_r50-caffe_fpn_1x_coco.py", "no sum over levels"),
        ("free_anchor/freeanchor_r50_fpn_1x_coco.py", "span several levels"),
        ("detr/detr_r50_8xb2-150e_coco.py", "queries"),
        ("faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py", "one level"),
    ],
)
def test_refusals_give_the_true_reason(config: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        find(make(config))
    assert "\n" not in str(caught.value)


def test_nothing_is_left_behind(retinanet: Callable[[], Any]) -> None:
    model = retinanet()
    keys, before = list(model.state_dict()), (set(vars(model)), set(vars(model.bbox_head)))
    attachment = attach(model)
    assert list(model.state_dict()) == keys
    with pytest.raises(SpecError, match="attach once"):
        attach(model)
    attachment.close()
    assert (set(vars(model)), set(vars(model.bbox_head))) == before


def test_a_copy_is_a_plain_model(retinanet: Callable[[], Any], small_batch: Callable[..., Any]) -> None:
    model = retinanet()
    attach(model)
    copied = copy.deepcopy(model)  # as mmengine's EMAHook does
    assert copied.bbox_head.loss_by_feat.__self__ is copied.bbox_head
    assert copied.parse_losses.__self__ is copied
    assert type(forward(copied, small_batch())["loss_cls"]) is list


def test_log_keys_and_values_are_the_frameworks(
    retinanet: Callable[[], Any], small_batch: Callable[..., Any]
) -> None:
    batch = small_batch()
    plain = retinanet()
    total, logged = plain.parse_losses(forward(plain, batch))
    model = retinanet()
    msbal_mmdet.balance(model, "equal", interval=2)
    ours, ours_logged = model.parse_losses(forward(model, batch))
    assert list(ours_logged) == list(logged)
    assert ours.item() == pytest.approx(total.item(), rel=1e-6)
    for key, value in logged.items():
        assert ours_logged[key].item() == pytest.approx(value.item(), rel=1e-6), key


def test_weights_reach_the_objective_and_the_record(
    retinanet: Callable[[], Any], small_batch: Callable[..., Any]
) -> None:
    model, batch = retinanet(), small_batch()
    balanced = msbal_mmdet.balance(model, "fixed", weights=(2.0, 1.0, 1.0, 1.0, 0.5), interval=2)
    losses = forward(model, batch)
    rows = torch.stack([torch.stack(list(losses[key])) for key in ("loss_cls", "loss_bbox")])
    expected = (rows.sum(0) * torch.tensor([2.0, 1.0, 1.0, 1.0, 0.5])).sum()
    objective, logged = model.parse_losses(losses)
    assert objective.item() == pytest.approx(expected.item(), rel=1e-6)
    assert logged["loss_cls"].item() == pytest.approx(rows[0].sum().item(), rel=1e-6)
    model.parse_losses(forward(model, batch))
    (record,) = balanced.drain()
    assert record.levels == ("P3", "P4", "P5", "P6", "P7")
    assert record.loss_by_term["cls"][0] == pytest.approx(2 * rows[0, 0].item(), rel=1e-5)


def test_evaluation_is_not_counted(retinanet: Callable[[], Any], small_batch: Callable[..., Any]) -> None:
    model, batch = retinanet(), small_batch()
    balanced = msbal_mmdet.balance(model, "rlo", interval=2)
    with torch.no_grad():
        for _ in range(3):
            model.parse_losses(forward(model, batch))
    assert balanced.balancers.balancers["all"].iteration == 0


def test_state_goes_through_a_state_dict(
    retinanet: Callable[[], Any], small_batch: Callable[..., Any]
) -> None:
    batch = small_batch()
    model = retinanet()
    first = msbal_mmdet.balance(model, "rlo", interval=2, top_k=1)
    for _ in range(3):
        model.parse_losses(forward(model, batch))
    other = retinanet()
    second = msbal_mmdet.balance(other, "rlo", interval=2, top_k=1)
    second.load_state_dict(first.state_dict())
    for m in (model, other):
        m.parse_losses(forward(m, batch))
    first.drain()
    a, b = first.balancers.state_dict(), second.balancers.state_dict()
    assert_same_state(a, b)


def test_a_rescaled_or_dropped_loss_is_an_error(
    retinanet: Callable[[], Any], small_batch: Callable[..., Any]
) -> None:
    from mmdet.models.utils import reweight_loss_dict

    model = retinanet()
    msbal_mmdet.balance(model, "equal", interval=2)
    losses = reweight_loss_dict(forward(model, small_batch()), 0.5)
    with pytest.raises(RunError, match="no loss of the group"):
        model.parse_losses(losses)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"strategy": "avv"}, "did you mean `avw`"),
        ({"intervall": 3}, "did you mean `interval`"),
        ({"interval": 1}, "greater than or equal to 2"),
        ({"scope": ("neck",)}, "rpn"),
        ({"strategy": "rlo", "top_k": 5}, "P3, P4, P5, P6, P7"),
    ],
)
def test_wrong_settings_are_named(
    retinanet: Callable[[], Any], settings: dict[str, Any], reason: str
) -> None:
    model = retinanet()
    with pytest.raises(SpecError, match=reason):
        msbal_mmdet.balance(model, **settings)
    assert "parse_losses" not in vars(model)


def test_importing_the_package_imports_no_framework() -> None:
    import subprocess
    import sys

    for imports, absent in (
        ("msbal_mmdet", {"torch", "mmcv", "mmdet", "mmengine"}),
        ("msbal_mmdet.backend, msbal_mmdet.installer", {"mmcv", "mmdet", "mmengine"}),
    ):
        code = f"import {imports}, sys; found = {absent} & set(sys.modules); assert not found, found"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_autocast_keeps_sums_in_float32(
    retinanet: Callable[[], Any], small_batch: Callable[..., Any]
) -> None:
    model = retinanet()
    balanced = msbal_mmdet.balance(model, "equal", interval=2)
    model.train()
    data = model.data_preprocessor(small_batch(), True)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model._run_forward(data, mode="loss")
        objective, _ = model.parse_losses(losses)
    assert objective.dtype == torch.float32 and torch.isfinite(objective)
    objective.backward()
    assert balanced.weights()["all"].dtype.itemsize >= 4
