"""The criteria of ultralytics by level: values and gradients against a slow way, and what users change about them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

pytest.importorskip("ultralytics", reason="ultralytics is not installed")
pytest.importorskip("msbal_ultralytics", reason="the ultralytics backend is not installed")

from ultralytics import YOLO
from ultralytics.utils import loss as losses
from zoo import small_ultralytics as small

from msbal.baselines import Fixed
from msbal.errors import SpecError
from msbal_ultralytics import Balanced, balance, balanced_of

WEIGHTS = [0.5, 2.0, 3.0, 0.25]
V8 = "v8/yolov8.yaml"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def built(name: str = V8) -> Any:
    torch.manual_seed(0)
    return small.build(name)


def fixed(model: Any) -> Balanced:
    return balance(model, Fixed(WEIGHTS[: len(model.stride)]), interval=2)


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), found, strict=True)]


def groups_of(model: Any, predictions: Any) -> list[tuple[Any, Any, float]]:
    """Each criterion with its predictions and its factor in the whole loss."""
    criterion = model.criterion
    if hasattr(criterion, "one2many"):
        return [
            (criterion.one2many, predictions["one2many"], criterion.o2m),
            (criterion.one2one, predictions["one2one"], criterion.o2o),
        ]
    return [(criterion, predictions, 1.0)]


def alone(predictions: dict[str, Any], level: int) -> dict[str, Any]:
    """The predictions with all levels but one detached."""
    sizes = [f.shape[-2] * f.shape[-1] for f in predictions["feats"]]

    def detached(each: Tensor) -> Tensor:
        parts = torch.split(each, sizes, dim=-1)
        return torch.cat([part if k == level else part.detach() for k, part in enumerate(parts)], dim=-1)

    return predictions | {
        name: detached(predictions[name]) for name in ("boxes", "scores", "angle") if name in predictions
    }


@pytest.mark.parametrize(
    "name",
    [
        V8,
        "26/yolo26-seg.yaml",
        "v8/yolov8-pose.yaml",
        "11/yolo11-obb.yaml",
        *(
            pytest.param(name, marks=pytest.mark.release)
            for name in ("v10/yolov10n.yaml", "26/yolo26.yaml", "26/yolo26-pose.yaml", "26/yolo26-obb.yaml",
                         "v8/yolov8-seg.yaml", "v8/yolov8-p2.yaml", "v8/yolov8-p6.yaml", "v5/yolov5.yaml",
                         "v9/yolov9t.yaml", "12/yolo12.yaml", "v3/yolov3-tiny.yaml")
        ),
    ],
)  # fmt: skip
def test_weighted_gradient_is_that_of_the_slow_way(name: str) -> None:
    """Where the criterion is run once for each level, with the other levels' predictions detached."""
    model = built(name)
    batch = small.batch(model)
    model.loss(batch)  # makes the criterion
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    predictions = model(batch["img"])
    slow = 0.0
    for criterion, own, factor in groups_of(model, predictions):
        rows = [
            i
            for i, key in enumerate(criterion.loss_names)
            if key.split("_")[0] in ("box", "cls", "dfl", "l1", "angle")
        ]
        rest = [i for i in range(len(criterion.loss_names)) if i not in rows]
        for level in range(len(model.stride)):
            vector = criterion.loss(alone(own, level), dict(batch))[0]
            slow = slow + factor * WEIGHTS[level] * vector[rows].sum()
        slow = slow + factor * criterion.loss(own, dict(batch))[0][rest].sum()
    expected = gradients(model, slow)
    fixed(model)
    loss, _ = model(dict(batch))
    found = gradients(model, loss.sum())
    largest = max(float(theirs.abs().max()) for theirs in expected)
    for ours, theirs in zip(
        found, expected, strict=True
    ):  # a bias before a batch norm has only rounding errors
        torch.testing.assert_close(
            ours, theirs, rtol=0.0, atol=1e-4 * float(theirs.abs().max()) + 1e-6 * largest
        )


@pytest.mark.parametrize("name", [V8, "11/yolo11-obb.yaml", "26/yolo26-pose.yaml"])
def test_values_are_those_of_one_level_alone(name: str) -> None:
    """Each level's value: ultralytics' parts called for the positives of that level only."""
    model = built(name)
    batch = small.batch(model)
    model.loss(batch)
    balanced = fixed(model)
    handle, expected = {}, {}
    model(dict(batch))
    handle.update(balanced.losses)
    predictions = model(batch["img"])
    balanced.remove()
    names = ["o2m", "o2o"] if len(handle) > 1 else ["all"]
    for group, (criterion, own, _) in zip(names, groups_of(model, predictions), strict=True):
        sizes = [f.shape[-2] * f.shape[-1] for f in own["feats"]]
        columns = []
        for level, size in enumerate(sizes):
            here = torch.zeros(sum(sizes), dtype=torch.bool)
            here[sum(sizes[:level]) : sum(sizes[:level]) + size] = True
            with pytest.MonkeyPatch.context() as patch:
                box, bce = criterion.bbox_loss, criterion.bce
                patch.setattr(criterion, "bbox_loss", lambda *a: box(*a[:6], a[6] & here, *a[7:]))  # noqa: B023
                patch.setattr(criterion, "bce", lambda *a: bce(*a) * here[None, :, None])  # noqa: B023
                if "angle" in own:
                    angle = criterion.calculate_angle_loss
                    patch.setattr(criterion, "calculate_angle_loss",
                                  lambda b, t, f, w, n: angle(b, t, f & here, w[(f & here)[f]], n))  # noqa: B023  # fmt: skip
                vector = criterion.loss(own, dict(batch))[0]
            rows = [
                criterion.loss_names.index(key) for key in ("box_loss", "cls_loss", criterion.loss_names[2])
            ]
            if name.endswith("pose.yaml"):
                rows = [0, 3, 4]
            columns.append(vector[rows + ([3] if "angle" in own else [])].detach())
        expected[group] = torch.stack(columns, dim=1)
    for group, values in handle.items():
        torch.testing.assert_close(values, expected[group], rtol=1e-4, atol=1e-5)


def test_log_items_stay_ultralytics_own() -> None:
    """With masks ultralytics computes its items from the vector that backward sees; they stay unweighted."""
    for name in (V8, "v8/yolov8-seg.yaml"):
        model = built(name)
        batch = small.batch(model)
        _, plain = model(dict(batch))
        fixed(model)
        loss, items = model(dict(batch))
        assert {key: float(value) for key, value in items.items()} == pytest.approx(
            {key: float(value) for key, value in plain.items()}, rel=1e-4
        )
        assert float(loss.detach().sum()) != pytest.approx(2 * sum(float(value) for value in items.values()))


def test_scaled_loss_has_a_scaled_gradient() -> None:
    """As a GradScaler scales it: by a power of two, so that every bit of the gradient stays."""
    model = built()
    fixed(model)
    batch = small.batch(model)
    with torch.random.fork_rng():
        loss, _ = model(dict(batch))
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss.sum(), parameters, retain_graph=True, allow_unused=True)
    scaled = torch.autograd.grad(loss.sum() * 1024, parameters, allow_unused=True)
    assert all(a is None or torch.equal(a * 1024, b) for a, b in zip(found, scaled, strict=True))


def test_bf16_has_the_bits_of_plain_ultralytics() -> None:
    ends = []
    for balanced in (False, True):
        model = built()
        if balanced:
            balance(model, "equal", interval=2)
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = model(small.batch(model))
        ends.append((loss.detach(), gradients(model, loss.sum())))
    assert torch.equal(ends[0][0], ends[1][0])
    assert all(torch.equal(a, b) for a, b in zip(ends[0][1], ends[1][1], strict=True))


@pytest.mark.release  # importing the compiler takes ten seconds
def test_compiled_model_counts_and_has_the_same_bits() -> None:
    """ultralytics computes the loss outside of the compiled forward: ``model.loss(batch, predictions)``."""
    ends = []
    for balanced in (False, True):
        model = built()
        handle = balance(model, "equal", interval=2) if balanced else None
        compiled = torch.compile(model, backend="eager")
        for _ in range(2):
            batch = small.batch(model)
            loss, _ = model.loss(batch, compiled(batch["img"]))
            loss.sum().backward()
        ends.append([p.grad for p in model.parameters() if p.grad is not None])
    assert handle is not None
    assert [record.interval for record in handle.drain()] == [1]
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_bare_criterion() -> None:
    model = built("v10/yolov10n.yaml")
    criterion = model.init_criterion()
    handle = balance(criterion, Fixed(WEIGHTS[:3]), interval=2)
    assert [group.name for group in handle.groups] == ["o2m", "o2o"]
    batch = small.batch(model)
    predictions = model(batch["img"])
    plain, items = model.init_criterion()(predictions, dict(batch))
    for _ in range(2):
        loss, ours = criterion(predictions, dict(batch))
    assert {record.group for record in handle.drain()} == {"o2m", "o2o"}
    assert {key: float(value) for key, value in ours.items()} == {k: float(v) for k, v in items.items()}
    assert not torch.equal(loss, plain)
    with torch.no_grad():
        assert torch.equal(criterion(predictions, dict(batch))[0], plain)
    handle.remove()
    assert torch.equal(criterion(predictions, dict(batch))[0], plain)


# -- what users change ----------------------------------------------------------------------------


class _RunningMean(nn.Module):
    """As WIoU: scaled by a mean that every call moves."""

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self.own, self.mean, self.calls = own, 1.0, 0

    def forward(self, *args: Any) -> Any:
        self.calls += 1
        box, distance = self.own(*args)
        self.mean = 0.9 * self.mean + 0.1 * float(box.detach())
        return box / self.mean, distance


def test_box_loss_with_a_running_mean_moves_it_once_a_batch() -> None:
    ends = []
    for balanced in (False, True):
        model = built()
        model.criterion = model.init_criterion()
        model.criterion.bbox_loss = _RunningMean(model.criterion.bbox_loss)
        if balanced:
            balance(model, "equal", interval=2)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(3):
            loss, _ = model(small.batch(model))
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
        part = model.criterion.bbox_loss
        ends.append(([p.detach() for p in model.parameters()], part.mean, part.calls))
    assert ends[1][2] == 3
    assert ends[0][1] == ends[1][1]
    assert all(torch.equal(a, b) for a, b in zip(ends[0][0], ends[1][0], strict=True))


def _iou(scale: Callable[[Tensor], Tensor]) -> Any:
    own = losses.bbox_iou
    return lambda *args, **kwargs: scale(own(*args, **kwargs))


def test_another_iou_is_balanced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "bbox_iou", _iou(lambda iou: 1 - (1 - iou).abs().pow(1.5)))
    model = built()
    handle = fixed(model)
    loss, items = model(small.batch(model))
    loss.sum().backward()
    assert float(handle.losses["all"].sum(dim=1)[0]) == pytest.approx(2 * float(items["box_loss"]), rel=1e-4)


def test_focal_class_loss_is_balanced() -> None:
    model = built()
    model.criterion = model.init_criterion()
    bce = model.criterion.bce
    model.criterion.bce = lambda scores, targets: (
        bce(scores, targets) * (targets - scores.sigmoid()).abs() ** 1.5
    )
    handle = fixed(model)
    _, items = model(small.batch(model))
    assert float(handle.losses["all"].sum(dim=1)[1]) == pytest.approx(2 * float(items["cls_loss"]), rel=1e-4)


def test_class_weights_count() -> None:
    model = built()
    model.class_weights = torch.linspace(0.5, 1.5, model.yaml["nc"])
    handle = fixed(model)
    _, items = model(small.batch(model))
    assert float(handle.losses["all"].sum(dim=1)[1]) == pytest.approx(2 * float(items["cls_loss"]), rel=1e-4)


def _reduced(criterion: Any) -> None:
    bce = criterion.bce
    criterion.bce = lambda scores, targets: bce(scores, targets).sum()


def _mean_over_positives(criterion: Any) -> None:
    own = criterion.bbox_loss

    def forward(*args: Any) -> Any:  # not weighted by target scores
        ones = torch.ones_like(args[4]) / args[4].shape[-1]
        return own(*args[:4], ones, args[6].sum(), *args[6:])

    criterion.bbox_loss = forward


def _largest(criterion: Any) -> None:
    own = criterion.bbox_loss
    criterion.bbox_loss = lambda *args: tuple(part * part for part in own(*args))


def _coupled(criterion: Any) -> None:
    """Each anchor's class loss also depends on the mean score of all anchors."""
    own = criterion.bce
    criterion.bce = lambda scores, targets: own(scores + scores.mean(), targets)


def _scalar(criterion: Any) -> None:
    own = criterion.loss
    criterion.loss = lambda *args: (own(*args)[0].sum(), own(*args)[1])


def _around(criterion: Any, change: Callable[[Any, Tensor], None]) -> None:
    """Change the criterion's parts, or what it holds, for as long as it computes a loss, as a subclass may."""
    own = criterion.get_assigned_targets_and_loss

    def computed(predictions: Any, *rest: Any, **more: Any) -> Any:
        before = dict(vars(criterion))
        change(criterion, predictions["scores"].permute(0, 2, 1))
        try:
            return own(predictions, *rest, **more)
        finally:
            vars(criterion).update(before)

    criterion.get_assigned_targets_and_loss = computed


def _focal_in_place(criterion: Any) -> None:
    def change(criterion: Any, scores: Tensor) -> None:
        criterion.class_weights = 1 + scores.sigmoid()

    _around(criterion, change)


def _boxes_by_quality(criterion: Any) -> None:
    def change(criterion: Any, scores: Tensor) -> None:
        own = criterion.bbox_loss
        criterion.bbox_loss = lambda *args: own(*args[:4], args[4] * scores.sigmoid(), *args[5:])

    _around(criterion, change)


def test_parts_may_be_called_by_keyword() -> None:
    names = list(inspect.signature(losses.BboxLoss.forward).parameters)[1:]

    def change(criterion: Any, _: Tensor) -> None:
        bce, box = criterion.bce, criterion.bbox_loss
        criterion.bce = lambda scores, targets: bce(target=targets, input=scores)
        criterion.bbox_loss = lambda *args: box(**dict(zip(names, args, strict=True)))

    found = []
    for changed in (False, True):
        model = built()
        model.criterion = model.init_criterion()
        if changed:
            _around(model.criterion, change)
        handle = fixed(model)
        model(small.batch(model))
        found.append(handle.losses["all"])
    assert torch.equal(*found)


def test_first_batch_that_is_not_finite_proves_nothing() -> None:
    model = built()
    handle = fixed(model)
    batch = small.batch(model)
    model({**batch, "img": batch["img"] * float("nan")})
    model.load_state_dict(built().state_dict())
    model(batch)
    assert torch.isfinite(handle.losses["all"]).all()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_focal_in_place, "a gradient for `scores` from elsewhere"),
        (_boxes_by_quality, "a gradient for `scores` from elsewhere"),
        (_reduced, "bce: a result of the shape"),
        (_mean_over_positives, "`box_loss` that add up to 0 where its own loss is"),
        (_largest, "levels of `box_loss` that add up to"),
        (_coupled, "a cls_loss whose gradient for the predictions of P"),
        (_scalar, r"losses of the shape \[\]"),
    ],
)
def test_what_is_no_sum_over_levels_is_refused_on_the_first_batch(change: Any, found: str) -> None:
    model = built()
    model.criterion = model.init_criterion()
    change(model.criterion)
    fixed(model)
    with pytest.raises(SpecError, match=found) as error:
        model(small.batch(model))
    assert "\n" not in str(error.value)


def test_subclass_with_its_own_assignment_is_balanced() -> None:
    class Own(losses.v8DetectionLoss):  # type: ignore[misc]
        def get_assigned_targets_and_loss(self, *args: Any, **kwargs: Any) -> Any:
            return super().get_assigned_targets_and_loss(*args, **kwargs)

    model = built()
    model.criterion = Own(model)
    handle = fixed(model)
    model(small.batch(model))
    assert handle.losses["all"].shape == (3, 3)


def test_replaced_criterion_is_refused() -> None:
    model = built()
    fixed(model)
    model.criterion = model.init_criterion()
    with pytest.raises(SpecError, match=r"v8DetectionLoss, put there after balance\(\)"):
        model(small.batch(model))


def test_loss_that_is_never_called_is_refused() -> None:
    class Own(losses.v8DetectionLoss):  # type: ignore[misc]
        def __call__(self, predictions: Any, batch: Any) -> Any:
            return losses.v8DetectionLoss.loss(self, self.parse_output(predictions), batch)

    model = built()
    model.criterion = Own(model)
    fixed(model)
    with pytest.raises(SpecError, match=r"Own\.loss was never called"):
        model(small.batch(model))


def test_evaluation_mode_is_said_once() -> None:
    model = built()
    balanced = fixed(model)
    model.eval()
    with pytest.warns(UserWarning, match="eval mode"):
        model(small.batch(model))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(small.batch(model))
    assert balanced.balancers.balancers["all"].iteration == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("11/yolo11-cls.yaml", "classifier"),
        ("v8/yolov8-world.yaml", "texts"),
        ("v8/yoloe-v8.yaml", "prompts"),
        ("rt-detr/rtdetr-l.yaml", "by query"),
        ("26/yolo26-sem.yaml", "by pixel"),
        ("26/yolo26-depth.yaml", "by pixel"),
    ],
)
def test_models_without_levels_are_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        fixed(built(name))


def test_one_level_is_refused(tmp_path: Any) -> None:
    config = small.shrink(V8)
    config["head"][-1][0] = [15]
    path = tmp_path / "yolov8n-one.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(SpecError, match=r"Detect: it works on one level \(stride 8\)"):
        balance(YOLO(path))


def test_settings_are_missing() -> None:
    with pytest.raises(SpecError, match=r"DetectionModel.args: no loss gains.*get_cfg"):
        balance(YOLO("yolov8n.yaml").model)


def test_removed_restores_the_criterion() -> None:
    model = built()
    criterion = model.criterion = model.init_criterion()
    before = dict(vars(criterion))
    fixed(model).remove()
    assert dict(vars(criterion)) == before
    assert balanced_of(model) is None
