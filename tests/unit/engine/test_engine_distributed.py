"""Two and four real processes (gloo): the same decisions on all, from the losses of all."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from msbal.engine import Balancer, GradientError, LevelLosses

ALPHA = 4
NAMES = ["rlo", "avw", "uw", "uw_so", "dwa", "cov", "positives"]

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")


def rows(rank: int, count: int = 14) -> Tensor:
    generator = torch.Generator().manual_seed(100 + rank)
    return torch.rand(count, 2, 4, dtype=torch.float64, generator=generator) + 0.1


def make(name: str) -> Balancer:
    return Balancer(["a", "b", "c", "d"], name, terms=("cls", "bbox"), interval=ALPHA, seed=2)


def with_positives(rank: int, row: Tensor) -> LevelLosses:
    return LevelLosses(row, torch.tensor([1, 2, 3 * rank, 4]))


class Model(nn.Module):
    """A user's model with the balancer in it, as DistributedDataParallel wraps it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, dtype=torch.float64))
        self.balancer = make("avw")

    def forward(self, row: Tensor) -> Tensor:
        return self.balancer(row * self.scale)


def weights_and_records(rank: int) -> dict[str, Any]:
    out = {}
    for name in NAMES:
        balancer, trace = make(name), []
        for row in rows(rank):
            balancer(with_positives(rank, row)).backward() if name == "uw" else balancer(
                with_positives(rank, row)
            )
            trace.append(balancer.weights.tolist())
        out[name] = {"weights": trace, "records": [asdict(record) for record in balancer.drain()]}
        if name == "uw":
            out[name]["gradient"] = balancer.strategy_log_variance.grad.tolist()  # type: ignore[union-attr]
    return out


def nonfinite(rank: int) -> dict[str, Any]:
    balancer, named = make("rlo"), []
    losses = rows(rank)
    if rank == 1:
        losses[5, 1, 2] = float("nan")
    for row in losses:
        balancer(row)
        named.append([asdict(found) for found in balancer.nonfinite()])
    return {"records": [asdict(record) for record in balancer.drain()], "named": named}


def in_data_parallel(rank: int) -> dict[str, Any]:
    model = nn.parallel.DistributedDataParallel(Model())
    for row in rows(rank):
        model(row).backward()
    return {"records": [asdict(record) for record in model.module.balancer.drain()]}


def resumed(rank: int, folder: Path, name: str) -> dict[str, Any]:
    """Rank 0 saves in the middle of an interval; both go on from its file."""
    losses = rows(rank)
    if rank == 1:
        losses[4, 0, 0] = float("inf")
    whole = make(name)
    path = folder / f"{name}.pt"
    for m, row in enumerate(losses):
        if m == 6:
            whole.synchronize()
            if rank == 0:
                torch.save(whole.state_dict(), path)
        whole(with_positives(rank, row))
    dist.barrier()
    second = make(name)
    second.load_state_dict(torch.load(path, weights_only=True))
    for row in losses[6:]:
        second(with_positives(rank, row))
    expected = [asdict(record) for record in whole.drain()][1:]
    return {"expected": expected, "got": [asdict(record) for record in second.drain()]}


def refusal(train: Callable[[], object]) -> str:
    try:
        train()
    except RuntimeError as error:
        return str(error)
    return ""


def train(balancer: Balancer, losses: Tensor) -> Balancer:
    for row in losses:
        balancer(row)
    return balancer


def apart(rank: int) -> str:
    """One rank resumes, the other does not."""
    balancer = make("rlo")
    ahead = train(make("rlo"), rows(rank, 2 * ALPHA))
    if rank == 0:
        balancer.load_state_dict(ahead.state_dict())
    return refusal(lambda: train(balancer, rows(rank, ALPHA)))


def unlike(rank: int) -> str:
    """A script that seeds each rank with its number, as many do."""
    balancer = Balancer(["a", "b", "c", "d"], "rlo", terms=("cls", "bbox"), interval=ALPHA, seed=rank)
    return refusal(lambda: train(balancer, rows(rank, ALPHA)))


def validated(rank: int) -> dict[str, Any]:
    """A validation loss on rank 0 alone, in training mode: no rank waits for the other, and nothing is counted."""
    out = {}
    for name in ("rlo", "cov"):
        balancer = make(name)
        for m, row in enumerate(rows(rank)):
            balancer(row)
            if rank == 0 and m % 3 == 0:
                with torch.no_grad():
                    train(balancer, rows(7, 5))
        out[name] = [asdict(record) for record in balancer.drain()]
    return out


def compiled(rank: int) -> dict[str, Any]:
    eager, balancer = make("rlo"), make("rlo")
    step = torch.compile(balancer, backend="eager")
    for row in rows(rank, 2 * ALPHA):
        eager(row)
        step(row)
    return {
        "expected": [asdict(record) for record in eager.drain()],
        "got": [asdict(record) for record in balancer.drain()],
    }


class Net(nn.Module):
    """Two levels with a layer of their own; the second one's loss can be without a graph, and fail."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(3, 4, dtype=torch.float64)
        self.heads = nn.ModuleList(nn.Linear(4, 2, dtype=torch.float64) for _ in range(2))

    def forward(self, x: Tensor, alone: bool = False, error: Exception | None = None) -> Tensor:
        losses = [head(self.stem(x).tanh()).pow(2).mean() for head in self.heads]
        return torch.stack([losses[0], losses[1].detach() if alone else fails_backward(losses[1], error)])


def fails_backward(loss: Tensor, error: Exception | None) -> Tensor:
    def fail(gradient: Tensor) -> None:
        raise error  # type: ignore[misc]

    loss = loss * 1
    if error is not None:
        loss.register_hook(fail)
    return loss


def images(rank: int, m: int) -> Tensor:
    return torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(100 * m + rank))


MEASURED: dict[str, dict[str, tuple[int, ...]]] = {
    # By iteration: what is wrong on rank 1.
    "plain": {},
    "one_level_on_one_rank": {"alone": (1, 2)},
    "nan": {"nan": (2,)},
    "no_memory": {"error": (1, 2)},
    "broken_later": {"error": (2, 3)},
    "broken_at_once": {"error": (1,)},
    "other_parameters": {"frozen": (1,)},
    "static_graph": {},
}


def measured(rank: int, name: str, measure: int | None = 1) -> dict[str, Any]:
    """Train a model in DistributedDataParallel, with a balancer outside, for one interval."""
    wrong, net = MEASURED[name], Net()
    model = nn.parallel.DistributedDataParallel(net, static_graph=name == "static_graph")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    parts = {"heads": net.heads.parameters(), "stem": net.stem.parameters()}
    balancer = Balancer(["a", "b"], "equal", interval=4, measure=measure, parameters=parts)
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for m in range(1, 5):
                there = {
                    key: rank == 1 and m in wrong.get(key, ()) for key in ("alone", "error", "nan", "frozen")
                }
                kind = torch.cuda.OutOfMemoryError if name == "no_memory" else RuntimeError
                error = kind("what it says") if there["error"] else None
                if there["frozen"]:
                    net.stem.bias.requires_grad_(False)
                losses = model(images(rank, m), there["alone"], error)
                if there["nan"]:
                    losses = losses * torch.tensor([1.0, float("nan")])
                total = balancer(losses)
                if name in ("plain", "static_graph"):
                    optimizer.zero_grad()
                    total.backward()
                    optimizer.step()
        except GradientError as error:
            return {"refused": str(error)}
        said += [str(each.message) for each in caught if "msbal" in str(each.message)]
    return {
        "records": [asdict(record) for record in balancer.drain()], "said": said,
        "weights": {key: value.tolist() for key, value in net.state_dict().items()},
    }  # fmt: skip


def everything(rank: int, folder: Path) -> dict[str, Any]:
    return {
        "plain": weights_and_records(rank),
        "nonfinite": nonfinite(rank),
        "ddp": in_data_parallel(rank),
        "resumed": {name: resumed(rank, folder, name) for name in ("rlo", "cov")},
        "apart": apart(rank),
        "unlike": unlike(rank),
        "validated": validated(rank),
        "measured": {name: measured(rank, name) for name in MEASURED},
        "unmeasured": measured(rank, "plain", measure=None),
    }


def work(rank: int, count: int, folder: str, compiling: bool) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    done = compiled(rank) if compiling else everything(rank, Path(folder))
    dist.barrier()
    dist.destroy_process_group()
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps(done))


def in_processes(count: int, folder: Path, compiling: bool = False) -> list[dict[str, Any]]:
    mp.spawn(work, args=(count, str(folder), compiling), nprocs=count)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(count)]


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_processes(request.param, tmp_path_factory.mktemp("ranks"))


def average(ranks: list[dict[str, Any]]) -> Tensor:
    """What one process would have seen."""
    return torch.stack([rows(rank) for rank in range(len(ranks))]).mean(dim=0)


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_the_same_on_all_ranks_at_all_times(ranks: list[dict[str, Any]], name: str) -> None:
    first, *others = (rank["plain"][name] for rank in ranks)
    assert all(other == first for other in others)
    assert len(first["records"]) == 3
    assert len({tuple(weights) for weights in first["weights"]}) > 1 or name in ("uw", "positives")


@pytest.mark.parametrize("name", NAMES)
def test_equal_to_one_process_on_the_average(ranks: list[dict[str, Any]], name: str) -> None:
    alone = make(name)
    for row in average(ranks):
        total = alone(
            LevelLosses(row, sum(with_positives(rank, row).positives for rank in range(len(ranks))))
        )
        if name == "uw":
            total.backward()
    for ours, theirs in zip(alone.drain(), ranks[0]["plain"][name]["records"], strict=True):
        assert (ours.action, ours.reward, list(ours.positives or ())) == (
            theirs["action"], theirs["reward"], theirs["positives"],
        )  # fmt: skip
        assert ours.weights == pytest.approx(theirs["weights"], rel=1e-12)
        assert ours.loss == pytest.approx(theirs["loss"], rel=1e-12)
        assert ours.variance == pytest.approx(theirs["variance"], rel=1e-9)
    if name == "uw":
        gradient = alone.strategy_log_variance.grad.tolist()  # type: ignore[union-attr]
        assert gradient == pytest.approx(ranks[0]["plain"][name]["gradient"])


def test_equal_to_the_slow_reference(ranks: list[dict[str, Any]]) -> None:
    from msbal_reference import Settings, run

    losses = average(ranks).sum(dim=1).tolist()
    for truth, record in zip(
        run(losses, Settings(alpha=ALPHA, seed=2)), ranks[1]["plain"]["rlo"]["records"], strict=True
    ):
        assert record["weights"] == pytest.approx(truth.weights)
        assert record["action"] == truth.action
        assert record["probabilities"] == pytest.approx(truth.probabilities)


def test_a_nan_on_one_rank_is_named_with_its_rank(ranks: list[dict[str, Any]]) -> None:
    bad = {"iteration": 6, "term": "bbox", "level": "c", "rank": 1, "value": "nan"}
    assert all(rank["nonfinite"]["records"] == ranks[0]["nonfinite"]["records"] for rank in ranks)
    found = [record["nonfinite"] for record in ranks[0]["nonfinite"]["records"]]
    assert found == [[], [bad], []]
    assert [record["count"] for record in ranks[0]["nonfinite"]["records"]] == [4, 3, 4]
    # At once only on the rank that saw it.
    assert [m for m, named in enumerate(ranks[1]["nonfinite"]["named"], start=1) if named] == [6]
    assert ranks[1]["nonfinite"]["named"][5] == [bad]
    assert not any(ranks[0]["nonfinite"]["named"])


def test_inside_data_parallel_every_ranks_losses_count(ranks: list[dict[str, Any]]) -> None:
    """DistributedDataParallel broadcasts rank 0's buffers at every forward pass."""
    for rank in ranks:
        for ddp, plain in zip(rank["ddp"]["records"], rank["plain"]["avw"]["records"], strict=True):
            assert ddp["loss"] == plain["loss"]
            assert ddp["weights"] == plain["weights"]


@pytest.mark.parametrize("name", ["rlo", "cov"])
def test_resume_in_the_middle_of_an_interval_is_exact(ranks: list[dict[str, Any]], name: str) -> None:
    for rank in ranks:
        assert rank["resumed"][name]["got"] == rank["resumed"][name]["expected"] != []
    (bad,) = ranks[0]["resumed"][name]["got"][0]["nonfinite"]
    assert (bad["rank"], bad["iteration"], bad["value"]) == (1, 5, "inf")


@pytest.mark.parametrize("how", ["apart", "unlike"])
def test_ranks_that_would_decide_differently_are_noticed(ranks: list[dict[str, Any]], how: str) -> None:
    for rank in ranks:
        assert "different numbers of intervals, or their balancers differ (in the seed?)" in rank[how]


def test_a_validation_loss_on_one_rank_is_neither_counted_nor_waited_for(ranks: list[dict[str, Any]]) -> None:
    assert all(rank["validated"] == ranks[0]["validated"] for rank in ranks)
    for name in ("rlo", "cov"):
        plain = train(make(name), average(ranks)).drain()
        for ours, theirs in zip(ranks[0]["validated"][name], plain, strict=True):
            assert ours["loss"] == pytest.approx(theirs.loss)
            assert ours["weights"] == pytest.approx(theirs.weights)


def test_measured_gradients_are_the_same_on_all_ranks(ranks: list[dict[str, Any]]) -> None:
    for name in MEASURED:
        found = [rank["measured"][name].get("records") for rank in ranks]
        assert all(records == found[0] for records in found), name


def test_measured_gradients_are_those_of_one_process_on_the_joined_batch(ranks: list[dict[str, Any]]) -> None:
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    alone = Balancer(["a", "b"], "equal", interval=4, measure=1, parameters=net.parameters())
    for m in range(1, 5):
        optimizer.zero_grad()
        alone(net(torch.cat([images(rank, m) for rank in range(len(ranks))]))).backward()
        optimizer.step()
    (ours,), (theirs,) = alone.drain(), ranks[0]["measured"]["plain"]["records"]
    assert ours.gradient_count == theirs["gradient_count"] == 4
    assert ours.gradient_norm["shared"] == pytest.approx(theirs["gradient_norm"]["shared"], rel=1e-12)
    assert ours.gradient_norm["shared"] == pytest.approx(theirs["gradient_norm"]["stem"], rel=1e-12)
    assert ours.gradient_cosine[0][1] == pytest.approx(theirs["gradient_cosine"][0][1], rel=1e-12)


def test_measuring_keeps_the_bits_of_data_parallel_training(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["measured"]["plain"]["weights"] == rank["unmeasured"]["weights"]
        assert rank["unmeasured"]["records"][0]["gradient_count"] == 0


def test_a_level_without_a_gradient_on_one_rank_counts_as_zero_there(ranks: list[dict[str, Any]]) -> None:
    net, trained = Net(), []
    for m in range(1, 5):
        sums = torch.zeros(2, dtype=torch.float64)
        for level in range(2):
            net.zero_grad()
            for rank in range(len(ranks)):
                if not (level == 1 and rank == 1 and m in (1, 2)):
                    (net(images(rank, m))[level] / len(ranks)).backward()
            sums[level] = sum(p.grad.pow(2).sum() for p in net.stem.parameters())
        trained.append(sums)
    wanted = torch.stack(trained).mean(dim=0).sqrt().tolist()
    (record,) = ranks[0]["measured"]["one_level_on_one_rank"]["records"]
    assert record["gradient_norm"]["stem"] == pytest.approx(wanted, rel=1e-12)


def test_what_fails_on_one_rank_is_left_out_on_all(ranks: list[dict[str, Any]]) -> None:
    for name, count, says in (
        ("nan", 3, [None]), ("no_memory", 2, ["another process has not enough memory", "what it says"]),
        ("broken_later", 2, ["another process cannot measure them", "RuntimeError: what it says"]),
    ):  # fmt: skip
        for number, rank in enumerate(ranks):
            (record,) = rank["measured"][name]["records"]
            assert record["gradient_count"] == count
            text = says[min(len(says) - 1, int(number == 1))]
            assert [text in said for said in rank["measured"][name]["said"]] == (
                [] if text is None else [True]
            )


def test_what_cannot_be_measured_on_one_rank_is_refused_on_all(ranks: list[dict[str, Any]]) -> None:
    for number, rank in enumerate(ranks):
        own = "RuntimeError: what it says" if number == 1 else "another process cannot measure them"
        assert own in rank["measured"]["broken_at_once"]["refused"]
        assert "train different parameters" in rank["measured"]["other_parameters"]["refused"]
        assert "static_graph=True" in rank["measured"]["static_graph"]["refused"]


@pytest.mark.release
def test_a_compiled_step_leaves_the_graph_for_the_collective(tmp_path: Path) -> None:
    for rank in in_processes(2, tmp_path, compiling=True):
        assert rank["got"] == rank["expected"] != []
