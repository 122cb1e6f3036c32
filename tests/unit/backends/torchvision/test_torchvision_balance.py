"""`balance`: one call in anyone's own script."""

from __future__ import annotations

import copy

import pytest
import torch

from msbal import MaxLoss
from msbal_torchvision import UnsplittableModelError, balance


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


@pytest.mark.parametrize("name", ["retinanet", "fcos", "fasterrcnn", "ssd"])
def test_equal_weights_change_no_bit_of_the_usual_loop(make_model, batch, name):
    plain, balanced = make_model(name), make_model(name)
    scope = ("rpn", "roi") if name == "fasterrcnn" else ("rpn",)
    balance(balanced, "equal", interval=2, scope=scope)
    a, b = sgd(plain), sgd(balanced)
    for seed in range(3):
        step(plain, batch, a, seed)
        step(balanced, batch, b, seed)
    assert same(plain, balanced)


def test_it_balances(make_model, batch):
    model, plain = make_model("retinanet"), make_model("retinanet")
    handle = balance(model, MaxLoss(top_k=1), interval=2)
    a, b = sgd(model), sgd(plain)
    for seed in range(3):
        losses = step(model, batch, a, seed)
        assert list(losses) == ["loss_balanced"]
        step(plain, batch, b, seed)
    (record,) = handle.drain()
    (balancer,) = handle.balancers.values()
    assert max(record.weights) > 1 and balancer.weights.tolist() == pytest.approx(record.weights)
    assert not same(model, plain)
    values = handle.losses["all"]
    expected = (values * balancer.weights.float()).sum()
    assert losses["loss_balanced"].detach() == pytest.approx(float(expected), rel=1e-6)


def test_rescaled_weights_sum_to_the_number_of_levels(make_model, batch):
    model = make_model("retinanet")
    handle = balance(model, MaxLoss(top_k=1), interval=2, rescale=True)
    optimizer = sgd(model)
    for seed in range(4):
        step(model, batch, optimizer, seed)
    for record in handle.drain():
        assert sum(record.weights) == pytest.approx(len(record.levels)) and max(record.weights) > 1


def test_heads_outside_the_scope_keep_their_names(make_model, batch):
    model = make_model("fasterrcnn")
    balance(model, interval=2)
    assert set(model(*batch)) == {"loss_balanced", "loss_classifier", "loss_box_reg"}
    model = make_model("fasterrcnn")
    handle = balance(model, interval=2, scope=("rpn", "roi"), per_term=True)
    assert set(model(*batch)) == {f"loss_balanced_{g}:{t}" for g in ("rpn", "roi") for t in ("cls", "bbox")}
    assert len(handle.balancers) == 4


def test_validation_losses_and_predictions_are_left_alone(make_model, batch):
    model = make_model("fasterrcnn")
    torch.manual_seed(0)
    with torch.no_grad():
        own = model(*batch)
    handle = balance(model, interval=2)
    torch.manual_seed(0)
    with torch.no_grad():
        found = model(*batch)
    assert found.keys() == own.keys()
    assert all(torch.allclose(found[key], own[key], rtol=1e-5) for key in own)
    assert all(balancer.iteration == 0 for balancer in handle.balancers.values())
    model.eval()
    assert isinstance(model(batch[0]), list)


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


def test_removed_the_model_is_as_before(make_model, batch):
    model, plain = make_model("retinanet"), make_model("retinanet")
    balance(model).remove()
    torch.manual_seed(0)
    found = model(*batch)
    torch.manual_seed(0)
    own = plain(*batch)
    assert all(torch.equal(found[key], own[key]) for key in own)
    balance(model)


def test_mistakes_are_refused_and_leave_the_model_alone(make_model):
    model = make_model("retinanet")
    with pytest.raises(ValueError, match="interval"):
        balance(model, interval=1)
    with pytest.raises(UnsplittableModelError):
        balance(torch.nn.Linear(2, 2))
    balance(model)
    with pytest.raises(UnsplittableModelError, match="balanced already"):
        balance(model)


def test_autocast(make_model, batch):
    model = make_model("retinanet")
    handle = balance(model, interval=2)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(*batch)
    sum(losses.values()).backward()
    assert handle.losses["all"].dtype == torch.float32
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
