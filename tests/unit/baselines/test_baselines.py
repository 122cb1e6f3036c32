"""Each baseline against its own paper's formula, written once more in plain Python."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msbal.baselines import (
    DWA,
    GLS,
    RLW,
    SLAW,
    STCH,
    UW,
    UWSO,
    Autobalance,
    CoV,
    Floor,
    Positives,
    ReLoBRaLo,
    SoftAdapt,
    Stride,
)
from msbal.engine import Balancer, LevelLosses, StepStrategy, Strategy
from msbal.engine.draw import generator

K = 5
Rows = list[list[float]]
BASELINES: list[Strategy] = [
    UW(), UWSO(), GLS(), DWA(), RLW(), CoV(), CoV(decay=0.9), SLAW(), Autobalance(decay=0.9), Positives(),
    SoftAdapt(), SoftAdapt(beta=0.1, normalized=False, loss_weighted=True), ReLoBRaLo(), STCH(), STCH(mu=0.1),
]  # fmt: skip


def stream(count: int, seed: int = 0) -> Rows:
    rng = random.Random(seed)
    return [[(i + 1) * 0.2 * (0.5 + rng.random()) * 0.99**m for i in range(K)] for m in range(count)]


def counts(count: int, seed: int = 1) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randint(1, 5 * (K - i)) for i in range(K)] for _ in range(count)]


def make(strategy: Strategy, interval: int = 4, seed: int = 3) -> Balancer:
    return Balancer([f"P{i + 3}" for i in range(K)], strategy, interval=interval, seed=seed)


def weights_used(balancer: Balancer, rows: Rows, positives: list[list[int]] | None = None) -> Rows:
    """The weight of every level at every iteration, from the gradients."""
    used = []
    for m, row in enumerate(rows):
        values = torch.tensor([row], dtype=torch.float64, requires_grad=True)
        balancer(LevelLosses(values, torch.tensor(positives[m]) if positives else None)).backward()
        assert values.grad is not None
        used.append(values.grad[0].tolist())
    return used


def sum_to_k(raw: list[float]) -> list[float]:
    return [K * w / math.fsum(raw) for w in raw]


# -- the papers' formulas --------------------------------------------------------------------------


def uw_so(rows: Rows, temperature: float = 10.0) -> Rows:
    return [sum_to_k([math.exp(1 / (temperature * loss)) for loss in row]) for row in rows]


def gls(rows: Rows) -> Rows:
    """By differences: the gradient of the geometric mean itself."""

    def mean(row: list[float]) -> float:
        return math.prod(row) ** (1 / K)

    out = []
    for row in rows:
        gradient = []
        for i in range(K):
            step = 1e-6 * row[i]
            up, down = row.copy(), row.copy()
            up[i] += step
            down[i] -= step
            gradient.append((mean(up) - mean(down)) / (2 * step))
        out.append(sum_to_k(gradient))
    return out


def by_interval(rows: Rows, decide: Callable[[Rows], list[float]], alpha: int = 4) -> Rows:
    """Each iteration's weights: `decide` of the sums of the whole intervals before it, 1 in the first interval."""
    sums = [
        [math.fsum(row[i] for row in rows[t : t + alpha]) for i in range(K)]
        for t in range(0, len(rows), alpha)
    ]
    return [decide(sums[: m // alpha]) if m >= alpha else [1.0] * K for m in range(len(rows))]


def softmax(logits: list[float]) -> list[float]:
    """Times K."""
    return sum_to_k([math.exp(logit) for logit in logits])


def dwa(rows: Rows, temperature: float = 2.0) -> Rows:
    def decide(sums: Rows) -> list[float]:
        if len(sums) < 2:
            return [1.0] * K
        return softmax([now / before / temperature for before, now in zip(*sums[-2:], strict=True)])

    return by_interval(rows, decide)


def softadapt(rows: Rows, beta: float = 1.0, normalized: bool = True, loss_weighted: bool = False) -> Rows:
    def decide(sums: Rows) -> list[float]:
        if len(sums) < 2:
            return [1.0] * K
        before, now = sums[-2:]
        s = [now[i] - before[i] for i in range(K)]
        if normalized:
            s = [one / math.fsum(map(abs, s)) for one in s]
        return sum_to_k([(now[i] if loss_weighted else 1) * math.exp(beta * s[i]) for i in range(K)])

    return by_interval(rows, decide)


def relobralo(
    rows: Rows, decay: float = 0.9, lookback: float = 0.1, temperature: float = 1.0, seed: int = 3
) -> Rows:
    """The authors' loop, with their alpha = 0 at the second call, from the beginning for every interval."""

    def decide(sums: Rows) -> list[float]:
        weights = [1.0] * K
        for t in range(2, len(sums) + 1):
            first, before, now = sums[0], sums[t - 2], sums[t - 1]
            to_first = softmax([now[i] / (first[i] * temperature) for i in range(K)])
            to_last = softmax([now[i] / (before[i] * temperature) for i in range(K)])
            a = 0.0 if t == 2 else decay
            r = 0 if generator(seed, "all", t).random() < lookback else 1
            weights = [a * (r * weights[i] + (1 - r) * to_first[i]) + (1 - a) * to_last[i] for i in range(K)]
        return weights

    return by_interval(rows, decide)


def stch(
    rows: Rows,
    mu: float = 1.0,
    preference: tuple[float, ...] = (1.0,) * K,
) -> Rows:
    """By differences: the gradient of the smooth maximum itself."""
    c = sum_to_k(list(preference))

    def decide(sums: Rows) -> list[float]:
        unit = math.fsum(sums[0]) / K

        def maximum(loss: list[float]) -> float:
            return mu * math.log(math.fsum(math.exp(c[i] * loss[i] / unit / mu) for i in range(K)))

        gradient = []
        for i in range(K):
            step = 1e-5 * unit
            up, down = sums[-1].copy(), sums[-1].copy()
            up[i] += step
            down[i] -= step
            gradient.append((maximum(up) - maximum(down)) / (2 * step))
        return sum_to_k(gradient)

    return by_interval(rows, decide)


def rlw(rows: Rows, seed: int = 3, alpha: int = 4) -> Rows:
    # NumPy's normal numbers are not written once more: the key and the counter are checked in tests/reference.
    out = []
    for m in range(len(rows)):
        drawn = generator(seed, "all", m // alpha + 1).standard_normal((alpha, K))
        out.append(sum_to_k([math.exp(z) for z in drawn[m % alpha]]))
    return out


def cov(rows: Rows) -> Rows:
    """From the whole history at each iteration, without Welford."""
    ratios: list[list[float]] = [[] for _ in range(K)]
    out = []
    for m, row in enumerate(rows):
        if m < 2:
            out.append([1.0] * K)
        else:
            raw = []
            for i in range(K):
                mean = math.fsum(ratios[i]) / m
                variance = math.fsum((ratio - mean) ** 2 for ratio in ratios[i]) / m
                raw.append(math.sqrt(variance + 1e-8) / mean)
            out.append(sum_to_k(raw))
        for i in range(K):
            before = [earlier[i] for earlier in rows[:m]]
            ratios[i].append(row[i] / (math.fsum(before) / m) if m else 1.0)
    return out


def cov_with_decay(rows: Rows, decay: float = 0.9) -> Rows:
    """The authors' loop."""
    mean_loss, mean_ratio, squares = list(rows[0]), [0.0] * K, [0.0] * K
    out = []
    for m, row in enumerate(rows):
        ratio = [row[i] / mean_loss[i] for i in range(K)]
        if m <= 1:
            out.append([1.0] * K)
        else:
            out.append(sum_to_k([math.sqrt(squares[i] / m + 1e-8) / mean_ratio[i] for i in range(K)]))
        keep = 0.0 if m == 0 else decay
        for i in range(K):
            new = keep * mean_ratio[i] + (1 - keep) * ratio[i]
            squares[i] += (ratio[i] - mean_ratio[i]) * (ratio[i] - new)
            mean_ratio[i] = new
            mean_loss[i] = keep * mean_loss[i] + (1 - keep) * row[i]
    return out


def slaw(rows: Rows, beta: float = 0.99) -> Rows:
    """The authors' code: both averages plain over the first 1 / (1 - beta) iterations, then exponential."""
    a, b = [0.0] * K, [0.0] * K
    out = []
    for n, row in enumerate(rows, start=1):
        keep = (n - 1) / n if n <= round(1 / (1 - beta)) else beta
        a = [keep * a[i] + (1 - keep) * row[i] ** 2 for i in range(K)]
        b = [keep * b[i] + (1 - keep) * row[i] for i in range(K)]
        out.append(sum_to_k([1 / math.sqrt(a[i] - b[i] ** 2) for i in range(K)]) if n > 1 else [1.0] * K)
    return out


def autobalance(rows: Rows, decay: float = 0.9) -> Rows:
    balance = [4.0, 1.0, 0.25, 0.06, 0.02]
    out = []
    for row in rows:
        out.append(sum_to_k(balance))
        balance = [decay * b + (1 - decay) / loss for b, loss in zip(balance, row, strict=True)]
        balance = [b / balance[1] for b in balance]
    return out


@pytest.mark.parametrize(
    ("strategy", "formula"),
    [
        (UWSO(), uw_so),
        (UWSO(temperature=2.5), lambda rows: uw_so(rows, 2.5)),
        (GLS(), gls),
        (DWA(), dwa),
        (DWA(temperature=0.5), lambda rows: dwa(rows, 0.5)),
        (RLW(), rlw),
        (CoV(), cov),
        (CoV(decay=0.9), cov_with_decay),
        (SLAW(), slaw),
        (SLAW(decay=0.8), lambda rows: slaw(rows, 0.8)),
        (Autobalance(decay=0.9), autobalance),
        (SoftAdapt(), softadapt),
        (SoftAdapt(beta=-2.0), lambda rows: softadapt(rows, -2.0)),
        (SoftAdapt(beta=0.1, normalized=False), lambda rows: softadapt(rows, 0.1, normalized=False)),
        (SoftAdapt(loss_weighted=True), lambda rows: softadapt(rows, loss_weighted=True)),
        (ReLoBRaLo(), relobralo),
        (ReLoBRaLo(0.5, 0.5, 0.2), lambda rows: relobralo(rows, 0.5, 0.5, 0.2)),
        (STCH(), stch),
        (STCH(mu=0.3), lambda rows: stch(rows, 0.3)),
        (STCH(0.5, (5, 4, 3, 2, 1)), lambda rows: stch(rows, 0.5, (5, 4, 3, 2, 1))),
    ],
)
def test_formula(strategy: Strategy, formula: Callable[[Rows], Rows]) -> None:
    rows = stream(30)
    used = weights_used(make(strategy), rows)
    for ours, theirs in zip(used, formula(rows), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
        assert sum(ours) == pytest.approx(K)
    assert used[-1] != pytest.approx([1.0] * K, rel=1e-3)


def test_slaw_weighs_by_spread_not_by_size_from_the_start() -> None:
    """Two levels that vary alike, one ten times as large, soon have the same weight."""
    rng = random.Random(0)
    rows = [[1 + rng.gauss(0, 0.1), 10 + rng.gauss(0, 0.1)] for _ in range(60)]
    used = weights_used(Balancer(["a", "b"], SLAW(), interval=4), rows)
    assert used[0] == [1, 1]
    assert used[-1] == pytest.approx([1, 1], abs=0.15)


def test_positives_formula() -> None:
    rows, positives = stream(30), counts(30)
    used = weights_used(make(Positives()), rows, positives)
    seen = [0] * K
    for ours, now in zip(used, positives, strict=True):
        seen = [a + b for a, b in zip(seen, now, strict=True)]
        spread = max(seen) - min(seen)
        assert ours == pytest.approx(sum_to_k([2 - (n - min(seen)) / spread for n in seen]))


def test_positives_needs_positives() -> None:
    balancer = make(Positives())
    with pytest.raises(ValueError, match="positives of each level"):
        balancer(torch.ones(K))
    assert balancer.iteration == 0, "what is refused is no iteration"


def test_uw_learns_as_the_papers_objective() -> None:
    """Against the objective written out, both under the same optimizer, with losses that depend on a model."""
    rows = [torch.tensor(row) for row in stream(200)]
    ours, theirs = torch.ones(K, requires_grad=True), torch.ones(K, requires_grad=True)
    balancer = make(UW())
    s = torch.zeros(K, requires_grad=True)
    (learned,) = balancer.parameters()
    optimizer = torch.optim.SGD([learned], lr=0.1)
    reference = torch.optim.SGD([s], lr=0.1)
    for row in rows:
        total = balancer((ours * row).unsqueeze(0))
        used = torch.softmax(-s.detach(), 0) * K  # exp(-s) / 2, rescaled
        assert total.item() == pytest.approx((used * row).sum().item(), rel=1e-5)
        assert total.dtype == torch.float32
        optimizer.zero_grad()
        ours.grad = None
        total.backward()
        optimizer.step()
        assert ours.grad is not None
        assert ours.grad.tolist() == pytest.approx((used * row).tolist(), rel=1e-5)

        objective = (torch.exp(-s) * (theirs * row).detach() / 2 + s / 2).sum()
        reference.zero_grad()
        objective.backward()
        reference.step()
        assert learned.tolist() == pytest.approx(s.tolist(), rel=1e-4, abs=1e-6)
    # The optimum of the paper's objective is s = log L.
    assert learned.tolist() == sorted(learned.tolist())
    assert float(learned.detach().std()) > 0.1


def test_uw_gives_its_parameter_to_the_optimizer_alone() -> None:
    balancer = make(UW(initial=0.5))
    (name, parameter), *others = balancer.named_parameters()
    assert (name, others) == ("strategy_log_variance", [])
    assert parameter.tolist() == [0.5] * K
    assert list(make(GLS()).parameters()) == []


# -- what holds for all of them --------------------------------------------------------------------


@pytest.mark.parametrize("strategy", BASELINES, ids=str)
def test_a_level_whose_loss_is_always_zero_is_harmless(strategy: Strategy) -> None:
    rows, positives = stream(60), counts(60)
    for row, now in zip(rows, positives, strict=True):
        row[4], now[4] = 0.0, 0
    balancer = make(strategy)
    used = weights_used(balancer, rows, positives)
    for weights in used:
        assert all(math.isfinite(w) and 0 <= w <= K for w in weights)
        assert weights[4] == 1
        assert sum(weights) == pytest.approx(K)
    json.dumps(balancer.get_extra_state()["state"], allow_nan=False)
    # The others are weighed as if it were not there.
    if isinstance(strategy, UWSO | GLS | SLAW | CoV):
        four = Balancer(["a", "b", "c", "d"], strategy, interval=4, seed=3)
        without = weights_used(four, [row[:4] for row in rows], [now[:4] for now in positives])
        for ours, theirs in zip(used, without, strict=True):
            assert ours[:4] == pytest.approx(theirs)


@pytest.mark.parametrize("strategy", BASELINES, ids=str)
def test_levels_without_positives_have_a_weight_of_one(strategy: Strategy) -> None:
    rows, positives = stream(40), counts(40)
    rng = random.Random(5)
    for now in positives:
        now[rng.randrange(K)] = 0
    if not isinstance(strategy, StepStrategy):
        positives = [[1, 1, 0, 1, 1]] * 40
    used = weights_used(make(strategy), rows, positives)
    for weights, now in zip(used, positives, strict=True):
        assert sum(weights) == pytest.approx(K)
        for i in range(K):
            assert now[i] > 0 or weights[i] == 1


@pytest.mark.parametrize("strategy", BASELINES, ids=str)
def test_nothing_but_zeros(strategy: Strategy) -> None:
    used = weights_used(make(strategy), [[0.0] * K] * 9, [[0] * K] * 9)
    assert used == [[1.0] * K] * 9


@pytest.mark.parametrize("strategy", BASELINES, ids=str)
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_tiny_and_huge_losses(strategy: Strategy, size: float) -> None:
    rows = [[size * loss for loss in row] for row in stream(20)]
    for weights in weights_used(make(strategy), rows, counts(20)):
        assert all(math.isfinite(w) for w in weights)
        assert sum(weights) == pytest.approx(K)


@pytest.mark.parametrize("strategy", BASELINES, ids=str)
@pytest.mark.parametrize("at", [1, 6, 8])
def test_resume_is_exact(strategy: Strategy, at: int) -> None:
    rows, positives = stream(20), counts(20)

    def train(balancer: Balancer, first: int, last: int) -> Rows:
        used = []
        for m in range(first, last):
            used += weights_used(balancer, rows[m : m + 1], positives[m : m + 1])
            for parameter in balancer.parameters():
                assert parameter.grad is not None
                parameter.data -= 0.1 * parameter.grad
                parameter.grad = None
        return used

    whole, first, second = make(strategy), make(strategy), make(strategy)
    expected = train(whole, 0, 20)
    train(first, 0, at)
    second.load_state_dict(first.state_dict())
    assert train(second, at, 20) == expected[at:]
    first.drain()
    assert second.drain() == whole.drain()[at // 4 :]


@pytest.mark.parametrize("strategy", BASELINES, ids=str)
def test_an_iteration_that_is_not_finite_leaves_no_trace(strategy: Strategy) -> None:
    if isinstance(strategy, RLW) or not isinstance(strategy, StepStrategy):
        pytest.skip("weighs by the count of iterations, or by whole intervals")
    rows, positives = stream(12), counts(12)
    broken = [*rows[:6], [1.0, float("nan"), 1.0, float("inf"), 1.0], *rows[6:]]
    clean, dirty = make(strategy, interval=50), make(strategy, interval=50)
    expected = weights_used(clean, rows, positives)
    used = weights_used(dirty, broken, [*positives[:6], [0] * K, *positives[6:]])
    assert used[:6] + used[7:] == expected
    gradients = [[p.grad.tolist() for p in b.parameters() if p.grad is not None] for b in (clean, dirty)]
    assert gradients[0] == gradients[1]


def test_records_hold_the_last_weights() -> None:
    balancer = make(UWSO())
    used = weights_used(balancer, stream(8))
    first, second = balancer.drain()
    assert first.action == "uw_so" and first.reward is None
    assert first.weights == pytest.approx(used[3]) and second.weights == pytest.approx(used[7])


@pytest.mark.parametrize(
    ("cls", "options", "says"),
    [
        (UWSO, {"temperature": 0.0}, "temperature"),
        (SoftAdapt, {"beta": math.inf}, "beta"),
        (ReLoBRaLo, {"decay": 1.0}, "decay"),
        (ReLoBRaLo, {"lookback": 1.1}, "lookback"),
        (ReLoBRaLo, {"temperature": 0.0}, "temperature"),
        (STCH, {"mu": 0.0}, "mu"),
        (STCH, {"preference": (1.0, 0.0)}, "preference"),
        (Floor, {"share": 0.0}, "share"),
        (Floor, {"cap": 1.0}, "cap"),
        (DWA, {"temperature": -1.0}, "temperature"),
        (CoV, {"decay": 1.0}, "decay"),
        (SLAW, {"decay": 0.0}, "decay"),
        (SLAW, {"floor": 0.0}, "floor"),
        (Autobalance, {"decay": 2.0}, "decay"),
        (Autobalance, {"reference": -1}, "reference"),
        (Autobalance, {"initial": (1.0, 0.0)}, "initial"),
        (Stride, {"q": 10.5}, "q"),
        (Stride, {"q": math.nan}, "q"),
        (Stride, {"strides": (8.0, 0.0)}, "strides"),
    ],
)
def test_hyperparameters_refused(cls: type[Strategy], options: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says} should be .*Found"):
        cls(**options)


@pytest.mark.parametrize(
    "strategy",
    [
        Autobalance(reference=5), Autobalance(initial=(1, 1)), Stride(strides=(8, 16)), STCH(preference=(1, 2)),
        Floor(share=0.21),
    ],
)  # fmt: skip
def test_levels_refused(strategy: Strategy) -> None:
    with pytest.raises(ValueError, match=r"level.*Found"):
        make(strategy)


def test_autobalance_starts_as_yolov5() -> None:
    def start(levels: int) -> list[float]:
        balance: list[float] = Autobalance().initial_state(levels)["balance"]
        return balance

    assert start(3) == [4, 1, 0.4]
    assert start(4) == [4, 1, 0.25, 0.06]
    assert start(5) == [4, 1, 0.25, 0.06, 0.02]
    assert start(7) == [4, 1, 0.25, 0.06, 0.02, 0.02, 0.02]


# -- stride ----------------------------------------------------------------------------------------


def test_stride_is_the_five_level_list_of_yolov5() -> None:
    (weights,) = weights_used(make(Stride()), stream(1))
    assert sum(weights) == pytest.approx(K)
    assert [4 * w / weights[0] for w in weights] == pytest.approx([4, 1, 0.25, 0.06, 0.02], abs=0.005)


def test_stride_holds_from_the_first_iteration_to_the_last() -> None:
    used = weights_used(make(Stride(q=1.0)), stream(13))
    assert all(row == used[0] for row in used)
    assert [w / used[0][0] for w in used[0]] == pytest.approx([1, 2, 4, 8, 16])


@pytest.mark.parametrize(
    ("levels", "ratio"),
    [
        (("P2", "P3", "P4", "P5"), [1, 2, 4, 8]),
        (("P4", "P5"), [1, 2]),
        (("P5a", "P5b", "P6"), [1, 1, 2]),
        (("P4", "S107", "S160.5"), [1, 107 / 16, 160.5 / 16]),
    ],
)
def test_stride_reads_the_strides_in_the_names(levels: tuple[str, ...], ratio: list[float]) -> None:
    weights = Balancer(levels, Stride(q=1.0), interval=4).strategy.initial_weights(len(levels))
    assert weights / weights[0] == pytest.approx(ratio)
    assert weights.sum() == pytest.approx(len(levels))


@pytest.mark.parametrize("levels", [("fine", "coarse"), ("P3", "res5"), ("P3", "S0"), ("P3", "p4")])
def test_stride_does_not_guess_where_a_name_does_not_say_it(levels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=f"strides should be given.*Found levels {', '.join(levels)}"):
        Balancer(levels, "stride", interval=4)
    assert Balancer(levels, Stride(strides=(8, 32)), interval=4).strategy.initial_weights(2) == pytest.approx(
        [32 / 17, 2 / 17]
    )


# -- softadapt, relobralo, stch --------------------------------------------------------------------


def intervals(strategy: Strategy, sums: Rows, positives: Rows | None = None) -> Rows:
    """The weights after each interval, whose losses are these."""
    levels = [f"P{i + 3}" for i in range(len(sums[0]))]
    balancer = Balancer(levels, strategy, interval=2, seed=0)
    for t, total in enumerate(sums):
        for _ in range(2):
            values = torch.tensor([total], dtype=torch.float64) / 2
            balancer(LevelLosses(values, torch.tensor(positives[t]) if positives else None))
    return [list(record.weights) for record in balancer.drain()]


@pytest.mark.parametrize(
    "strategy", [SoftAdapt(), SoftAdapt(beta=0.1, normalized=False), ReLoBRaLo()], ids=str
)
def test_the_level_that_falls_least_counts_most(strategy: Strategy) -> None:
    """Also where all fall, for which the published code of SoftAdapt, dividing by a negative sum, says the opposite."""
    _, weights = intervals(strategy, [[10, 10, 10], [9, 8, 5]])
    assert weights == sorted(weights, reverse=True) and weights[0] > 1.02 > 0.98 > weights[2]


def test_softadapt_with_beta_0_weighs_all_alike() -> None:
    assert intervals(SoftAdapt(beta=0.0), [[3, 2, 1], [1, 2, 3]])[-1] == [1, 1, 1]


def test_relobralo_looks_back_by_chance_alone() -> None:
    """Looking back always or never differ; and where nothing has changed since the first interval, all are alike."""
    sums = [[10, 10, 10], [5, 8, 9], [5, 8, 9], [5, 8, 9]]
    always, never = (intervals(ReLoBRaLo(decay=0.5, lookback=p), sums)[-1] for p in (1.0, 0.0))
    assert always[0] < never[0] < 1, "what fell at first counts less for as long as one looks back"
    assert intervals(ReLoBRaLo(), [[3, 2, 1]] * 5)[-1] == pytest.approx([1, 1, 1])


def test_relobralo_compares_a_level_with_the_first_interval_that_it_is_in() -> None:
    strategy = ReLoBRaLo(decay=0.5, lookback=1.0)
    late = intervals(strategy, [[8, 8, 0], [6, 6, 0], [4, 4, 10], [2, 2, 9], [1, 1, 9]])
    assert all(weights[2] == 1 for weights in late[:3])
    assert late[3][2] > late[3][0] == late[3][1]
    assert all(sum(weights) == pytest.approx(3) for weights in late)


def test_stch_leaves_the_largest_loss_alone_as_mu_goes_to_0() -> None:
    (weights,) = intervals(STCH(mu=0.01), [[1, 3, 2]])
    assert weights == pytest.approx([0, 3, 0])
    (weights,) = intervals(STCH(mu=1000.0), [[1, 3, 2]])
    assert weights == pytest.approx([1, 1, 1], abs=0.01)


def test_stch_is_torchjds() -> None:
    """Its preferences sum to 1, ours to K; f is in units of the first interval's mean loss."""
    theirs = pytest.importorskip("torchjd.scalarization")
    first, now = [4.0, 2.0, 1.0, 0.5, 0.5], [2.0, 1.5, 0.2, 0.4, 0.1]
    preference = torch.tensor([1.0, 2.0, 3.0, 2.0, 2.0])
    unit = sum(first) / K
    f = torch.tensor(now).div(unit).requires_grad_()
    scalarizer = theirs.STCH(0.5 / K, preference / preference.sum())
    scalarizer(f).backward()
    assert f.grad is not None
    strategy = STCH(0.5, tuple(preference.tolist()))
    assert intervals(strategy, [first, now])[-1] == pytest.approx(sum_to_k(f.grad.tolist()), rel=1e-5)


def test_stch_takes_only_the_ratios_of_the_preference() -> None:
    sums = [[1, 3, 2], [1, 2, 2]]
    assert intervals(STCH(preference=(1, 2, 3)), sums) == intervals(STCH(preference=(2, 4, 6)), sums)


# -- floor -----------------------------------------------------------------------------------------


def test_floor() -> None:
    """Shares of 0.5, 0.39, 0.08, 0.02, 0.01: those below 0.1 are raised to it, by at most 5."""
    (weights,) = intervals(Floor(), [[50, 39, 8, 2, 1]])
    assert weights == pytest.approx([1, 1, 1.25, 5, 5])
    (weights,) = intervals(Floor(share=0.2, cap=100), [[20, 20, 20, 39, 1]])
    assert weights == pytest.approx([1, 1, 1, 1, 20]), "a share of tau is no share below"


def test_floor_raises_no_level_without_positives() -> None:
    (weights,) = intervals(Floor(), [[50, 39, 8, 2, 0]], [[9, 9, 0, 1, 1]])
    assert weights == pytest.approx([1, 1, 1, 0.1 / (2 / 99), 1])
    assert intervals(Floor(), [[0, 0, 0]]) == [[1, 1, 1]]


# -- what holds for those that decide once an interval ---------------------------------------------

INTERVAL = [
    DWA(), SoftAdapt(), SoftAdapt(loss_weighted=True), ReLoBRaLo(), ReLoBRaLo(lookback=0.5), STCH(), STCH(mu=0.1),
    Floor(),
]  # fmt: skip
some_losses = st.lists(st.lists(st.floats(0.01, 100), min_size=K, max_size=K), min_size=2, max_size=6)


@settings(max_examples=20, deadline=None)
@given(some_losses, st.permutations(range(K)), st.sampled_from(INTERVAL))
def test_another_order_of_levels_gives_the_same_in_that_order(
    sums: Rows, order: list[int], strategy: Strategy
) -> None:
    expected = intervals(strategy, sums)
    found = intervals(strategy, [[row[i] for i in order] for row in sums])
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx([theirs[i] for i in order], rel=1e-6, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(some_losses, st.sampled_from([1e-12, 0.5, 1e15]), st.sampled_from(INTERVAL))
def test_the_unit_of_the_losses_does_not_matter(sums: Rows, unit: float, strategy: Strategy) -> None:
    found = intervals(strategy, [[unit * loss for loss in row] for row in sums])
    for ours, theirs in zip(found, intervals(strategy, sums), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(some_losses, st.sampled_from([DWA(), ReLoBRaLo(), ReLoBRaLo(lookback=0.5)]))
def test_the_unit_of_one_level_does_not_matter_to_ratios(sums: Rows, strategy: Strategy) -> None:
    found = intervals(strategy, [[row[0], 1000 * row[1], *row[2:]] for row in sums])
    for ours, theirs in zip(found, intervals(strategy, sums), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9)
