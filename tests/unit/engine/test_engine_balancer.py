"""The balancer in a training loop: gradients, dtypes, state, losses that are not finite."""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from msbal.baselines import Fixed
from msbal.engine import (
    AVW,
    RLO,
    Balancer,
    BalancerSet,
    Equal,
    GroupNames,
    IntervalRecord,
    LevelLosses,
    MaxLoss,
    MinLoss,
    NonFinite,
    Strategy,
)

LEVELS = ("P3", "P4", "P5", "P6")
TERMS = ("cls", "bbox")


def losses(count: int, seed: int = 0, terms: int = 2) -> Tensor:
    return torch.rand(count, terms, 4, generator=torch.Generator().manual_seed(seed)) + 0.1


def make(strategy: Strategy | str = "rlo", **options: object) -> Balancer:
    return Balancer(LEVELS, strategy, **{"terms": TERMS, "interval": 4, "seed": 7, **options})  # type: ignore[arg-type]


def run(balancer: Balancer, rows: Tensor) -> list[IntervalRecord]:
    for row in rows:
        balancer(row)
    return balancer.drain()


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"levels": ["P3"]}, "levels should be at least two"),
        ({"levels": ["P3", "P3"]}, "levels should be at least two different"),
        ({"levels": "P3"}, "levels"),
        ({"levels": {"P3", "P4", "P5"}}, "levels should be .* in a list or tuple. Found {"),
        ({"levels": 5}, "levels should be .* Found 5"),
        ({"levels": [3, 4, 5]}, r"levels should be .* Found \[3, 4, 5\]"),
        ({"terms": ()}, "terms"),
        ({"terms": "cls"}, "terms"),
        ({"terms": ("cls", "cls")}, "terms"),
        ({"interval": 1}, "interval should be at least 2"),
        ({"interval": -5}, "interval"),
        ({"interval": 100.0}, "interval should be a whole number. Found 100.0"),
        ({"interval": True}, "interval should be a whole number. Found True"),
        ({"seed": None}, "seed should be a whole number. Found None"),
        ({"epsilon": "1e-5"}, "epsilon should be a number above 0. Found '1e-5'"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"strategy": "rol"}, "strategy should be one of .*rlo.*Found `rol`"),
        ({"strategy": RLO}, "strategy should be a Strategy"),
        ({"strategy": AVW(top_k=4)}, "top_k should be below the number of levels, 4.*Found 4"),
        ({"strategy": RLO(top_k=4)}, "top_k"),
        ({"strategy": Fixed((1, 2))}, "weights should be 4 numbers.*Found 2"),
        ({"levels": ["P3", "P4"]}, "top_k should be below the number of levels, 2"),
    ],
)
def test_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Balancer(**{"levels": LEVELS, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cls", "options", "says"),
    [
        (RLO, {"p_min": 0.5, "p_max": 0.4}, "p_min and p_max"),
        (RLO, {"p_min": 0.3}, "initial probability of 4 actions, 0.25"),
        (RLO, {"p_max": 0.2}, "initial probability"),
        (RLO, {"actions": ("avw", "equal"), "p_max": 0.45}, "2 actions, 0.5"),
        (RLO, {"p_min": 0.0}, "p_min"),
        (RLO, {"p_max": 1.0}, "p_max"),
        (RLO, {"step": 0.0}, "step"),
        (RLO, {"step": float("nan")}, "step"),
        (RLO, {"actions": ("avw",)}, "at least two"),
        (RLO, {"actions": ("avw", "avw")}, "different"),
        (RLO, {"actions": ("avw", "rlo")}, "actions should be from .*Found `rlo`"),
        (RLO, {"actions": ("avw", "nothing")}, "Found `nothing`"),
        (RLO, {"amplification": -1.0}, "amplification"),
        (RLO, {"top_k": 0}, "top_k"),
        (AVW, {"amplification": float("inf")}, "amplification"),
        (MinLoss, {"amplification": float("nan")}, "amplification"),
        (MaxLoss, {"top_k": 0}, "top_k"),
        (Fixed, {}, "weights"),
        (Fixed, {"weights": (1, -1)}, "weights"),
        (Fixed, {"weights": (1, float("nan"))}, "weights"),
    ],
)
def test_hyperparameters_refused(cls: type[Strategy], options: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        cls(**options)


# -- gradients -------------------------------------------------------------------------------------


def test_gradient_equals_that_of_the_slow_sum() -> None:
    rows = losses(14)
    balancer = make(AVW())
    seen_unequal = False
    for row in rows:
        weights = balancer.weights.clone()
        values = row.clone().requires_grad_()
        total = balancer(values)
        total.backward()
        assert values.grad is not None
        for t in range(2):
            assert values.grad[t].tolist() == weights.float().tolist()
        slow = sum(float(weights[k]) * float(row[:, k].sum()) for k in range(4))
        assert total.item() == pytest.approx(slow, rel=1e-6)
        seen_unequal |= bool((weights != 1).any())
    assert seen_unequal


@pytest.mark.parametrize("strategy", [MaxLoss(), RLO()])
def test_backward_after_the_intervals_end_uses_the_old_weights(strategy: Strategy) -> None:
    balancer = make(strategy)
    run(balancer, losses(7))
    old = balancer.weights.float().tolist()
    values = losses(1, seed=9)[0].requires_grad_()
    total = balancer(values)  # ends the interval
    balancer(losses(1, seed=10)[0])
    assert balancer.iteration == 9
    total.backward()
    assert values.grad is not None and values.grad[0].tolist() == old


def test_gradient_accumulation_over_an_intervals_end() -> None:
    balancer, weight = make(MaxLoss()), nn.Parameter(torch.tensor(1.0))
    rows = losses(8)
    expected, total = 0.0, torch.tensor(0.0)
    for row in rows:
        expected += float((row.double() * balancer.weights).sum())
        total = total + balancer(weight * row)
    total.backward()
    assert float(weight.grad) == pytest.approx(expected, rel=1e-6)  # type: ignore[arg-type]


def test_equal_weights_change_nothing() -> None:
    rows = losses(9)
    balancer = make(Equal())
    for row in rows:
        values = row.clone().requires_grad_()
        total = balancer(values)
        total.backward()
        torch.testing.assert_close(total, row.sum())
        assert values.grad is not None and torch.equal(values.grad, torch.ones_like(row))


def test_evaluation_mode_weighs_but_does_not_count() -> None:
    balancer = make(Fixed((1, 2, 3, 4)))
    balancer(losses(1)[0])
    balancer.eval()
    row = losses(1, seed=5)[0]
    assert float(balancer(row)) == pytest.approx(float((row * torch.tensor([1, 2, 3, 4])).sum()))
    assert balancer.iteration == 1
    balancer.train()
    balancer(row)
    assert balancer.iteration == 2


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("strategy", ["rlo", "max_loss", "cov", "uw"])
def test_without_gradients_nothing_counts(off: Callable[[], Any], strategy: str) -> None:
    rows = losses(12)
    validated, plain = make(strategy), make(strategy)
    with off():  # the very first call, too
        assert float(validated(100 * rows[0])) == pytest.approx(float(100 * rows[0].sum()))
    for m, row in enumerate(rows):
        totals = []
        for balancer in (validated, plain):
            values = row.clone().requires_grad_()
            total = balancer(values)
            total.backward()
            totals.append((float(total.detach()), values.grad.tolist()))  # type: ignore[union-attr]
        assert totals[0] == totals[1]
        if m % 3 == 1:
            with off():
                for _ in range(5):
                    shown = float(validated(100 * row))
                weights = validated.weights.float()
                assert shown == pytest.approx(float((100 * row * weights).sum()), rel=1e-5)
    assert validated.iteration == 12
    assert validated.drain() == plain.drain() != []


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("strategy", ["max_loss", "rlo", "uw", "cov", "gls"])
def test_within_activation_checkpointing(reentrant: bool, strategy: str) -> None:
    """The call that is made again in the backward pass has the weights of the loss that was shown, and counts once."""
    balancer, rows = make(strategy), losses(14)
    rows[6] = rows[5]  # losses that are equal are different calls all the same
    for m, row in enumerate(rows, start=1):
        scale = torch.ones(4, requires_grad=True)
        total = checkpoint(lambda s, row=row: balancer(row * s), scale, use_reentrant=reentrant)
        total.backward()
        assert balancer.iteration == m
        # The total is linear in the scale, so the gradient has the weights of the loss, level by level.
        assert scale.grad is not None
        assert float(scale.grad.sum()) == pytest.approx(float(total.detach()), rel=1e-5)
    records = balancer.drain()
    for m, record in enumerate(records):
        assert record.loss == pytest.approx(rows[4 * m : 4 * m + 4].double().sum((0, 1)).tolist())
    if strategy in ("max_loss", "rlo"):
        assert records == run(make(strategy), rows)


def test_several_checkpointed_calls_before_one_backward() -> None:
    balancer, rows = make(MaxLoss()), losses(8)
    scale, shown = torch.ones(4, requires_grad=True), []
    for row in rows:
        shown.append(checkpoint(lambda s, row=row: balancer(row * s), scale, use_reentrant=False))
    torch.stack(shown).sum().backward()
    assert balancer.iteration == 8
    assert scale.grad is not None
    assert float(scale.grad.sum()) == pytest.approx(float(torch.stack(shown).sum().detach()), rel=1e-6)


@pytest.mark.parametrize(
    "name", ["interval", "levels", "terms", "seed", "group", "epsilon", "rescale", "strategy"]
)
def test_what_a_balancer_is_made_with_cannot_change(name: str) -> None:
    balancer = make()
    run(balancer, losses(6))
    with pytest.raises(AttributeError, match=f"Balancer.{name} is fixed: make a new balancer with {name}=8"):
        setattr(balancer, name, 8)
    assert len(run(balancer, losses(6))) == 2


def test_replicas_and_their_threads_are_refused() -> None:
    with pytest.raises(RuntimeError, match="DistributedDataParallel"):
        make()._replicate_for_data_parallel()


@pytest.mark.parametrize("strategy", [*map(str, ("rlo", "avw", "equal", "uw", "cov")), Fixed((1, 2, 3, 4))])
def test_rescale_makes_the_weights_sum_to_their_number(strategy: Strategy | str) -> None:
    rows, scaled, plain = losses(30), make(strategy, rescale=True), make(strategy)
    for row in rows:
        values = row.clone().requires_grad_()
        scaled(values).backward()
        plain(row)
        assert values.grad is not None
        assert float(values.grad[0].sum()) == pytest.approx(4, rel=1e-6)
        assert scaled.weights.sum().item() == pytest.approx(4, rel=1e-12)
    for ours, theirs in zip(scaled.drain(), plain.drain(), strict=True):
        assert sum(ours.weights) == pytest.approx(4, rel=1e-12)
        # In proportion they are the strategy's own.
        assert [w / sum(theirs.weights) * 4 for w in theirs.weights] == pytest.approx(list(ours.weights))
        assert (ours.action, ours.probabilities) == (theirs.action, theirs.probabilities)


def test_what_learns_nothing_is_said() -> None:
    rows = losses(12)
    balancer = make("uw")
    with pytest.warns(UserWarning, match="`uw` of `all` learns nothing.*parameters.. to the optimizer"):
        for row in rows:
            balancer(row.requires_grad_()).backward()
    learning = make("uw")
    optimizer = torch.optim.SGD(learning.parameters(), 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for row in rows:
            optimizer.zero_grad()
            learning(row).backward()
            optimizer.step()


def test_weighted_losses_add_up_to_the_total() -> None:
    for strategy in ("max_loss", "cov", "uw"):
        rows, whole, parts = losses(10), make(strategy), make(strategy)
        for row in rows:
            one, other = row.clone().requires_grad_(), row.clone().requires_grad_()
            total, terms = whole(one), parts.weighted(other)
            assert terms.shape == (2, 4)
            assert float(terms.sum()) == pytest.approx(float(total), rel=1e-6)
            total.backward()
            terms.sum().backward()
            assert torch.equal(one.grad, other.grad)  # type: ignore[arg-type]
        for ours, theirs in zip(whole.parameters(), parts.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
        assert whole.drain() == parts.drain()


# -- dtypes and devices ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    rows = losses(8).to(dtype)
    balancer = make(MaxLoss())
    for row in rows:
        values = row.clone().requires_grad_()
        total = balancer(values)
        total.backward()
        assert total.dtype == (dtype if dtype == torch.float64 else torch.float32)
        assert values.grad is not None and values.grad.dtype == dtype
    exact = make(MaxLoss())
    assert run(exact, rows.double())[-1].variance == balancer.drain()[-1].variance


def test_a_change_of_dtype_within_a_run() -> None:
    rows = losses(8).double()
    mixed, plain = make(), make()
    for i, row in enumerate(rows):
        mixed(row if i % 2 else row.float())
        plain(row)
    for a, b in zip(mixed.drain(), plain.drain(), strict=True):
        assert a.weights == pytest.approx(b.weights, rel=1e-6)


def test_autocast() -> None:
    rows = losses(8)
    inside, outside = make(), make()
    for row in rows:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = inside(row)
        assert total.dtype == torch.float32
        assert torch.equal(total, outside(row))
    assert inside.drain() == outside.drain()


def test_half_leaves_the_statistics_alone() -> None:
    rows = losses(12)
    model, plain = nn.Sequential(nn.Linear(2, 2), make("uw")), make("uw")
    balancer = model[1]
    assert isinstance(balancer, Balancer)
    for i, row in enumerate(rows):
        if i == 5:
            model.half()
        balancer(row)
        plain(row)
    assert model[0].weight.dtype == torch.float16
    assert balancer.weights.dtype == torch.float64
    assert balancer.drain() == plain.drain()


@pytest.mark.parametrize("strategy", ["rlo", "uw", "cov"])
def test_built_without_memory_and_brought_to_life(strategy: str) -> None:
    with torch.device("meta"):
        balancer = make(strategy)
    balancer.to_empty(device="cpu")
    rows = losses(9)
    assert run(balancer, rows) == run(make(strategy), rows)
    assert [p.tolist() for p in balancer.parameters()] == [p.tolist() for p in make(strategy).parameters()]
    balancer.reset_parameters()
    assert run(balancer, rows) == run(make(strategy), rows)


# -- state -----------------------------------------------------------------------------------------

STRATEGIES: list[Strategy | str] = ["rlo", "avw", "max_loss", "equal", Fixed((1, 2, 3, 4))]


@pytest.mark.parametrize("at", [0, 3, 4, 6, 13])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resume_is_exact(strategy: Strategy | str, at: int, tmp_path: Path) -> None:
    rows = losses(30)
    whole = make(strategy)
    expected = [float(whole(row)) for row in rows]
    records = whole.drain()

    first = make(strategy)
    run(first, rows[:at])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = make(strategy)
    run(second, losses(5, seed=99))  # whatever it did before is forgotten
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert second.iteration == at
    assert [float(second(row)) for row in rows[at:]] == expected[at:]
    assert second.drain() == records[at // 4 :]


def test_state_is_plain_numbers_and_the_rows_so_far() -> None:
    balancer = make("rlo", interval=50)
    run(balancer, losses(7))
    state = balancer.state_dict()
    assert list(state) == ["_extra_state"]
    rows = state["_extra_state"].pop("rows")
    assert rows.shape == (1, 7, 12)
    assert json.loads(json.dumps(state)) == state
    learned = make("uw").state_dict()
    assert set(learned) == {"_extra_state", "strategy_log_variance"}


def test_loading_forgets_undelivered_records() -> None:
    balancer = make()
    state = copy.deepcopy(balancer.state_dict())
    for row in losses(9):
        balancer(row)
    balancer.load_state_dict(state)
    assert balancer.drain() == []
    assert [record.interval for record in run(balancer, losses(9))] == [1, 2]


def test_loading_does_not_reach_into_an_older_graph() -> None:
    balancer = make(MaxLoss())
    run(balancer, losses(4))
    old = balancer.weights.float().tolist()
    values = losses(1)[0].requires_grad_()
    total = balancer(values)
    balancer.load_state_dict(make(MaxLoss()).state_dict())
    total.backward()
    assert values.grad is not None and values.grad[0].tolist() == old != [1, 1, 1, 1]
    assert balancer.weights.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (
            {"levels": ("P2", "P3", "P4", "P5")},
            r"levels \['P3', 'P4', 'P5', 'P6'\], this balancer has \['P2'",
        ),
        ({"terms": ("bbox", "cls")}, "terms"),
        ({"terms": ("cls",)}, "terms"),
        ({"interval": 5}, "interval 4, this balancer has 5; make it with the same interval"),
        ({"seed": 8}, "seed 7, this balancer has 8"),
        ({"strategy": "avw"}, "strategy rlo, this balancer has avw"),
        ({"strategy": RLO(step=0.02)}, "strategy.step 0.01, this balancer has 0.02"),
        ({"group": "rpn"}, "group all, this balancer has rpn"),
        ({"epsilon": 1e-6}, "epsilon"),
        ({"rescale": True}, "rescale False, this balancer has True"),
    ],
)
def test_state_of_another_balancer_is_refused(other: dict[str, object], says: str) -> None:
    saved = make()
    run(saved, losses(6))
    balancer = Balancer(
        **{"levels": LEVELS, "strategy": "rlo", "terms": TERMS, "interval": 4, "seed": 7, **other}  # type: ignore[arg-type]
    )
    with pytest.raises(RuntimeError, match=says) as caught:
        balancer.load_state_dict(saved.state_dict())
    assert "\n" not in str(caught.value)
    assert balancer.iteration == 0, "what is refused changes nothing"


@pytest.mark.parametrize(
    "key", ["rows", "weights", "previous_loss", "previous_variance", "interval", "state", "of"]
)
@pytest.mark.parametrize(
    "value",
    [
        None, "x", [1.0], [float("nan")] * 4, torch.zeros(1, 4, 12), torch.zeros(3),
        torch.zeros(0, 2, 12), torch.zeros(1, 2, 12, 1),
    ],
)  # fmt: skip
def test_a_damaged_state_is_refused(key: str, value: object) -> None:
    balancer, state = make(), make().state_dict()
    state["_extra_state"][key] = value
    with pytest.raises(RuntimeError, match="Balancer `all`: the saved state"):
        balancer.load_state_dict(state)
    assert len(run(balancer, losses(8))) == 2


def test_a_damaged_state_of_a_step_strategy_is_refused() -> None:
    balancer, state = make("cov"), make("cov").state_dict()
    state["_extra_state"]["state"] = {"moments": [[0.0] * 4, ["x"] * 4]}
    with pytest.raises(RuntimeError, match="Balancer `all`: the saved state"):
        balancer.load_state_dict(state)
    assert len(run(balancer, losses(8))) == 2, "what is refused changes nothing"


def test_missing_and_unexpected_keys_are_named() -> None:
    state = make().state_dict()
    del state["_extra_state"]
    state["surplus"] = torch.ones(1)
    with pytest.raises(
        RuntimeError, match=r"(?s)Missing.*_extra_state.*Unexpected.*surplus|Unexpected.*Missing"
    ):
        make().load_state_dict(state)
    assert make().load_state_dict(state, strict=False).missing_keys == ["_extra_state"]


def test_state_saved_by_other_numbers_of_ranks() -> None:
    """A run of three processes goes on in one: it continues from the mean of what they saw."""
    rows = losses(6)
    balancer = make()
    for row in rows:
        balancer(LevelLosses(row, torch.ones(4)))
    state = balancer.state_dict()
    one = state["_extra_state"]["rows"]
    state["_extra_state"]["rows"] = torch.cat([one, 2 * one, 3 * one])
    resumed = make()
    resumed.load_state_dict(state)
    assert resumed.iteration == 6
    for row in rows[:2]:
        resumed(LevelLosses(row, torch.ones(4)))
    (record,) = resumed.drain()
    # 1, 2 and 3 times what one process saw make 2 times in the mean; their positives are added up.
    expected = 2 * rows[4:6].double().sum((0, 1)) + rows[:2].double().sum((0, 1))
    assert record.loss == pytest.approx(expected.tolist())
    assert record.positives == (6 * 2 + 2,) * 4


def _saved(balancer: Balancer) -> Balancer:
    file = io.BytesIO()
    torch.save(balancer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, copy.copy, lambda b: pickle.loads(pickle.dumps(b)), _saved], ids=str
)
def test_copies_go_on_alike_and_apart(copied: object) -> None:
    rows = losses(30)
    original = make()
    for row in rows[:10]:
        original(row)
    twin = copied(original)  # type: ignore[operator]
    assert twin.drain() == []  # what is on its way stays with the original
    later = [record for record in run(original, rows[10:]) if record.interval > 2]
    assert run(twin, rows[10:]) == later


def test_made_and_loaded_in_inference_mode() -> None:
    rows = losses(12)
    with torch.inference_mode():
        balancer = make("cov")
        balancer.load_state_dict(make("cov").state_dict())
    for row in rows:
        balancer(row.clone().requires_grad_()).backward()
    assert balancer.drain() == run(make("cov"), rows)


def test_copying_a_model_during_backward_is_harmless() -> None:
    balancer = make(MaxLoss())
    total = balancer(losses(1)[0].requires_grad_())
    copy.deepcopy(balancer)(losses(1)[0])
    total.backward()
    assert balancer.iteration == 1


# -- losses that are not finite --------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("strategy", ["rlo", "uw", "cov", "slaw"])
def test_nonfinite_losses_are_left_out_and_named(bad: float, strategy: str) -> None:
    rows = losses(12)
    rows[5, 1, 2] = bad
    rows[6, 0, 0] = bad
    balancer = make(strategy)
    for m, row in enumerate(rows, start=1):
        total = balancer(row)
        assert bool(torch.isfinite(total)) == (m not in (6, 7))
        assert bool(torch.isfinite(balancer.weights).all())
        word = str(bad)
        expected = {6: (NonFinite(6, "bbox", "P5", 0, word),), 7: (NonFinite(7, "cls", "P3", 0, word),)}
        assert balancer.nonfinite() == expected.get(m, ())
    records = balancer.drain()
    assert [record.count for record in records] == [4, 2, 4]
    assert records[1].nonfinite == (NonFinite(6, "bbox", "P5", 0, word), NonFinite(7, "cls", "P3", 0, word))
    kept = rows[[4, 7]].double().sum(1)
    assert records[1].loss == pytest.approx((2 * kept.sum(0)).tolist())
    means = [loss / records[1].divisor for loss in records[1].loss]
    assert means == pytest.approx(kept.mean(0).tolist())
    assert records[1].variance == pytest.approx(kept.var(0).tolist())
    assert records[2].nonfinite == ()


def test_an_interval_without_enough_finite_losses_decides_nothing() -> None:
    rows = losses(16)
    rows[4:8, 0, 0] = float("nan")
    rows[8:11, 0, 0] = float("nan")
    balancer = make()
    records = run(balancer, rows)
    assert [record.count for record in records] == [4, 0, 1, 4]
    assert records[1].weights == records[2].weights == records[0].weights
    assert records[1].probabilities == records[0].probabilities
    assert math.isnan(records[1].loss[0]) and math.isfinite(records[2].loss[0])
    for record in records[1:3]:
        assert all(map(math.isnan, (*record.variance, *record.variance_reduction)))
    # The fourth is compared with the first.
    fell = sum(records[3].loss) < sum(records[0].loss)
    assert records[3].reward == (1 if fell else -1)
    assert all(torch.isfinite(torch.tensor(records[3].weights)))


def test_overflowing_losses_decide_nothing() -> None:
    balancer = make(MaxLoss())
    rows = losses(8).double()
    rows[4:8, 0, 1] = torch.tensor([1e300, 2e300, 3e300, 4e300], dtype=torch.float64)
    first, second = run(balancer, rows)
    assert second.weights == first.weights
    assert second.nonfinite == ()


@pytest.mark.parametrize("strategy", ["rlo", "avw", "min_loss", "max_loss"])
def test_zero_losses(strategy: str) -> None:
    for record in run(make(strategy), torch.zeros(12, 2, 4)):
        assert record.weights == (1, 1, 1, 1)
        assert record.variance == (0, 0, 0, 0)
    rows = losses(40)
    rows[:, :, 3] = 0
    for record in run(make(strategy), rows):
        assert record.weights[3] == 1
        assert all(1 <= w <= 2.5 for w in record.weights)


# -- records ---------------------------------------------------------------------------------------


def test_reports_have_every_loss_in_order() -> None:
    rows = losses(8).double()
    balancer = make()
    for row in rows:
        balancer(row)
    first, second = balancer.reports()
    assert first.losses.tolist() == rows[:4].tolist() and second.losses.tolist() == rows[4:].tolist()
    assert balancer.reports() == []


def test_positives_are_summed() -> None:
    balancer = make()
    for m in range(8):
        balancer(LevelLosses(losses(1)[0], torch.tensor([m, 0, 1, 2])))
    first, second = balancer.drain()
    assert first.positives == (0 + 1 + 2 + 3, 0, 4, 8)
    assert second.positives == (4 + 5 + 6 + 7, 0, 4, 8)
    assert run(make(), losses(4))[0].positives is None
    for m in range(8):  # a head that found none, and so counted none
        balancer(losses(1)[0] if m == 5 else LevelLosses(losses(1)[0], torch.tensor([m, 0, 1, 2])))
    for _ in range(4):
        balancer(losses(1)[0])
    third, fourth, fifth = balancer.drain()
    assert (third.positives, fourth.positives, fifth.positives) == ((6, 0, 4, 8), (4 + 6 + 7, 0, 3, 6), None)


def test_seeds_and_groups_draw_differently() -> None:
    rows = losses(200)
    actions = [
        [record.action for record in run(make(seed=seed, group=group), rows)]
        for seed, group in ((0, "all"), (0, "all"), (1, "all"), (0, "rpn"))
    ]
    assert actions[0] == actions[1]
    assert len({tuple(a) for a in actions}) == 3


# -- several balancers -----------------------------------------------------------------------------

GROUPS = {
    "rpn": GroupNames(("P2", "P3", "P4", "P5"), ("cls", "bbox")),
    "roi": GroupNames(("P2", "P3", "P4"), ("cls",)),
}


def group_losses(m: int) -> dict[str, LevelLosses]:
    return {"rpn": LevelLosses(losses(1, m)[0]), "roi": LevelLosses(losses(1, m + 1000, 1)[0][:, :3])}


@pytest.mark.parametrize("per_term", [False, True])
def test_a_set_is_its_balancers(per_term: bool) -> None:
    together = BalancerSet(GROUPS, "max_loss", per_term=per_term, interval=4)
    names = ["rpn:cls", "rpn:bbox", "roi:cls"] if per_term else ["rpn", "roi"]
    assert list(together.balancers) == names
    alone = [
        Balancer(GROUPS[name.split(":")[0]].levels, "max_loss", interval=4, group=name,
                 terms=(name.split(":")[1],) if per_term else GROUPS[name].terms)
        for name in names
    ]  # fmt: skip
    for m in range(9):
        given = group_losses(m)
        parts = (
            [given["rpn"].values[:1], given["rpn"].values[1:], given["roi"].values]
            if per_term
            else [given["rpn"].values, given["roi"].values]
        )
        expected = [balancer(part) for balancer, part in zip(alone, parts, strict=True)]
        totals = (
            {name: together.weighted(name, part).sum() for name, part in given.items()}
            if m % 2
            else {"sum": together(given)}
        )
        assert float(sum(totals.values())) == pytest.approx(float(sum(expected)))
    assert together.drain() == [record for balancer in alone for record in balancer.drain()]


def test_per_term_of_one_group_is_named_by_term() -> None:
    balancers = BalancerSet({"all": GroupNames(LEVELS, TERMS)}, per_term=True, interval=4)
    assert list(balancers.balancers) == ["cls", "bbox"]


def test_a_sets_state_is_named_by_group() -> None:
    first, second = (BalancerSet(GROUPS, "rlo", interval=4) for _ in range(2))
    for m in range(6):
        first(group_losses(m))
    state = first.state_dict()
    assert set(state) == {"balancer:rpn._extra_state", "balancer:roi._extra_state"}
    second.load_state_dict(copy.deepcopy(state))
    third = copy.deepcopy(first)
    assert first.drain() != []
    for m in range(6, 12):
        first(group_losses(m))
        second(group_losses(m))
        third(group_losses(m))
    assert first.drain() == second.drain() == third.drain() != []


def test_a_set_names_nonfinite_losses_and_refuses_other_groups() -> None:
    balancers = BalancerSet(GROUPS, "rlo", interval=4)
    given = group_losses(0)
    given["roi"].values[0, 1] = float("nan")
    balancers(given)
    assert balancers.nonfinite() == (NonFinite(1, "cls", "P3", 0, "nan"),)
    with pytest.raises(ValueError, match=r"groups \['roi', 'rpn'\]. Found \['rpn'\]"):
        balancers({"rpn": given["rpn"]})
    with pytest.raises(ValueError, match="groups should have at least one"):
        BalancerSet({})
