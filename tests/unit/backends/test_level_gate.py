"""The gate for any code base, on a toy detector: what it does to a training is what weighted level losses do."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from msbal import LevelGate
from msbal.baselines import Fixed
from msbal.engine import BalancerSet, GroupNames, LevelLosses, available
from msbal.errors import SpecError

LEVELS = ("P3", "P4", "P5")
TERMS = ("cls", "box")
SIDES = (8, 4, 2)
SIZES = [64, 16, 4]
UNEVEN = Fixed((0.5, 2.0, 3.0))


class Net(nn.Module):
    """One map a level: class scores and a box."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.head(nn.functional.adaptive_avg_pool2d(self.stem(images), side)) for side in SIDES]


def images(seed: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def flat(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Scores ``[B, A, 2]`` and boxes ``[B, 4, A]``, as YOLO heads of both kinds have them."""
    whole = torch.cat([one.flatten(2) for one in maps], dim=2)
    return whole[:, :2].transpose(1, 2), whole[:, 2:]


def unreduced(scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each prediction, ``[B, A]``, with an assigner that sees detached predictions."""
    better = scores.detach().sum(dim=2) + boxes.detach().sum(dim=1)
    target = (better > better.mean()).float()
    cls = nn.functional.binary_cross_entropy_with_logits(
        scores, target.unsqueeze(2).expand_as(scores), reduction="none"
    )
    box = (boxes - 0.5).abs().sum(dim=1) * target
    return cls.sum(dim=2) / target.sum(), box / target.sum()


def criterion(scores: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    return {term: loss.sum() for term, loss in zip(TERMS, unreduced(scores, boxes), strict=True)}


def levels_of(scores: Tensor, boxes: Tensor) -> dict[str, list[Tensor]]:
    each = zip(TERMS, unreduced(scores, boxes), strict=True)
    return {term: [part.sum() for part in loss.split(SIZES, dim=1)] for term, loss in each}


def positives(seed: int) -> Tensor:
    return torch.randint(1, 20, (3,), generator=torch.Generator().manual_seed(seed)).float()


def gate_of(strategy: Any = "avw", **options: Any) -> LevelGate:
    return LevelGate(LEVELS, strategy, **{"terms": TERMS, "interval": 2, "seed": 3, **options})


def gated_loss(net: nn.Module, gate: LevelGate, seed: int, how: str = "attached") -> Tensor:
    scores, boxes = flat(net(images(seed)))
    scores, boxes = gate(scores, SIZES, term="cls"), gate(boxes, SIZES, dim=2, term="box")
    with torch.set_grad_enabled(how == "attached" and torch.is_grad_enabled()):
        by_level = levels_of(scores, boxes)
    weighted = gate.loss(criterion(scores, boxes), by_level, positives(seed))
    return sum(weighted.values())  # type: ignore[no-any-return]


def slow_loss(net: nn.Module, balancers: BalancerSet, seed: int) -> Tensor:
    """Each level's loss by itself, weighted, added up."""
    losses = levels_of(*flat(net(images(seed))))
    values = torch.stack([torch.stack(losses[term]) for term in TERMS])
    total: Tensor = balancers({"all": LevelLosses(values, positives(seed))})
    return total


def trained(
    net: nn.Module, loss: Callable[[int], Tensor], more: Any = (), steps: int = 9, first: int = 0
) -> list[Tensor]:
    """Train some steps; return losses, gradients and weights."""
    optimizer = torch.optim.SGD([*net.parameters(), *more], lr=0.05, momentum=0.9)
    found = []
    for seed in range(first, first + steps):
        optimizer.zero_grad()
        total = loss(seed)
        total.backward()
        found += [total.detach(), *(p.grad.clone() for p in [*net.parameters(), *more])]
        optimizer.step()
    return [*found, *(p.detach().clone() for p in [*net.parameters(), *more])]


def same(net: Net) -> Net:
    return copy.deepcopy(net)


# -- exactness -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("per_term", "how"), [(False, "attached"), (True, "detached")])
@pytest.mark.parametrize("name", sorted(available()))
def test_every_strategy_trains_as_on_weighted_level_losses(name: str, per_term: bool, how: str) -> None:
    strategy: Any = UNEVEN if name == "fixed" else name
    if name in ("avw", "min_loss", "max_loss", "rlo"):
        strategy = available()[name](top_k=1)  # type: ignore[call-arg]
    net, options = Net(), {"per_term": per_term, "interval": 2, "seed": 3, "measure": 1}
    slow, ours = same(net), same(net)
    groups = {"all": GroupNames(LEVELS, TERMS)}
    balancers = BalancerSet(groups, strategy, parameters=slow.parameters(), **options)
    gate = gate_of(
        strategy, parameters={"stem": ours.stem.parameters(), "head": ours.head.parameters()}, **options
    )
    expected = trained(slow, lambda seed: slow_loss(slow, balancers, seed), [*balancers.parameters()])
    found = trained(ours, lambda seed: gated_loss(ours, gate, seed, how), [*gate.parameters()])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    records = gate.drain()
    assert len(records) == 4 * (2 if per_term else 1)
    for one, other in zip(records, balancers.drain(), strict=True):
        assert one.weights == pytest.approx(other.weights, rel=1e-4) and one.action == other.action
        assert one.positives == other.positives
        assert one.gradient_count == other.gradient_count > 0
        assert one.gradient_norm["shared"] == pytest.approx(other.gradient_norm["shared"], rel=1e-3)
        assert {*one.gradient_norm} == {"stem", "head", "shared"}
        torch.testing.assert_close(one.gradient_cosine, other.gradient_cosine, rtol=0, atol=1e-4)


@pytest.mark.parametrize("per_term", [False, True])
def test_measuring_gradients_changes_no_bit(per_term: bool) -> None:
    net = Net()
    runs = []
    for measure in (None, 2):
        own = same(net)
        gate = gate_of("rlo", per_term=per_term, measure=measure, parameters=own.parameters())
        runs.append(trained(own, lambda seed, own=own, gate=gate: gated_loss(own, gate, seed, "detached")))
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))
    assert {record.gradient_count for record in gate.drain()} == {1, 2}
    twins: Any = copy.deepcopy((own, gate))
    for seed in (10, 11, 12):
        gated_loss(own, gate, seed).backward()
        gated_loss(*twins, seed).backward()
    assert (
        [record.gradient_norm for record in twins[1].drain()] == [r.gradient_norm for r in gate.drain()] != []
    )


def test_measuring_needs_parameters_that_the_loss_has_a_gradient_for() -> None:
    with pytest.raises(SpecError, match=r"LevelGate: parameters: none.*parameters=model\.parameters\(\)"):
        gate_of(measure=2)
    with pytest.raises(SpecError, match=r"LevelGate\(\): parameters should be a model's parameters\(\)"):
        gate_of(measure=2, parameters=[1])
    with pytest.raises(SpecError, match=r"LevelGate: measure: .* are they this model's"):
        gated_loss(Net(), gate_of(measure=2, parameters=Net().parameters()), 0)


def test_equal_weights_change_no_bit() -> None:
    net = Net()
    plain, ours = same(net), same(net)
    gate = gate_of("equal")
    expected = trained(plain, lambda seed: sum(criterion(*flat(plain(images(seed)))).values()))  # type: ignore[arg-type,return-value]
    found = trained(ours, lambda seed: gated_loss(ours, gate, seed))
    assert all(one.equal(other) for one, other in zip(found, expected, strict=True))
    assert len(gate.drain()) == 4


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_maps(kind: Any) -> None:
    net = Net()
    gate = gate_of(UNEVEN)
    maps = kind(net(images(0)))
    gated = gate(maps)
    assert type(gated) is kind and all(one.equal(other) for one, other in zip(gated, maps, strict=True))
    own = sum(criterion(*flat(gated)).values())
    total = gate.loss(own, levels_of(*flat(gated)))
    ours = torch.autograd.grad(total, net.parameters())
    balancers = BalancerSet({"all": GroupNames(LEVELS, TERMS)}, UNEVEN)
    torch.testing.assert_close(ours, torch.autograd.grad(slow_loss(net, balancers, 0), net.parameters()))


def test_the_loss_comes_back_in_the_form_in_which_it_was_given() -> None:
    net, found = Net(), []
    for form in (dict, Tensor, float):
        scores, boxes = flat(net(images(0)))
        gate = gate_of(UNEVEN)
        scores, boxes = gate(scores, SIZES), gate(boxes, SIZES, dim=-1)
        own = criterion(scores, boxes)
        given: Any = {dict: own, Tensor: torch.stack([*own.values()]), float: sum(own.values())}[form]
        total = gate.loss(given, levels_of(scores, boxes))
        assert isinstance(total, Mapping) or total.shape == given.shape
        whole = sum(total.values()) if isinstance(total, Mapping) else total.sum()
        found.append([whole.detach(), *torch.autograd.grad(whole, net.parameters())])
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_under_autocast_and_a_gradient_scaler(dtype: torch.dtype) -> None:
    net = Net()
    plain, slow, ours = same(net), same(net), same(net)
    balancers = BalancerSet({"all": GroupNames(LEVELS, TERMS)}, UNEVEN)

    def gradients(model: Net, loss: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        with torch.autocast("cpu", dtype):
            scores, boxes = flat(model(images(0)))
            assert scores.dtype is dtype
            total = loss(scores, boxes)
        scaler.scale(total).backward()
        scaler.unscale_(optimizer)
        return [parameter.grad.clone() for parameter in model.parameters()]

    def through(strategy: Any) -> Callable[[Tensor, Tensor], Tensor]:
        gate = gate_of(strategy)

        def loss(scores: Tensor, boxes: Tensor) -> Tensor:
            scores, boxes = gate(scores, SIZES), gate(boxes, SIZES, dim=2)
            own = criterion(scores, boxes)
            return gate.loss(sum(own.values()), levels_of(scores, boxes))  # type: ignore[no-any-return]

        return loss

    def slowly(scores: Tensor, boxes: Tensor) -> Tensor:
        losses = levels_of(scores, boxes)
        values = torch.stack([torch.stack(losses[term]) for term in TERMS])
        return balancers({"all": LevelLosses(values)})  # type: ignore[no-any-return]

    bits = gradients(plain, lambda scores, boxes: sum(criterion(scores, boxes).values()))  # type: ignore[arg-type,return-value]
    assert all(a.equal(b) for a, b in zip(bits, gradients(same(net), through("equal")), strict=True))
    error = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        gradients(ours, through(UNEVEN)), gradients(slow, slowly), rtol=error, atol=error
    )


def test_accumulated_passes_keep_their_own_weights_in_any_order() -> None:
    net = Net()
    gate, balancers = gate_of("max_loss", top_k=1), None
    balancers = BalancerSet(
        {"all": GroupNames(LEVELS, TERMS)}, gate.balancers.balancers["all"].strategy, interval=2
    )
    ours = [gated_loss(net, gate, seed) for seed in range(4)]
    slow = [slow_loss(net, balancers, seed) for seed in range(4)]
    assert len({tuple(record.weights) for record in gate.drain()} | {(1.0, 1.0, 1.0)}) > 1
    sums: list[list[Tensor]] = []
    for losses in (ours, slow):
        net.zero_grad()
        for k in (2, 0, 3, 1):
            losses[k].backward()
        sums.append([parameter.grad.clone() for parameter in net.parameters()])
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-4, atol=1e-6)


def test_one_pass_of_two_forward_passes_and_a_second_backward_pass() -> None:
    net, gate = Net(), gate_of(UNEVEN)
    parts = [flat(net(images(seed))) for seed in (0, 1)]
    parts = [(gate(scores, SIZES), gate(boxes, SIZES, dim=2)) for scores, boxes in parts]
    own = sum(sum(criterion(*part).values()) for part in parts)
    levels = [levels_of(*part) for part in parts]
    by_level = {
        term: [a + b for a, b in zip(levels[0][term], levels[1][term], strict=True)] for term in TERMS
    }
    total = gate.loss(own, by_level)
    first = torch.autograd.grad(total, net.parameters(), retain_graph=True)
    again = torch.autograd.grad(total, net.parameters())
    balancers = BalancerSet({"all": GroupNames(LEVELS, TERMS)}, UNEVEN)
    slow = torch.autograd.grad(slow_loss(net, balancers, 0) + slow_loss(net, balancers, 1), net.parameters())
    torch.testing.assert_close(first, slow)
    assert all(one.equal(other) for one, other in zip(first, again, strict=True))


def test_recomputed_activations() -> None:
    net = Net()

    def loss(gate: LevelGate, recompute: bool) -> tuple[Tensor, ...]:
        def forward(x: Tensor) -> tuple[Tensor, ...]:
            scores, boxes = flat(net(x))
            scores, boxes = gate(scores, SIZES), gate(boxes, SIZES, dim=2)
            levels = [torch.stack(row) for row in levels_of(scores, boxes).values()]
            return (*criterion(scores, boxes).values(), *levels)

        checkpoint = torch.utils.checkpoint.checkpoint
        cls, box, *rows = (
            checkpoint(forward, images(0), use_reentrant=False) if recompute else forward(images(0))
        )
        return torch.autograd.grad(gate.loss(cls + box, torch.stack(rows).detach()), net.parameters())

    gate = gate_of(UNEVEN)
    for _ in range(2):
        torch.testing.assert_close(loss(gate, recompute=True), loss(gate_of(UNEVEN), recompute=False))
    with pytest.raises(SpecError, match="no predictions were gated"):
        gate.loss(torch.ones(()), torch.ones(2, 3))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", ["step", "criterion"])
def test_compiled(part: str) -> None:
    torch._dynamo.reset()
    net = Net()
    slow, ours = same(net), same(net)
    gate, balancers = gate_of(UNEVEN), BalancerSet({"all": GroupNames(LEVELS, TERMS)}, UNEVEN, interval=2)

    def losses(scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        rows = [torch.stack(row) for row in levels_of(scores, boxes).values()]
        return sum(criterion(scores, boxes).values()), torch.stack(rows).detach()  # type: ignore[return-value]

    inner = torch.compile(losses, backend="aot_eager") if part == "criterion" else losses

    def step(seed: int) -> Tensor:
        scores, boxes = flat(ours(images(seed)))
        own, by_level = inner(gate(scores, SIZES), gate(boxes, SIZES, dim=2))
        return gate.loss(own, by_level)  # type: ignore[no-any-return]

    whole = torch.compile(step, backend="aot_eager") if part == "step" else step
    found = trained(ours, whole, steps=4)
    expected = trained(slow, lambda seed: slow_loss(slow, balancers, seed), steps=4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert [record.iteration for record in gate.drain()] == [2, 4]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_no_pass_waits_after_the_proof() -> None:
    net, gate = Net().cuda(), gate_of(UNEVEN, interval=100)
    inputs = [images(seed).cuda() for seed in range(4)]
    for k, x in enumerate(inputs):
        scores, boxes = flat(net(x))
        scores, boxes = gate(scores, SIZES), gate(boxes, SIZES, dim=2)
        own, by_level = criterion(scores, boxes), levels_of(scores, boxes)
        torch.cuda.set_sync_debug_mode("error" if k else "default")
        try:
            total = sum(gate.loss(own, by_level).values())
            total.backward()  # type: ignore[union-attr]
        finally:
            torch.cuda.set_sync_debug_mode("default")
    found = [parameter.grad.cpu() for parameter in net.parameters()]
    slow = Net()
    slow.load_state_dict(net.state_dict())
    balancers = BalancerSet({"all": GroupNames(LEVELS, TERMS)}, UNEVEN)
    for seed in range(4):
        slow_loss(slow, balancers, seed).backward()
    torch.testing.assert_close(found, [p.grad for p in slow.parameters()], rtol=1e-3, atol=1e-4)


# -- several processes ---------------------------------------------------------------------------

PASSES = 7


class Whole(nn.Module):
    """A user's model with its gate and loss inside, as DistributedDataParallel wraps it."""

    def __init__(self, strategy: str) -> None:
        super().__init__()
        self.net, self.gate = Net(), gate_of(strategy)

    def forward(self, seed: int) -> Tensor:
        return gated_loss(self.net, self.gate, seed)


def in_process(rank: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    done = {}
    for strategy in ("max_loss", "uw"):
        torch.manual_seed(0)
        model = Whole(strategy)
        wrapped = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for k in range(PASSES):
            if k == 5:
                model.gate.synchronize()
                state = copy.deepcopy(model.gate.state_dict())
                model.gate.load_state_dict(state)
            optimizer.zero_grad()
            wrapped(2 * k + rank).backward()
            optimizer.step()
        weights = [list(record.weights) for record in model.gate.drain()]
        done[strategy] = {"weights": weights, "model": [p.flatten().tolist() for p in model.parameters()]}
    dist.barrier()
    dist.destroy_process_group()
    Path(folder, f"{rank}.json").write_text(json.dumps(done))


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_train_as_one_on_both_halves(tmp_path: Path) -> None:
    mp.spawn(in_process, args=(str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    for strategy in ("max_loss", "uw"):
        torch.manual_seed(0)
        net = Whole(strategy).net
        balancers = BalancerSet({"all": GroupNames(LEVELS, TERMS)}, strategy, interval=2, seed=3)
        learned = [*net.parameters(), *balancers.parameters()]
        optimizer = torch.optim.SGD(learned, lr=0.05)
        for k in range(PASSES):
            halves = [levels_of(*flat(net(images(2 * k + rank)))) for rank in (0, 1)]
            rows = [torch.stack([torch.stack(half[term]) for term in TERMS]) for half in halves]
            optimizer.zero_grad()
            balancers({"all": LevelLosses((rows[0] + rows[1]) / 2)}).backward()
            optimizer.step()
        torch.testing.assert_close(
            [p.flatten().tolist() for p in learned], first[strategy]["model"], rtol=1e-4, atol=1e-6
        )
        expected = [list(record.weights) for record in balancers.drain()][-1]
        torch.testing.assert_close(first[strategy]["weights"][-1], expected, rtol=1e-4, atol=1e-6)


# -- its life ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rlo", "uw", "dwa", "cov"])
def test_it_goes_on_from_a_checkpoint_in_the_middle_of_an_interval(name: str) -> None:
    net, gate = Net(), gate_of(name)
    trained(net, lambda seed: gated_loss(net, gate, seed), [*gate.parameters()], steps=5)
    file = io.BytesIO()
    torch.save(gate.state_dict(), file)
    again, second = same(net), gate_of(name)
    second.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert second.weights.equal(gate.weights)
    gate.drain()
    more = [
        trained(model, lambda seed: gated_loss(model, one, seed), [*one.parameters()], 4, 5)  # noqa: B023
        for model, one in ((net, gate), (again, second))
    ]
    assert all(one.equal(other) for one, other in zip(*more, strict=True))
    assert gate.drain() == second.drain() != []
    with pytest.raises(RuntimeError, match="interval 2"):
        gate_of(name, interval=3).load_state_dict(gate.state_dict())


def test_copies_are_made_at_any_time() -> None:
    """As an EMA of a model that contains the gate does."""
    net, gate = Net(), gate_of("max_loss")
    gated_loss(net, gate, 0)
    flat_maps = gate(flat(net(images(1)))[0], SIZES)
    for twin in (copy.deepcopy(gate), pickle.loads(pickle.dumps(gate))):
        with pytest.raises(SpecError, match="no predictions were gated"):
            twin.loss(flat_maps.sum(), torch.ones(2, 3))
        gated_loss(net, twin, 1).backward()
        assert [record.iteration for record in twin.drain()] == [2]
    assert gate.drain() == []


def test_validation_is_neither_weighed_nor_counted() -> None:
    net, gate = Net(), gate_of(UNEVEN)
    plain = float(sum(loss.detach() for loss in criterion(*flat(net(images(0)))).values()))
    before = gate.balancers.balancers["all"].iteration
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            scores = flat(net(images(0)))[0]
            assert gate(scores) is scores and gate([scores]) == [scores], "nothing is looked at"
            assert float(gated_loss(net, gate, 0)) == plain
    gate.eval()
    with torch.no_grad():
        assert float(gated_loss(net, gate, 0)) == plain
    with pytest.warns(UserWarning, match="LevelGate is in eval mode") as said:
        ours = gated_loss(net, gate, 0)
    assert said[0].filename == __file__, "the line of the call"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gated_loss(net, gate, 0).backward()
    assert float(ours.detach()) == plain and gate.balancers.balancers["all"].iteration == before == 0
    gate.train()
    assert float(gated_loss(net, gate, 0).detach()) != plain


def test_records_in_a_folder(tmp_path: Path) -> None:
    def lines() -> list[int]:
        text = (tmp_path / "intervals.jsonl").read_text()
        return [json.loads(line)["iteration"] for line in text.splitlines()]

    net, gate = Net(), gate_of("max_loss", records=tmp_path)
    saved: Any = None
    for seed in range(8):
        gated_loss(net, gate, seed)
        if seed == 4:
            saved = copy.deepcopy(gate.state_dict())
            assert [record.iteration for record in gate.drain()] == lines() == [2, 4], "drained and written"
    gated_loss(net, copy.deepcopy(gate), 1)
    assert lines() == [2, 4, 6, 8]
    for one in (gate, gate_of("max_loss", records=tmp_path)):  # going back, and resumed
        parent = nn.ModuleDict({"gate": one})
        parent.load_state_dict({f"gate.{key}": value for key, value in saved.items()})
        gated_loss(net, one, 5)
        assert lines() == [2, 4, 6], "what comes again is not there twice"
    another = gate_of(records=tmp_path)
    with pytest.warns(UserWarning, match="records of an earlier start"):
        gated_loss(net, another, 0)
    assert not (tmp_path / "intervals.jsonl").exists()
    refused(lambda: gated_loss(net, one, 6), str(tmp_path), "at the same time", "a folder for each")


# -- mistakes ------------------------------------------------------------------------------------


def refused(call: Callable[[], object], *words: str) -> None:
    with pytest.raises(SpecError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


def test_arguments_that_do_not_fit() -> None:
    refused(lambda: LevelGate(["P3"]), "LevelGate()", "at least two")
    refused(lambda: LevelGate("P345"), "LevelGate()", "levels")
    refused(lambda: gate_of("rol"), "LevelGate()", "rlo")
    refused(lambda: gate_of("rlo", topk=1), "LevelGate()", "topk")
    refused(lambda: gate_of(UNEVEN, epsilon=-1.0), "LevelGate()", "epsilon")
    refused(lambda: gate_of(UNEVEN, top_k=1), "LevelGate()", "top_k", "Fixed")
    refused(lambda: gate_of(interval=1), "LevelGate()", "interval")


def test_predictions_that_do_not_fit() -> None:
    scores, boxes = flat(Net()(images(0)))
    gate = gate_of()
    assert gate(scores, torch.tensor(SIZES)).shape == scores.shape
    refused(lambda: gate(scores, 84), "sizes", "84")
    refused(lambda: gate(scores, [64, 16]), "sizes", "[64, 16]", "P3, P4, P5", "H x W")
    refused(lambda: gate(scores), "sizes", "None")
    refused(lambda: gate(scores, [(8, 8), (4, 4), (2, 2)]), "sizes", "(8, 8)")
    refused(lambda: gate(scores, [64, 24, -4]), "sizes", "-4")
    refused(lambda: gate(scores, [64, 16, 8]), "sizes", "88", "[2, 84, 2]", "dim=1")
    refused(lambda: gate(boxes, SIZES), "[2, 4, 84]", "dim=1")
    refused(lambda: gate(boxes, SIZES, dim=3), "dim=3")
    refused(lambda: gate([boxes, boxes]), "2 maps", "P3, P4, P5")
    refused(lambda: gate([boxes, boxes, 3.0]), "float")
    refused(lambda: gate([boxes] * 3, SIZES), "no sizes")
    refused(lambda: gate({"P3": boxes}), "dict", "list of one map a level")
    refused(lambda: gate(scores, SIZES, term="bbox"), "'bbox'", "cls, box")
    refused(lambda: gate_of(per_term=True)(scores, SIZES), "term", "per_term")


def test_losses_that_do_not_fit() -> None:
    net = Net()

    def with_losses(own: Any, by_level: Any, *rest: Any) -> Callable[[], object]:
        def call() -> object:
            gate = gate_of()
            gate(flat(net(images(0)))[0], SIZES)
            return gate.loss(own, by_level, *rest)

        return call

    one = torch.ones(())
    refused(with_losses(3.0, torch.ones(2, 3)), "own", "float", "scalar")
    refused(with_losses(torch.ones(3), torch.ones(2, 3)), "own", "[3]")
    refused(with_losses(torch.tensor(6), torch.ones(2, 3)), "own", "int64", "float")
    refused(with_losses({"cls": one}, torch.ones(2, 3)), "own", "cls", "box")
    refused(with_losses({"cls": one, "box": 1.0}, torch.ones(2, 3)), "own", "float")
    refused(with_losses(one, torch.ones(3)), "by_level", "[2, 3]", "[3]")
    refused(with_losses(one, {"cls": torch.ones(3)}), "by_level", "terms")
    refused(with_losses(one, torch.ones(2, 3), torch.ones(2)), "positives", "[2]")


def test_a_pass_has_one_loss_and_one_backward_after_it() -> None:
    net, gate = Net(), gate_of()
    refused(
        lambda: gate.loss(torch.ones(()), torch.ones(2, 3)), "no predictions were gated", "gate(predictions"
    )
    gated_loss(net, gate, 0)
    refused(lambda: gate.loss(torch.ones(()), torch.ones(2, 3)), "no predictions were gated")
    with pytest.raises(RuntimeError, match="backward before `loss`"):
        gate(flat(net(images(0)))[0], SIZES).sum().backward()


def proof(change: Callable[..., Any], **options: Any) -> Callable[[], object]:
    """A first pass in which `change` answers for the own loss and the levels."""

    def call() -> object:
        gate = gate_of(**options)
        scores, boxes = flat(Net()(images(0)))
        return gate.loss(*change(gate, scores, boxes))

    return call


def test_the_first_pass_disproves_what_a_gate_cannot_weigh() -> None:
    def both(gate: LevelGate, scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        return gate(scores, SIZES), gate(boxes, SIZES, dim=2)

    def total(scores: Tensor, boxes: Tensor) -> Any:
        return sum(criterion(scores, boxes).values())

    def further(gate: LevelGate, *given: Tensor) -> Any:
        gated = both(gate, *given)
        return total(*gated) + gated[1].square().sum(), levels_of(*gated)

    def by_term(gate: LevelGate, *given: Tensor) -> Any:
        gated = both(gate, *given)
        own = criterion(*gated)
        return {"cls": own["box"], "box": own["cls"]}, levels_of(*gated)

    def forgotten(gate: LevelGate, scores: Tensor, boxes: Tensor) -> Any:
        scores = gate(scores, SIZES)
        return total(scores, boxes), levels_of(scores, boxes)

    def dropped(gate: LevelGate, *given: Tensor) -> Any:
        both(gate, *given)
        return total(*given), levels_of(*given)

    def twice(gate: LevelGate, scores: Tensor, boxes: Tensor) -> Any:
        scores, boxes = both(gate, scores, gate(boxes, SIZES, dim=2) * 1.0)
        return total(scores, boxes), levels_of(scores, boxes)

    def reversed_sizes(gate: LevelGate, scores: Tensor, boxes: Tensor) -> Any:
        gated = gate(scores, SIZES[::-1]), gate(boxes, SIZES[::-1], dim=2)
        return total(*gated), levels_of(*gated)

    def coupled(gate: LevelGate, *given: Tensor) -> Any:
        scores, boxes = both(gate, *given)
        factor = 1 + scores.square().mean()  # not detached
        levels = {term: [loss * factor for loss in row] for term, row in levels_of(scores, boxes).items()}
        return total(scores, boxes) * factor, levels

    def detached(gate: LevelGate, *given: Tensor) -> Any:
        gated = both(gate, *given)
        return total(*gated).detach(), levels_of(*gated)

    refused(proof(further), "levels of `loss` that add up to", "add that to what comes back", "scaled")
    refused(proof(by_term), "levels of `cls` that add up to")
    refused(proof(forgotten), "passes the gates by", "gate all predictions")
    refused(proof(dropped), "passes the gates by")
    refused(proof(twice), "two gates")
    refused(proof(reversed_sizes), "P4", "order of the levels")
    refused(proof(coupled), "detach what couples the levels", "msbal.Balancer")
    refused(proof(detached), "without a gradient")


def test_a_term_of_another_terms_predictions_is_refused_where_terms_have_their_own_weights() -> None:
    def crossed(gate: LevelGate, scores: Tensor, boxes: Tensor) -> Any:
        scores, boxes = gate(scores, SIZES, term="box"), gate(boxes, SIZES, dim=2, term="cls")
        return criterion(scores, boxes), levels_of(scores, boxes)

    refused(proof(crossed, per_term=True), "P3", "`box`")
    proof(crossed, per_term=False)()


def test_a_term_is_proved_where_it_is_first_more_than_0() -> None:
    net, gate = Net(), gate_of()

    def step(factor: float, wrong: float) -> Tensor:
        scores, boxes = flat(net(images(0)))
        scores, boxes = gate(scores, SIZES), gate(boxes, SIZES, dim=2)
        own, levels = criterion(scores, boxes), levels_of(scores, boxes)
        levels["box"] = [factor * wrong * loss for loss in levels["box"]]
        return sum(gate.loss({**own, "box": factor * own["box"]}, levels).values())  # type: ignore[no-any-return]

    step(0.0, 1.3).backward()
    step(float("nan"), 1.3)
    refused(lambda: step(1.0, 1.3), "levels of `box`")
    step(1.0, 1.0).backward()
    step(1.0, 1.3).backward()  # proved: no pass waits for the device any more


def test_losses_that_are_read_beside_have_gradients_for_the_proof_alone() -> None:
    net = Net()

    def step(gate: LevelGate, sizes: list[int] = SIZES) -> bool:
        scores, boxes = flat(net(images(0)))
        scores, boxes = gate(scores, sizes), gate(boxes, sizes, dim=2)
        before = torch.is_grad_enabled()
        with gate.reading():
            by_level = levels_of(scores, boxes)
        assert torch.is_grad_enabled() == before
        gate.loss(criterion(scores, boxes), by_level)
        return by_level["cls"][0].requires_grad

    gate = gate_of()
    with torch.no_grad():
        assert not step(gate)
    assert [step(gate) for _ in range(3)] == [True, False, False]
    refused(lambda: step(gate_of(), SIZES[::-1]), "order of the levels")


def test_what_is_not_by_level_is_added_outside() -> None:
    net, gate = Net(), gate_of(UNEVEN)
    scores, boxes = flat(net(images(0)))
    extra = boxes.square().sum()
    scores, boxes = gate(scores, SIZES), gate(boxes, SIZES, dim=2)
    own = sum(criterion(scores, boxes).values())
    ours = torch.autograd.grad(gate.loss(own, levels_of(scores, boxes)) + extra, net.parameters())
    balancers = BalancerSet({"all": GroupNames(LEVELS, TERMS)}, UNEVEN)
    plain = flat(net(images(0)))[1].square().sum()
    torch.testing.assert_close(
        ours, torch.autograd.grad(slow_loss(net, balancers, 0) + plain, net.parameters())
    )
