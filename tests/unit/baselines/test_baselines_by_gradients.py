"""Strategies that decide by the levels' gradients: against their formulas, brute force and TorchJD itself."""

from __future__ import annotations

import builtins
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from needed import need_packages

from msbal.baselines import GradNorm, Gramian
from msbal.baselines.gramian import Weighting, project
from msbal.engine import (
    Balancer,
    BalancerSet,
    GroupNames,
    IntervalStatistics,
    LevelLosses,
    State,
    Strategy,
    make,
)
from msbal.engine.draw import generator
from msbal.engine.strategies.base import decide
from msbal.records import open_losses
from msbal.records.replay import replay

Array = np.ndarray[Any, Any]
WEIGHTINGS: tuple[str, ...] = get_args(Weighting)
torchjd = pytest.mark.usefixtures("_torchjd")


@pytest.fixture
def _torchjd() -> None:
    need_packages("torchjd")


def statistics(
    gramian: Array | None, loss: Array | None = None, weights: Array | None = None, interval: int = 1
) -> IntervalStatistics:
    k = 1 if gramian is None else len(gramian)
    given = np.ones(k) if loss is None else loss
    held = np.ones(len(given)) if weights is None else weights
    return IntervalStatistics(interval, 4, given, given[None], given, given, given, None, held, gramian)


def decided(
    strategy: Strategy, gramian: Array, state: State | None = None, t: int = 1, **options: Any
) -> tuple[Array, State]:
    before = strategy.initial_state(len(gramian)) if state is None else state
    rng = generator(7, "all", t)
    return decide(strategy, statistics(gramian, interval=t, **options), before, rng, rescale=False)


def gramian_of(gradients: Any) -> Array:
    rows = np.asarray(gradients, float)
    return rows @ rows.T


def some_gradients(kind: str, k: int = 5, seed: int = 0) -> Array:
    rows = np.random.default_rng(seed).standard_normal((k, 30)) * np.linspace(4, 1, k)[:, None]
    match kind:
        case "conflicting":
            rows[1] -= 1.5 * rows[0]
            rows[3] -= rows[2]
        case "fewer directions than levels":
            rows[3], rows[4] = rows[0] + rows[1], 2 * rows[2]
        case "one dominates":
            rows[0] *= 300
        case "tiny":
            rows *= 1e-9
    return rows


KINDS = ("ordinary", "conflicting", "fewer directions than levels", "one dominates", "tiny")


# -- grad_norm -------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.2, 1.9), min_size=2, max_size=7))
def test_all_levels_have_the_same_weighted_norm(norms: list[float]) -> None:
    rows = [[n * math.cos(i), n * math.sin(i)] for i, n in enumerate(norms)]
    weights, _ = decided(GradNorm(), gramian_of(rows))
    weighted = [w * n for w, n in zip(weights, norms, strict=True)]
    assert weighted == pytest.approx([weighted[0]] * len(norms))
    assert sum(weights) == pytest.approx(len(norms))


def test_a_level_with_hardly_a_gradient_gets_no_more_than_the_cap() -> None:
    weights, _ = decided(GradNorm(cap=8), np.diag([4.0, 1.0, 1e-20]))
    assert weights[2] / weights[0] == pytest.approx(8)
    assert weights[1] / weights[0] == pytest.approx(2)


def test_a_level_that_has_had_no_gradient_has_the_weight_1() -> None:
    weights, state = decided(GradNorm(), np.diag([4.0, 0.0, 1.0]))
    assert weights.tolist() == pytest.approx([2 / 3, 1, 4 / 3])
    weights, _ = decided(GradNorm(), np.diag([4.0, 1.0, 1.0]), state, t=2)
    assert weights[1] > weights[2] > weights[0]  # its norm is an average with the interval before
    alone, _ = decided(GradNorm(), np.diag([0.0, 3.0]))
    assert alone.tolist() == [1, 1]


@pytest.mark.parametrize("strategy", [GradNorm(), GradNorm(alpha=1.0)], ids=str)
def test_a_level_without_positives_takes_no_weight_from_the_others(strategy: Strategy) -> None:
    """Its gradient is that of the background alone, hundreds of times smaller, and would be raised to theirs."""
    seen = replace(statistics(np.diag([4.0, 1e-6, 1.0])), positives=np.array([9.0, 0.0, 3.0]))
    weights, state = decide(strategy, seen, {}, np.random.default_rng(0), rescale=False)
    assert weights.tolist() == pytest.approx([2 / 3, 1, 4 / 3])
    seen = replace(seen, positives=np.array([9.0, 1.0, 3.0]))
    weights, _ = decide(strategy, seen, state, np.random.default_rng(0), rescale=False)
    assert weights[1] > 4 * weights[2] > 0


def test_alpha_is_the_papers_balance_of_training_rates() -> None:
    """The weights are where the paper's gradient loss, by brute force over its own weights, is least."""
    norms, first, now, alpha = (
        np.array([5.0, 1.0, 2.0]),
        np.array([4.0, 2.0, 1.0]),
        np.array([1.0, 1.0, 0.8]),
        1.5,
    )
    gramian, strategy = np.diag(norms**2), GradNorm(alpha=alpha)
    weights, state = decided(strategy, gramian, loss=first)
    assert weights * norms == pytest.approx(
        weights[0] * norms[0]
    )  # all are as far as each other at the start
    weights, _ = decided(strategy, gramian, state, t=2, loss=now)

    rates = (now / first) / (now / first).mean()

    def gradient_loss(w: Array) -> float:
        """Eq 2: what the paper's weights descend; its target is held constant."""
        return float(np.abs(w * norms - (w * norms).mean() * rates**alpha / (rates**alpha).mean()).sum())

    steps = np.linspace(0.01, 2.99, 299)
    grid = [np.array([a, b, 3 - a - b]) for a, b in itertools.product(steps, steps) if a + b < 2.995]
    assert weights == pytest.approx(min(grid, key=gradient_loss), abs=0.02)


# -- averaging -------------------------------------------------------------------------------------


def test_the_gramians_of_intervals_are_averaged_whatever_their_size() -> None:
    rows = [gramian_of(some_gradients("ordinary", seed=seed)) * 1000.0**-seed for seed in range(4)]
    average, state = None, {}
    for t, gramian in enumerate(rows, start=1):
        weights, state = decided(GradNorm(smoothing=0.6), gramian, state, t)
        size = np.mean([gramian[i, i] for i in range(5)])
        average = gramian / size if average is None else 0.6 * average + 0.4 * gramian / size
        inverse = [1 / math.sqrt(average[i, i]) for i in range(5)]
        assert weights.tolist() == pytest.approx([5 * w / sum(inverse) for w in inverse])


@pytest.mark.parametrize("gramian", [None, np.zeros((3, 3))])
def test_an_interval_without_gradients_keeps_the_weights(gramian: Array | None) -> None:
    held, state = np.array([0.5, 1.0, 1.5]), {"gramian": np.eye(3).tolist()}
    found = decide(
        GradNorm(), statistics(gramian, np.ones(3), held), state, np.random.default_rng(0), rescale=False
    )
    assert (found[0].tolist(), found[1]) == (held.tolist(), state)


def test_in_training_the_gradients_of_the_weighted_losses_become_alike() -> None:
    scale, parameter = torch.tensor([4.0, 3.0, 0.5]), torch.nn.Parameter(torch.ones(3, 4))
    balancer = Balancer(["P3", "P4", "P5"], "grad_norm", interval=2, parameters=[parameter])
    for _ in range(4):
        balancer(scale * parameter.square().sum(dim=1)).backward()
    parameter.grad = None
    balancer(scale * parameter.square().sum(dim=1)).backward()
    assert parameter.grad is not None
    norms = parameter.grad.norm(dim=1)
    assert norms.tolist() == pytest.approx([norms[0].item()] * 3)


def test_each_head_and_with_per_term_each_term_is_balanced_on_its_own() -> None:
    heads = {name: GroupNames(("P3", "P4"), ("cls", "bbox")) for name in ("rpn", "roi")}
    weight = torch.nn.Parameter(torch.ones(2, 2, 2, 3))  # of each head, term and level
    balancers = BalancerSet(heads, "grad_norm", per_term=True, interval=2, parameters=[weight])
    sizes = torch.tensor([[[4.0, 1.0], [2.0, 3.0]], [[1.0, 5.0], [1.0, 1.0]]])
    for _ in range(3):
        weight.grad = None
        losses = sizes * weight.square().sum(dim=-1)
        balancers({name: LevelLosses(losses[i]) for i, name in enumerate(heads)}).backward()
    assert weight.grad is not None
    norms = weight.grad.norm(dim=-1)
    torch.testing.assert_close(norms[..., 0], norms[..., 1])
    assert norms[0, 0, 0] != pytest.approx(norms[1, 0, 0].item())


# -- gramian: TorchJD on the same matrix -----------------------------------------------------------


def own_answer(weighting: str, gramian: Array) -> Array:
    """What TorchJD says, by its own solvers and from its own defaults, rescaled."""
    from torchjd import aggregation

    makers: dict[str, Callable[[], Any]] = {
        "aligned_mtl": aggregation.AlignedMTLWeighting,
        "cagrad": lambda: aggregation.CAGradWeighting(c=0.5),
        "dualproj": aggregation.DualProjWeighting,
        "fairgrad": lambda: aggregation.FairGradWeighting(alpha=1.0),
        "gradvac": aggregation.GradVacWeighting,
        "imtl_g": aggregation.IMTLGWeighting,
        "mgda": aggregation.MGDAWeighting,
        "pcd": lambda: aggregation.PCDWeighting(beta=0.0),
        "pcgrad": aggregation.PCGradWeighting,
        "upgrad": aggregation.UPGradWeighting,
    }
    if weighting == "nash_mtl":
        values, vectors = np.linalg.eigh(gramian)
        rows = vectors * np.sqrt(np.maximum(values, 0))
        made = aggregation.NashMTL(n_tasks=len(gramian), max_norm=0.0, optim_niter=100).weighting
        found = made(torch.from_numpy(rows))
    else:
        torch.manual_seed(int(generator(7, "all", 1).integers(2**63)))
        found = makers[weighting]()(torch.from_numpy(gramian))
    raw = np.maximum(found.numpy(), 0)
    raw = np.maximum(raw * len(raw) / raw.sum(), 0.01)
    return raw * len(raw) / raw.sum()


@torchjd
@pytest.mark.filterwarnings("ignore::UserWarning")  # of NashMTL's solver
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_weights_are_torchjds_rescaled(weighting: str, kind: str) -> None:
    if weighting in ("upgrad", "dualproj"):
        need_packages("quadprog")
    if weighting == "nash_mtl" and not find_spec("ecos"):
        pytest.skip("ecos has no wheel for this Python")
    gramian = gramian_of(some_gradients(kind))
    expected = own_answer(weighting, gramian / gramian.diagonal().mean())
    weights, _ = decided(Gramian(weighting=weighting), gramian)
    # Iterative solvers stop near the answer, TorchJD's NashMTL farther from it than ours.
    near = {"nash_mtl": 2e-2, "fairgrad": 1e-4, "cagrad": 1e-4}.get(weighting, 1e-6)
    assert weights == pytest.approx(expected, abs=near)


@torchjd
def test_every_weighting_of_torchjd_is_taken_or_left_for_a_reason() -> None:
    from torchjd import aggregation

    from msbal.baselines.gramian import CLASSES

    left = {
        "ExcessMTL", "Krum", "MoDo", "SDMGrad", "CRMOGM",
        "Constant", "Mean", "Random", "Sum",
    }  # fmt: skip
    here = {name.removesuffix("Weighting") for name in aggregation.__all__ if name.endswith("Weighting")}
    assert here - {""} == left | {name.removesuffix("Weighting") for name in CLASSES.values()}


@torchjd
@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.integers(0, 2**32 - 1), st.sampled_from(WEIGHTINGS), st.sampled_from(KINDS))
def test_weights_are_above_0_and_sum_to_k(k: int, seed: int, weighting: str, kind: str) -> None:
    rows = some_gradients("ordinary" if k < 5 else kind, k, seed)
    if seed % 3 == 0:
        rows[seed % k] = 0
    weights, _ = decided(Gramian(weighting=weighting), gramian_of(rows))  # type: ignore[arg-type]
    assert weights.sum() == pytest.approx(k)
    assert (weights > 0.001).all()
    if seed % 3 == 0:
        assert weights[seed % k] == 1


# -- gramian: slow references of our own -----------------------------------------------------------


def simplex(k: int, steps: int) -> Array:
    corners = itertools.product(range(steps + 1), repeat=k - 1)
    return np.array([[*c, steps - sum(c)] for c in corners if sum(c) <= steps]) / steps


@torchjd
@pytest.mark.parametrize(("k", "steps"), [(2, 1000), (3, 150)])
@pytest.mark.parametrize("kind", ["ordinary", "opposed"])
def test_mgda_is_the_shortest_mean_of_the_gradients(k: int, steps: int, kind: str) -> None:
    rows = some_gradients("ordinary", k)
    if kind == "opposed":
        rows[1] = -0.5 * rows[0]
    gramian = gramian_of(rows)
    lengths = np.einsum("nk,kl,nl->n", simplex(k, steps), gramian, simplex(k, steps))
    patient = {"epsilon": 1e-6, "max_iters": 1000}
    weights, _ = decided(Gramian(weighting="mgda", options=patient, floor=1e-9), gramian)
    share = weights / k
    assert share @ gramian @ share <= lengths.min() + 1e-3 * gramian.diagonal().mean()


@torchjd
def test_upgrad_is_the_mean_of_projections_onto_the_dual_cone() -> None:
    """Each gradient is moved as little as possible until it conflicts with none, here by many small steps."""
    rows = some_gradients("conflicting", 4)
    gramian = gramian_of(rows)
    scaled = gramian / np.trace(gramian) + 1e-4 * np.eye(4)
    total = np.zeros(4)
    for i in range(4):
        least = np.eye(4)[i]
        v = least.copy()
        for _ in range(20000):  # projected gradient descent on v' G v over v >= u
            v = np.maximum(v - scaled @ v, least)
        total += v
        assert (scaled @ v >= -1e-9).all()
    weights, _ = decided(Gramian(), gramian)
    assert weights == pytest.approx(4 * total / total.sum(), abs=1e-6)


def test_the_projection_of_what_conflicts_with_nothing_is_itself() -> None:
    u = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    assert project(u, torch.eye(3, dtype=torch.float64)).tolist() == pytest.approx(u.tolist())


# -- gramian: chance, memory and mistakes ----------------------------------------------------------


@torchjd
@pytest.mark.parametrize("weighting", ["pcgrad", "gradvac"])
def test_what_is_drawn_is_a_function_of_seed_and_interval(weighting: str) -> None:
    rows = some_gradients("conflicting")
    rows -= 0.9 * rows.mean(axis=0)
    rows[4] = -rows[0] - rows[1]
    strategy = Gramian(weighting=weighting)  # type: ignore[arg-type]
    before = torch.get_rng_state()
    first, again, other = (decided(strategy, gramian_of(rows), t=t)[0].tolist() for t in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


@torchjd
def test_gradvac_remembers_what_torchjds_does() -> None:
    from torchjd.aggregation import GradVacWeighting

    own, strategy = GradVacWeighting(), Gramian(weighting="gradvac", smoothing=0.0)
    state = strategy.initial_state(4)
    for t in range(1, 5):
        gramian = gramian_of(some_gradients("ordinary", 4, seed=t))
        weights, state = decided(strategy, gramian, state, t)
        torch.manual_seed(int(generator(7, "all", t).integers(2**63)))
        expected = own(torch.from_numpy(gramian / gramian.diagonal().mean())).numpy()
        assert weights == pytest.approx(4 * expected / expected.sum(), abs=1e-9)


@torchjd
def test_options_reach_the_weighting() -> None:
    gramian = gramian_of(some_gradients("conflicting", 4))
    plain, _ = decided(Gramian(weighting="cagrad"), gramian)
    same, _ = decided(Gramian(weighting="cagrad", options={"c": 0.5}), gramian)
    none, _ = decided(Gramian(weighting="cagrad", options={"c": 0}), gramian)
    assert plain.tolist() == same.tolist() != none.tolist() == pytest.approx([1, 1, 1, 1])
    strategy = Gramian(options={"pref_vector": (1.0, 2.0, 3.0)})
    weights, _ = decided(strategy, np.eye(3))
    assert weights.tolist() == pytest.approx([0.5, 1, 1.5])
    weights, _ = decided(strategy, np.diag([1.0, 0.0, 1.0]))  # those of the levels that have a gradient
    assert weights.tolist() == pytest.approx([0.5, 1, 1.5])


@torchjd
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weighting": "adam"}, r"weighting should be one of aligned_mtl, .*, upgrad\. Found `adam`"),
        ({"weighting": "mgda", "options": {"c": 1}}, "options should be from epsilon, max_iters for mgda. Found c"),
        ({"weighting": "pcgrad", "options": {"c": 1}}, "from none for pcgrad"),
        ({"weighting": "nash_mtl", "options": {"alpha": 2.0}}, "from max_iters for nash_mtl. Found alpha"),
        ({"weighting": "mgda", "options": {"max_iters": 0}}, "options of mgda, .*: max_iters must be a positive"),
        ({"options": {"pref_vector": (1.0, 2.0)}}, r"upgrad takes 3 levels\. Found .* 2 rows"),
        ({"weighting": "aligned_mtl", "options": {"scale_mode": "max"}}, "Expected 'min', 'median', or 'rmse'"),
        ({"floor": 0.0}, "floor should be between 0 and 1"),
        ({"smoothing": 1.0}, "smoothing should be at least 0 and below 1"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_training(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        Balancer(["P3", "P4", "P5"], make("gramian", **options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"cap": 1.0}, {"smoothing": -0.1}])
def test_grad_norms_settings_are_checked(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} should be"):
        GradNorm(**options)


def test_without_torchjd_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.startswith("torchjd"):
            raise ModuleNotFoundError(f"No module named '{name}'")
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ValueError, match=r"pip install 'msbal\[torchjd\]'"):
        Gramian()


def test_recorded_losses_have_no_gradients_to_replay(tmp_path: Path) -> None:
    file = tmp_path / "losses.csv"
    file.write_text("P3,P4,P5\n1,2,3\n1,2,3\n")
    (losses,) = open_losses(file)
    with pytest.raises(ValueError, match="recorded losses have none"):
        next(iter(replay(losses, GradNorm(), 2)))
