"""`balance`: one call in anyone's own script."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch.optim.swa_utils import AveragedModel
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetClassificationHead
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from msbal import Fixed, MaxLoss
from msbal.errors import SpecError
from msbal_torchvision import balance, balanced_of

NAMES = ("retinanet", "fcos", "fasterrcnn", "ssd")


def scope_of(name):
    return ("rpn", "roi") if name == "fasterrcnn" else ("rpn",)


def step(model, batch, optimizer, seed):
    torch.manual_seed(seed)
    losses = model(*batch)
    optimizer.zero_grad()
    sum(loss for loss in losses.values()).backward()
    optimizer.step()
    return losses


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def counted(handle):
    return [balancer.iteration for balancer in handle.balancers.balancers.values()]


@pytest.mark.parametrize("name", NAMES)
def test_equal_weights_change_no_bit_of_the_usual_loop(make_model, batch, name):
    plain, balanced = make_model(name), make_model(name)
    handle = balance(balanced, "equal", interval=2, scope=scope_of(name), measure=2)
    a, b = sgd(plain), sgd(balanced)
    for seed in range(3):
        own, ours = step(plain, batch, a, seed), step(balanced, batch, b, seed)
        assert list(own) == list(ours)
        assert all(torch.allclose(own[key], ours[key], rtol=1e-5) for key in own)
    assert same(plain, balanced)
    parts = [set(record.gradient_norm) for record in handle.drain()]
    assert parts == [{"backbone", "neck", "head", "shared"}] * len(handle.groups)


def test_it_balances(make_model, batch):
    model, plain = make_model("retinanet"), make_model("retinanet")
    handle = balance(model, MaxLoss(top_k=1), interval=2)
    a, b = sgd(model), sgd(plain)
    for seed in range(3):
        losses = step(model, batch, a, seed)
        step(plain, batch, b, seed)
    (record,) = handle.drain()
    (balancer,) = handle.balancers.balancers.values()
    assert max(record.weights) > 1 and balancer.weights.tolist() == pytest.approx(record.weights)
    assert not same(model, plain)
    expected = (handle.losses["all"] * balancer.weights.float()).sum(dim=1)
    found = torch.stack([losses["classification"], losses["bbox_regression"]]).detach()
    torch.testing.assert_close(found, expected)


def test_strategies_by_name_take_hyperparameters_and_records_go_into_a_folder(make_model, batch, tmp_path):
    model = make_model("retinanet")
    balance(model, "max_loss", top_k=1, interval=2, rescale=True, records=tmp_path)
    optimizer = sgd(model)
    for seed in range(4):
        step(model, batch, optimizer, seed)
    assert len((tmp_path / "intervals.jsonl").read_text().splitlines()) == 2


def test_rescaled_weights_sum_to_the_number_of_levels(make_model, batch):
    model = make_model("retinanet")
    handle = balance(model, MaxLoss(top_k=1), interval=2, rescale=True)
    optimizer = sgd(model)
    for seed in range(4):
        step(model, batch, optimizer, seed)
    for record in handle.drain():
        assert sum(record.weights) == pytest.approx(len(record.levels)) and max(record.weights) > 1


def test_each_head_and_term_on_its_own(make_model, batch):
    model = make_model("fasterrcnn")
    handle = balance(model, interval=2, scope=("rpn", "roi"), per_term=True)
    step(model, batch, sgd(model), 0)
    assert set(handle.balancers.balancers) == {f"{g}:{t}" for g in ("rpn", "roi") for t in ("cls", "bbox")}
    assert counted(handle) == [1] * 4


def test_what_a_strategy_learns_goes_into_the_optimizer(make_model, batch):
    model = make_model("retinanet")
    handle = balance(model, "uw", interval=2)
    optimizer = sgd(model)
    optimizer.add_param_group({"params": list(handle.parameters())})
    for seed in range(4):
        step(model, batch, optimizer, seed)
    assert len(set(handle.drain()[-1].weights)) > 1


# -- what users do with the losses ---------------------------------------------------------------


class Scalar(RetinaNet):
    def forward(self, images, targets=None):
        found = super().forward(images, targets)
        return 10 * sum(found.values()) if self.training else found


class Pair(RetinaNet):
    def forward(self, images, targets=None, branch=""):
        return super().forward(images, targets), branch


class OwnTargets(RetinaNet):
    def compute_loss(self, targets, head_outputs, anchors):
        found = super().compute_loss(targets, head_outputs, anchors)
        return {**found, "extra": 0.1 * head_outputs["cls_logits"].square().mean()}


class Rescaled(RetinaNet):
    def forward(self, images, targets=None):
        found = super().forward(images, targets)
        return {key: (3 if key == "bbox_regression" else 1) * loss for key, loss in found.items()}


@pytest.mark.parametrize("change", [Scalar, Pair, OwnTargets, Rescaled, "forward", "wrapped", "hook"])
def test_whatever_is_done_to_the_losses_is_done_to_the_balanced_ones(make_model, batch, change):
    def loss(weights):
        model = make_model("retinanet")
        if isinstance(change, type):
            model.__class__ = change
        if change == "wrapped":
            own = model.forward
            model.forward = lambda *args: {key: 5 * value for key, value in own(*args).items()}
        handle = None if weights is None else balance(model, Fixed(weights), interval=2)
        if change == "hook":
            model.register_forward_hook(lambda m, i, output: {k: 5 * v for k, v in output.items()})
        torch.manual_seed(0)
        found = (model.forward if change == "forward" else model)(*batch)
        found = found[0] if isinstance(found, tuple) else found
        total = sum(found.values()) if isinstance(found, dict) else found
        total.backward()
        if handle is not None:
            assert counted(handle) == [1]
        return model.head.regression_head.bbox_reg.weight.grad

    own = loss(None)
    assert torch.equal(loss((1.0,) * 5), own)
    torch.testing.assert_close(loss((2.0,) * 5), 2 * own)
    assert not torch.allclose(loss((3.0, 0.5, 2.0, 1.5, 4.0)), own)


class DoubledRPN(RegionProposalNetwork):
    def forward(self, images, features, targets=None):
        boxes, losses = super().forward(images, features, targets)
        return boxes, {key: 2 * loss for key, loss in losses.items()}


def test_the_forward_of_a_two_stage_models_part_is_kept(make_model, batch):
    def gradient(weights):
        model = make_model("fasterrcnn")
        model.rpn.__class__ = DoubledRPN
        if weights is not None:
            balance(model, Fixed(weights), interval=2)
        torch.manual_seed(0)
        sum(model(*batch).values()).backward()
        return model.rpn.head.cls_logits.weight.grad

    own = gradient(None)
    assert torch.equal(gradient((1.0,) * 5), own)
    torch.testing.assert_close(gradient((2.0,) * 5), 2 * own)


@pytest.mark.parametrize(
    ("name", "scope", "path", "make"),
    [
        ("fasterrcnn", "roi", "roi_heads.box_predictor", lambda: FastRCNNPredictor(1024, 4)),
        ("fasterrcnn", "rpn", "rpn.head", lambda: RPNHead(16, 3)),
        ("retinanet", "rpn", "head.classification_head", lambda: RetinaNetClassificationHead(16, 9, 4)),
    ],
)
def test_a_part_that_is_replaced_afterwards_is_balanced_too(make_model, batch, name, scope, path, make):
    def gradient(weights):
        model = make_model(name)
        if weights is not None:
            balance(model, Fixed(weights), interval=2, scope=(scope,))
        parent, _, attribute = path.rpartition(".")
        torch.manual_seed(2)
        setattr(model.get_submodule(parent), attribute, make())
        torch.manual_seed(3)
        sum(model(*batch).values()).backward()
        return next(model.get_submodule(path).parameters()).grad

    own, levels = gradient(None), 4 if scope == "roi" else 5
    assert torch.equal(gradient((1.0,) * levels), own)
    torch.testing.assert_close(gradient((2.0,) * levels), 2 * own)


def test_gradients_are_measured_on_a_part_that_is_replaced_afterwards(make_model, batch):
    def norms(early):
        model = make_model("retinanet")
        handle = balance(model, "equal", interval=2, measure=2) if early else None
        torch.manual_seed(2)
        model.head.classification_head = RetinaNetClassificationHead(16, 9, 4)
        handle = handle or balance(model, "equal", interval=2, measure=2)
        for _ in range(2):
            sum(model(*batch).values()).backward()
        return handle.drain()[0].gradient_norm

    assert norms(early=True) == norms(early=False)


@pytest.mark.parametrize("name", ["retinanet", "fcos", "ssd"])
def test_a_whole_head_that_is_replaced_afterwards_is_one_line(make_model, batch, name):
    model, other = make_model(name), make_model(name)
    balance(model)
    model.head = other.head
    with pytest.raises(SpecError, match=r"put there after balance\(\).*call balance\(\) when") as caught:
        step(model, batch, sgd(model), 0)
    assert "\n" not in str(caught.value)


def test_an_own_loss_that_comes_afterwards_is_one_line(make_model, batch):
    class Own(RetinaNetClassificationHead):
        def compute_loss(self, *arguments):
            return super().compute_loss(*arguments)

    model = make_model("retinanet")
    balance(model)
    step(model, batch, sgd(model), 0)
    model.head.classification_head.__class__ = Own
    with pytest.raises(SpecError, match=r"Own\.compute_loss: overridden"):
        step(model, batch, sgd(model), 1)


# -- validation, copies, checkpoints -------------------------------------------------------------


def test_validation_losses_and_predictions_are_left_alone(make_model, batch):
    model = make_model("fasterrcnn")
    torch.manual_seed(0)
    with torch.no_grad():
        own = model(*batch)
    handle = balance(model, interval=2, scope=("rpn", "roi"))
    torch.manual_seed(0)
    with torch.no_grad():
        found = model(*batch)
    assert found.keys() == own.keys()
    assert all(torch.equal(found[key], own[key]) for key in own)
    model.eval()
    handle.remove()
    expected = model(batch[0])
    handle = balance(model, interval=2, scope=("rpn", "roi"))
    assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(model(batch[0]), expected, strict=True))
    assert counted(handle) == [0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles_balance_on_their_own(make_model, batch, name):
    model = make_model(name)
    handle = balance(model, interval=2, scope=scope_of(name))
    step(model, batch, sgd(model), 0)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    average = AveragedModel(model)
    average.update_parameters(model)
    twins = (
        copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False), average.module,
    )  # fmt: skip
    torch.manual_seed(1)
    expected = model(*batch)
    for twin in twins:
        own = balanced_of(twin)
        assert own is not handle and counted(own) == [1] * len(own.groups)
        images, targets = batch
        torch.manual_seed(1)
        found = twin(images, targets)
        assert all(torch.allclose(found[key], expected[key]) for key in expected)
        # Of another shape than the original's last batch: the copy notes its own feature maps.
        step(twin, ([image[:, :80, :80] for image in images], targets), sgd(twin), 2)
    assert counted(handle) == [2] * len(handle.groups)


def test_state_continues_and_stays_out_of_the_models(make_model, batch):
    model = make_model("retinanet")
    names = set(model.state_dict())
    handle = balance(model, interval=2, seed=4)
    optimizer = sgd(model)
    for seed in range(3):
        step(model, batch, optimizer, seed)
    handle.drain()
    assert set(model.state_dict()) == names

    twin = make_model("retinanet")
    twin.load_state_dict(model.state_dict())
    other = balance(twin, interval=2, seed=4)
    other.load_state_dict(copy.deepcopy(handle.state_dict()))
    twin_optimizer = sgd(twin)
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in range(3, 6):
        step(model, batch, optimizer, seed)
        step(twin, batch, twin_optimizer, seed)
    assert same(model, twin) and handle.drain() == other.drain()


@pytest.mark.parametrize("name", NAMES)
def test_removed_the_model_is_as_before(make_model, batch, name):
    model, plain = make_model(name), make_model(name)
    modules = {path: set(vars(module)) for path, module in model.named_modules()}
    handle = balance(model, scope=scope_of(name))
    step(model, batch, torch.optim.SGD(model.parameters(), 0.0), 0)
    handle.remove()
    assert {path: set(vars(module)) for path, module in model.named_modules()} == modules
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    plain.load_state_dict(model.state_dict())
    torch.manual_seed(0)
    found = model(*batch)
    torch.manual_seed(0)
    own = plain(*batch)
    assert all(torch.equal(found[key], own[key]) for key in own)
    torch.jit.script(model.eval())
    balance(model, scope=scope_of(name))


def test_mistakes_are_refused_and_leave_the_model_alone(make_model):
    model = make_model("retinanet")
    for mistake in ({"interval": 1}, {"strategy": "rol"}, {"top_k": 9}, {"colour": 1}):
        with pytest.raises(SpecError):
            balance(model, **mistake)
    balance(model)
    with pytest.raises(SpecError, match="balanced already"):
        balance(model)


def test_autocast(make_model, batch):
    model = make_model("retinanet")
    handle = balance(model, interval=2)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(*batch)
    sum(losses.values()).backward()
    assert handle.losses["all"].dtype == torch.float32
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
