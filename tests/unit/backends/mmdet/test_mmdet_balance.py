"""`balance`: who is refused, what is kept, what is given back."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")

import torch
import torch.nn.functional as F
from states import assert_same_state
from tiny_mmdet import NARROW, forward, make, narrow
from torch import Tensor, nn
from zoo import small_mmdet as tiny

from msbal.errors import SpecError
from msbal_mmdet import balance, balanced_of
from msbal_mmdet.splitters import REFUSED, HeadSplitter, known, look_up, register
from msbal_mmdet.splitters.find import find

RETINANET, FCOS = "retinanet/retinanet_r50_fpn_1x_coco.py", "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py"
SSD = "ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py"
FASTER = "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"


def test_every_head_of_the_zoo_has_a_splitter_or_a_reason() -> None:
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
    class ElsewhereSplitter(HeadSplitter):
        heads = ("Elsewhere",)
        package = "elsewhere"

    assert look_up(Elsewhere()) is ElsewhereSplitter


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
    handle = balance(model, "equal", interval=2)
    assert list(model.state_dict()) == keys
    with pytest.raises(SpecError, match="balanced already"):
        balance(model, "equal", interval=2)
    handle.remove()
    assert (set(vars(model)), set(vars(model.bbox_head))) == before


def test_losses_keep_the_frameworks_form_keys_and_values(
    retinanet: Callable[[], Any], small_batch: Callable[..., Any]
) -> None:
    for make_one in (retinanet, lambda: make(FCOS, NARROW), lambda: make(SSD)):
        model = make_one()
        batch = (
            small_batch() if make_one is not SSD and model.bbox_head.__class__.__name__ != "SSDHead" else None
        )
        batch = batch or tiny.batch_for(model, False)
        plain = forward(model, batch)
        total, logged = model.parse_losses(plain)
        balance(model, "equal", interval=2)
        losses = forward(model, batch)
        assert list(losses) == list(plain)
        for key, value in plain.items():
            assert type(losses[key]) is type(value)
            assert isinstance(value, Tensor) or len(losses[key]) == len(value)
        ours, ours_logged = model.parse_losses(losses)
        assert list(ours_logged) == list(logged)
        assert ours.item() == pytest.approx(total.item(), rel=1e-6)
        for key, value in logged.items():
            assert ours_logged[key].item() == pytest.approx(value.item(), rel=1e-6), key


def test_weights_reach_the_losses_and_the_record(
    retinanet: Callable[[], Any], small_batch: Callable[..., Any]
) -> None:
    model, batch, weights = retinanet(), small_batch(), (2.0, 1.0, 1.0, 1.0, 0.5)
    plain = forward(model, batch)
    rows = torch.stack([torch.stack(plain[key]) for key in ("loss_cls", "loss_bbox")])
    handle = balance(model, "fixed", weights=weights, interval=2)
    losses = forward(model, batch)
    assert torch.equal(torch.stack(losses["loss_cls"]), rows[0] * torch.tensor(weights))
    objective, _ = model.parse_losses(losses)
    assert objective.item() == pytest.approx((rows.sum(0) * torch.tensor(weights)).sum().item(), rel=1e-6)
    assert torch.equal(handle.losses["all"], rows), "unweighted, for logs"
    forward(model, batch)
    (record,) = handle.drain()
    assert record.levels == ("P3", "P4", "P5", "P6", "P7")
    assert record.loss_by_term["cls"][0] == pytest.approx(2 * rows[0, 0].item(), rel=1e-5)


def test_evaluation_is_not_counted(retinanet: Callable[[], Any], small_batch: Callable[..., Any]) -> None:
    model, batch = retinanet(), small_batch()
    handle = balance(model, "rlo", interval=2)
    with torch.no_grad():
        for _ in range(3):
            model.parse_losses(forward(model, batch))
    assert handle.balancers.balancers["all"].iteration == 0


def test_state_goes_through_a_state_dict(
    retinanet: Callable[[], Any], small_batch: Callable[..., Any]
) -> None:
    batch = small_batch()
    model = retinanet()
    first = balance(model, "rlo", interval=2, top_k=1)
    for _ in range(3):
        forward(model, batch)
    other = retinanet()
    second = balance(other, "rlo", interval=2, top_k=1)
    second.load_state_dict(first.state_dict())
    for m in (model, other):
        forward(m, batch)
    first.drain()
    assert_same_state(first.state_dict(), second.state_dict())


# -- what users change -----------------------------------------------------------------------------


def gradients(model: Any, batch: Any, strategy: str | None, scope: Any = ("rpn",), **options: Any) -> Any:
    """One step's gradients, by mmengine's own way from the batch to the objective."""
    handle = balance(model, strategy, interval=2, scope=scope, **options) if strategy else None
    objective, _ = model.parse_losses(forward(model, batch))
    objective.backward()
    if handle is not None:
        handle.require_calls()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_kept(make_one: Callable[[], Any]) -> None:
    """Equal weights change no bit, and weights of 3 give three times the gradient."""
    plain = gradients(make_one(), tiny.batch(80), None)
    assert plain
    equal = gradients(make_one(), tiny.batch(80), "equal")
    thrice = gradients(make_one(), tiny.batch(80), "fixed", weights=(3.0,) * 5)
    assert plain.keys() == equal.keys() == thrice.keys()
    scale = max(float(own.abs().max()) for own in plain.values())
    for name, own in plain.items():
        assert torch.equal(own, equal[name]), name
        assert torch.allclose(thrice[name], 3 * own, rtol=1e-3, atol=1e-5 * scale), name


def in_class(config: str, part: str, **methods: Any) -> Any:
    """A model of which one part is of a class of the user's own."""
    model = make(config, None if config == SSD else NARROW)
    owner = model.get_submodule(part)
    owner.__class__ = type("Own", (type(owner),), {**methods, "__module__": "users.own"})
    return model


def doubling(self: Any, *args: Any, **kwargs: Any) -> Any:
    losses = super(type(self), self).loss(*args, **kwargs)
    return {**losses, "loss_bbox": [2 * value for value in losses["loss_bbox"]]}


def summing(self: Any, *args: Any, **kwargs: Any) -> Any:
    losses = super(type(self), self).loss(*args, **kwargs)
    return {f"own_{key}": sum(value) for key, value in losses.items()}


def halving(self: Any, losses: Any) -> Any:
    total, logged = super(type(self), self).parse_losses(losses)
    return 0.5 * total, logged


def scaled_single(self: Any, *args: Any, **kwargs: Any) -> Any:
    cls, bbox = super(type(self), self).loss_by_feat_single(*args, **kwargs)
    return 1.5 * cls, bbox


def twice(self: Any, x: Any, samples: Any) -> Any:
    first, second = (super(type(self), self).loss(images, samples) for images in (x, x.flip(-1)))
    return {**first, **{f"flipped_{key}": value for key, value in second.items()}}


def quadrupled(model: Any) -> Any:
    inner = model.bbox_head.loss_by_feat
    model.bbox_head.loss_by_feat = lambda *args, **kwargs: {
        key: [4 * level for level in value] if isinstance(value, list) else 4 * value
        for key, value in inner(*args, **kwargs).items()
    }
    return model


KEPT = {
    "a head that rescales a term": lambda: in_class(RETINANET, "bbox_head", loss=doubling),
    "a head that sums and renames": lambda: in_class(RETINANET, "bbox_head", loss=summing),
    "a head with a loss of a level of its own": lambda: in_class(
        RETINANET, "bbox_head", loss_by_feat_single=scaled_single
    ),
    "a detector that rescales a term": lambda: in_class(RETINANET, "", loss=doubling),
    "a detector that parses its losses": lambda: in_class(RETINANET, "", parse_losses=halving),
    "a head that is called twice": lambda: in_class(RETINANET, "", loss=twice),
    "a method replaced on the instance": lambda: quadrupled(make(RETINANET, NARROW)),
    "and of a head that has flattened its levels": lambda: quadrupled(make(FCOS, NARROW)),
}


@pytest.mark.parametrize("change", KEPT)
def test_what_a_user_changes_is_kept(change: str) -> None:
    assert_kept(KEPT[change])


def own_single(
    self: Any, cls_score: Tensor, bbox_pred: Tensor, anchor: Any, labels: Tensor, *args: Any, **kwargs: Any
) -> Any:
    return F.cross_entropy(cls_score, labels)[None], bbox_pred.abs().mean()


def test_a_method_that_would_be_passed_over_is_refused_before_and_after_balance() -> None:
    with pytest.raises(SpecError, match=r"loss_by_feat_single is Own's own.*pass over"):
        balance(in_class(SSD, "bbox_head", loss_by_feat_single=own_single))
    model = make(SSD)
    balance(model)
    model.bbox_head.loss_by_feat_single = lambda *args, **kwargs: own_single(model.bbox_head, *args, **kwargs)
    with pytest.raises(SpecError, match="replaced on the instance"):
        forward(model, tiny.batch_for(model, False))


class Loss(nn.Module):
    """A user's own: one minus the sigmoid of each row's first number."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.reduction, self.loss_weight = "mean", 1.0
        vars(self).update(options)

    def rows(self, pred: Tensor) -> Tensor:
        return 1 - pred[:, 0].sigmoid()


class WithoutOverride(Loss):
    def forward(self, pred: Tensor, target: Any, weight: Any = None, avg_factor: Any = None) -> Tensor:
        return self.rows(pred).sum() / avg_factor


class OwnNormaliser(Loss):
    def forward(self, pred: Tensor, target: Any, reduction_override: Any = None, **kwargs: Any) -> Tensor:
        rows = self.rows(pred)
        return rows if reduction_override == "none" else rows.mean()


class Swallowing(Loss):
    def forward(self, pred: Tensor, target: Any, avg_factor: Any = None, **kwargs: Any) -> Tensor:
        return self.rows(pred).sum() / avg_factor


class AlwaysOneNumber(Loss):
    def forward(self, pred: Tensor, target: Any, avg_factor: Any = None, **kwargs: Any) -> Tensor:
        return self.rows(pred).sum() / (avg_factor or 1)


class OwnFactor(Loss):
    """Right, although it keeps its factor under another name."""

    def __init__(self) -> None:
        super().__init__()
        del self.loss_weight, self.reduction

    def forward(
        self,
        pred: Tensor,
        target: Any,
        weight: Any = None,
        avg_factor: Any = None,
        reduction_override: Any = None,
    ) -> Tensor:
        rows = 2 * self.rows(pred)
        return rows if reduction_override == "none" else rows.sum() / avg_factor


def with_loss(config: str, name: str, loss: nn.Module, head: str = "bbox_head") -> Any:
    model = make(config, NARROW if config == FCOS else None)
    setattr(model.get_submodule(head), name, loss)
    return model


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (WithoutOverride, "WithoutOverride takes no reduction_override"),
        (OwnNormaliser, r"`loss_bbox` that add up to .* OwnNormaliser computes it"),
        (Swallowing, "Swallowing: TypeError"),
        (AlwaysOneNumber, "AlwaysOneNumber: one number"),
    ],
)
def test_a_loss_that_cannot_be_told_apart_by_level_is_refused_by_name(loss: Any, reason: str) -> None:
    model = with_loss(FCOS, "loss_bbox", loss())
    with pytest.raises(SpecError, match=reason) as caught:
        gradients(model, tiny.batch(80), "equal")
    assert "\n" not in str(caught.value)
    assert all(p.grad is None for p in model.parameters())


def test_but_where_there_is_nothing_to_learn_it_is_a_zero() -> None:
    model = with_loss(FCOS, "loss_bbox", Swallowing())
    assert gradients(model, tiny.batch(80, boxes=[[], []]), "equal")
    with pytest.raises(SpecError, match="Swallowing"):
        forward(model, tiny.batch(80))


def test_a_loss_with_a_factor_of_another_name_is_kept() -> None:
    assert_kept(lambda: with_loss(FCOS, "loss_bbox", OwnFactor()))


@pytest.mark.parametrize(
    ("name", "loss"), [("loss_bbox", "GHMR"), ("loss_cls", "SeesawLoss"), ("loss_cls", "EQLV2Loss")]
)
def test_losses_of_a_roi_head_that_are_no_sum_of_rows_are_refused(name: str, loss: str) -> None:
    import mmdet.models.losses as losses

    options = {} if loss == "GHMR" else {"num_classes": 80}

    def made() -> Any:
        loaded = tiny.load_config(tiny.zoo() / FASTER)
        model = tiny.build_small(Config({"model": narrow(loaded.model)}))
        head = model.roi_head.bbox_head
        setattr(head, name, getattr(losses, loss)(**options))
        if loss == "SeesawLoss":
            head.fc_cls = nn.Linear(head.fc_cls.in_features, 82)
        return model

    from mmengine.config import Config

    with pytest.raises(SpecError, match=f"{loss}") as caught:
        gradients(made(), tiny.batch(80), "equal", ("rpn", "roi"))
    assert "\n" not in str(caught.value)
    assert gradients(made(), tiny.batch(80), "equal")


def test_a_subclass_of_a_box_head_is_one_of_its_kind() -> None:
    model = make(FASTER)
    head = model.roi_head.bbox_head
    head.__class__ = type("Own", (type(head),), {"__module__": "users.own"})
    assert [group.name for group in find(model, ("rpn", "roi")).groups] == ["rpn", "roi"]
    head.__class__ = type("Own", (type(head),), {"__module__": "users.own", "loss": doubling})
    with pytest.raises(SpecError, match=r"`roi` of FasterRCNN cannot be balanced: Own: .*own way"):
        find(model, ("rpn", "roi"))


def test_copies_and_pickles_have_handles_of_their_own(
    retinanet: Callable[[], Any], small_batch: Callable[..., Any]
) -> None:
    model, batch = retinanet(), small_batch()
    handle = balance(model, "rlo", interval=2, top_k=1)
    forward(model, batch)
    copied, loaded = copy.deepcopy(model), pickle.loads(pickle.dumps(model))  # as mmengine's EMAHook does
    for other in (copied, loaded):
        own = balanced_of(other)
        assert own is not None and own is not handle
        forward(other, batch)
        assert own.balancers.balancers["all"].iteration == 2
    assert handle.balancers.balancers["all"].iteration == 1
    own = balanced_of(copied)
    assert own is not None
    own.remove()
    assert torch.equal(forward(copied, batch)["loss_cls"][0], forward(retinanet(), batch)["loss_cls"][0])


def test_a_teacher_inside_the_model_is_left_alone(
    retinanet: Callable[[], Any], small_batch: Callable[..., Any]
) -> None:
    model = retinanet()
    model.teacher = copy.deepcopy(model)
    model.teacher.requires_grad_(False)
    handle = balance(model, "equal", interval=2, measure=1)
    assert [group.name for group in handle.groups] == ["all"]
    assert any("teacher.bbox_head is frozen" in note for note in handle.notes)
    forward(model, small_batch())


def test_two_dense_heads_are_groups_of_their_own(
    retinanet: Callable[[], Any], small_batch: Callable[..., Any]
) -> None:
    model = retinanet()
    model.aux_head = copy.deepcopy(model.bbox_head)
    handle = balance(model, "equal", interval=2)
    assert [group.name for group in handle.groups] == ["bbox_head", "aux_head"]
    with pytest.raises(SpecError, match="never called"):
        forward(model, small_batch())


def test_a_scope_that_cannot_be_had_is_refused(retinanet: Callable[[], Any]) -> None:
    with pytest.raises(SpecError, match="no RPN and no RoI head"):
        balance(retinanet(), scope=("rpn", "roi"))
    fast = make("fast_rcnn/fast-rcnn_r50_fpn_1x_coco.py")
    with pytest.raises(SpecError, match="left out by scope"):
        balance(fast)
    with pytest.raises(SpecError, match="`rpn` of FastRCNN cannot be balanced: it has none"):
        balance(fast, scope=("rpn", "roi"))
    assert [group.name for group in balance(fast, scope=("roi",)).groups] == ["roi"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"strategy": "avv"}, "did you mean `avw`|avw"),
        ({"intervall": 3}, "intervall"),
        ({"interval": 1}, "interval"),
        ({"scope": ("neck",)}, "rpn"),
        ({"strategy": "rlo", "top_k": 5}, "top_k"),
    ],
)
def test_wrong_settings_are_named(
    retinanet: Callable[[], Any], settings: dict[str, Any], reason: str
) -> None:
    model = retinanet()
    before = set(vars(model.bbox_head))
    with pytest.raises(SpecError, match=reason):
        balance(model, **settings)
    assert balanced_of(model) is None and set(vars(model.bbox_head)) == before


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
    balance(model, "equal", interval=2)
    model.train()
    data = model.data_preprocessor(small_batch(), True)
    with torch.autocast("cpu", torch.bfloat16):
        objective, _ = model.parse_losses(model._run_forward(data, mode="loss"))
    assert objective.dtype == torch.float32 and torch.isfinite(objective)
    objective.backward()
