"""Looking several times: the levels, what is decided at a look, and that it stays decided."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msbal.ablation.grid import Cell, Comparison, Grid
from msbal.ablation.statistics.conclude import Study, conclude
from msbal.ablation.statistics.conclusion import Conclusion
from msbal.ablation.statistics.paired import paired_tests
from msbal.ablation.statistics.samples import pair, summarize
from msbal.ablation.statistics.sequential import (
    expected_seeds,
    means_at,
    nominal_level,
    p_values_at,
    sequential_p,
    sequential_tests,
    smallest_p,
)
from msbal.ablation.study import course

LOOKS = (3, 5, 8, 12)
TABLE = Path(__file__).parents[2] / "study" / "sequential_levels.csv"
B, C = Comparison("b", "a"), Comparison("c", "a")


def study_of(runs: dict[str, list[float | None]], looks: tuple[int, ...] = LOOKS, **keys: Any) -> Study:
    """A study of runs by arm and seed; the first arm is the baseline, and a run that is None is still to come."""
    base, *others = runs
    summaries = {
        arm: summarize({seed: v for seed, v in enumerate(values) if v is not None})
        for arm, values in runs.items()
    }
    seeds = tuple(range(looks[-1]))
    crashed = keys.get("crashed", {})
    unfinished = {
        arm: [s for s in seeds if s not in summaries[arm].values and s not in crashed.get(arm, ())]
        for arm in runs
    }
    comparisons = [Comparison(arm, base) for arm in others]
    return Study(
        summaries, comparisons, [list(runs)], 0.005, looks, seeds=seeds, unfinished=unfinished, **keys
    )


def concluded(runs: dict[str, list[float | None]], **keys: Any) -> dict[Comparison, Conclusion]:
    return conclude(study_of(runs, **keys))


def noisy(count: int, sd: float, mean: float = 0.0) -> list[float]:
    """Differences with exactly this mean and standard deviation over the first three, and about it later."""
    steps = [mean - sd, mean, mean + sd, *(mean + sd * (-1) ** i for i in range(count))]
    return steps[:count]


# -- levels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", ["3 5 8 12", pytest.param("", marks=pytest.mark.release)])
def test_the_table_of_levels_is_that_of_the_program(looks: str) -> None:
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if looks in ("", row["looks"])]
    assert len(rows) >= 8
    for row in rows:
        at = tuple(map(int, row["looks"].split()))
        assert nominal_level(0.05 / int(row["comparisons"]), at) == pytest.approx(
            float(row["level of a look"]), rel=0.01
        )


def test_with_many_seeds_the_level_is_pococks() -> None:
    # Pocock 1977, table 1: four equally spaced looks at a normal mean, 5 %.
    smallest = smallest_p((100, 200, 300, 400), 20_000)
    assert smallest[int(0.05 * len(smallest)) - 1] == pytest.approx(0.0182, rel=0.05)


def test_all_looks_together_err_as_often_as_said() -> None:
    p = p_values_at(np.random.default_rng(0).standard_normal((100_000, 12)), LOOKS).min(axis=1)
    for error in (0.2, 0.05, 0.01):
        assert (p <= nominal_level(error, LOOKS)).mean() == pytest.approx(error, rel=0.07)


def test_one_look_is_the_plain_test() -> None:
    differences = {B: noisy(5, 0.004, 0.004), C: noisy(5, 0.004, -0.001)}
    summaries = {"a": summarize(dict.fromkeys(range(5), 0.3))} | {
        each.arm: summarize({s: 0.3 + d for s, d in enumerate(ds)}) for each, ds in differences.items()
    }
    pairs = {each: pair(summaries["a"], summaries[each.arm]) for each in (B, C)}
    plain, looked = paired_tests(pairs), sequential_tests({5: pairs}, [B, C], [5], 0.005)
    for each in (B, C):
        assert looked[each].p == pytest.approx(plain[each].p, rel=0.03)
        assert looked[each].interval == pytest.approx(plain[each].interval, rel=0.05)
        assert looked[each].inner == pytest.approx(plain[each].inner, rel=0.05)


def test_an_interval_excludes_zero_where_p_shows_a_difference() -> None:
    seen = 0
    for mean in np.linspace(0.004, 0.012, 41):
        pairs = {B: noisy(5, 0.002, 0.05), C: noisy(5, 0.004, float(mean))}
        base = summarize(dict.fromkeys(range(5), 0.3))
        found = {
            each: pair(base, summarize({s: 0.3 + d for s, d in enumerate(ds)})) for each, ds in pairs.items()
        }
        for tested in sequential_tests({5: found}, [B, C], [5, 8], 0.005).values():
            low, high = tested.interval
            assert (tested.p < 0.05) == (not low < 0 < high)
            seen += low == 0
    assert seen, "Holm's second step shows some that Bonferroni's interval leaves open"


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-9, 1.0), st.floats(1e-9, 1.0))
def test_a_smaller_p_is_a_smaller_p_over_all_looks(p: float, q: float) -> None:
    low, high = sorted((p, q))
    assert low <= sequential_p(low, LOOKS) <= sequential_p(high, LOOKS) <= min(1.0, 4 * high)


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-6, 0.5))
def test_the_level_is_the_p_turned_round(error: float) -> None:
    level = nominal_level(error, LOOKS)
    assert error / 4 <= level <= error
    assert sequential_p(level, LOOKS) == pytest.approx(error, rel=0.02, abs=2e-6) or error < 1e-4


def test_means_are_those_of_each_study_by_itself() -> None:
    differences = np.random.default_rng(1).standard_normal((4, 12))
    mean, se = means_at(differences, LOOKS)
    for study in range(4):
        for k, look in enumerate(LOOKS):
            values = list(differences[study, :look])
            assert mean[study, k] == pytest.approx(statistics.fmean(values))
            assert se[study, k] == pytest.approx(statistics.stdev(values) / look**0.5)


@pytest.mark.parametrize(("effect", "seeds"), [(2, 6.0), (3, 4.7), (5, 4.0)])
def test_large_effects_end_early(effect: float, seeds: float) -> None:
    count, better = expected_seeds(LOOKS, effect * 0.004, 0.005, 0.004)
    assert count < seeds and better > 0.99


def test_no_difference_ends_early_where_the_gain_is_large() -> None:
    count, better = expected_seeds(LOOKS, 0.0, 0.012, 0.004)
    assert count < 4 and better < 0.025


# -- decisions ---------------------------------------------------------------------------------------


def test_what_was_decided_stays_whatever_comes_later() -> None:
    clear = noisy(3, 0.001, 0.03)
    runs: dict[str, list[float | None]] = {"a": [0.3] * 12, "b": [0.3 + d for d in clear]}
    early = concluded(runs)[B]
    assert (
        early.verdict == "better by at least the gain" and early.tested is not None and early.tested.look == 3
    )
    runs["b"] = [*runs["b"], *(0.1,) * 9]
    late = concluded(runs)[B]
    assert late.tested == early.tested and late.paired == early.paired and late.verdict == early.verdict


def test_an_open_comparison_stands_as_at_the_newest_look() -> None:
    for count, look in ((2, None), (3, 3), (4, 3), (5, 5), (7, 5), (8, 8), (12, 12)):
        differences = noisy(count, 0.02)
        found = concluded({"a": [0.3] * count, "b": [0.3 + d for d in differences]})[B]
        if look is None:
            assert found.verdict == "unknown" and found.reason == "no look"
            continue
        assert found.verdict == "cannot tell yet" and found.tested is not None
        assert found.tested.look == look and found.paired.n == look
        assert found.tested.mean == pytest.approx(statistics.fmean(differences[:look]))


def test_a_look_waits_for_every_open_comparison_and_for_no_decided_one() -> None:
    clear = [0.3 + d for d in noisy(3, 0.001, 0.03)]
    open_ = [0.3 + d for d in noisy(5, 0.02)]
    # c has a run less than the look at 3 needs: neither is looked at.
    found = concluded({"a": [0.3] * 3, "b": clear, "c": open_[:2]})
    assert found[B].tested is None and found[C].tested is None
    # b was decided after 3 and has no later runs; c goes on.
    found = concluded({"a": [0.3] * 5, "b": clear, "c": open_})
    assert [found[each].tested.look for each in (B, C)] == [3, 5]  # type: ignore[union-attr]
    assert found[B].unpaired == (), "its later seeds are not missing"


def test_a_failed_run_holds_up_no_look() -> None:
    values: list[float | None] = [0.3 + d for d in noisy(5, 0.02)]
    values[1] = None
    runs: dict[str, list[float | None]] = {"a": [0.3] * 5, "b": values}
    assert concluded(runs)[B].tested is None
    found = concluded(runs, crashed={"b": (1,)})[B]
    assert found.tested is not None and found.tested.look == 5 and found.paired.n == 4


def test_a_gain_that_is_ruled_out_is_decided() -> None:
    found = concluded({"a": [0.3] * 5, "b": [0.3 + d for d in noisy(5, 0.001)]})[B]
    assert found.verdict == "no difference as large as the gain"
    assert found.tested is not None and found.tested.look == 3


def test_a_baseline_of_zero_decides_nothing() -> None:
    found = concluded({"a": [0.0] * 3, "b": noisy(3, 0.001, 0.03)})[B]
    assert found.tested is None and found.verdict == "unknown"


def test_decisions_are_the_same_from_the_files_of_any_later_time() -> None:
    draws = np.random.default_rng(3)
    for _ in range(20):
        base = list(0.3 + draws.normal(0, 0.003, 12))
        runs = {arm: list(0.3 + gain + draws.normal(0, 0.003, 12)) for arm, gain in (("b", 0.01), ("c", 0.0))}
        decided: dict[Comparison, Any] = {}
        for count in range(2, 13):
            found = concluded({"a": base[:count], "b": runs["b"][:count], "c": runs["c"][:count]})
            for each in decided:
                assert found[each].tested == decided[each].tested
            decided |= {e: f for e, f in found.items() if f.verdict not in ("cannot tell yet", "unknown")}


# -- reports before the end --------------------------------------------------------------------------


def test_with_one_look_a_seed_counts_once_every_arm_has_run() -> None:
    values = [0.3 + d for d in noisy(5, 0.01)]
    runs: dict[str, list[float | None]] = {"a": [0.3] * 5, "b": [*values], "c": [*values[:3], None, None]}
    study = study_of(runs, (5,))
    assert study.partial == (3, 4)
    assert [conclude(study)[each].paired.n for each in (B, C)] == [3, 3]
    # A failed run is not waited for.
    study = study_of(runs, (5,), crashed={"c": (3,)})
    assert study.partial == (4,)
    assert [conclude(study)[each].paired.n for each in (B, C)] == [4, 3]


def test_how_far_a_study_has_come_is_said() -> None:
    baselines = {"a": "a", "b": "a", "c": "a"}
    grid = Grid(tuple(baselines), tuple(range(12)), baselines, (cast("Cell", None),) * 36, Path())
    clear, other = [0.3 + d for d in noisy(3, 0.001, 0.03)], [0.3 + d for d in noisy(5, 0.02)]

    def said(runs: dict[str, list[float | None]], looks: tuple[int, ...] = LOOKS) -> tuple[str, ...]:
        study = study_of(runs, looks)
        return course(study, conclude(study), grid)

    assert said({"a": [0.3] * 2}) == (), "there is nothing to decide"
    assert said({"a": [0.3] * 2, "b": clear[:2], "c": other[:2]}) == ("Nothing is decided yet. Open: b, c.",)
    assert said({"a": [0.3] * 5, "b": clear, "c": other}) == ("Decided after 3 seeds: b. Open: c.",)
    assert said({"a": [0.3] * 3, "b": clear}) == ("Decided after 3 seeds: b. 18 of 36 runs were not needed.",)
    assert said({"a": [0.3] * 3, "b": clear}, (3,)) == ()
    assert said({"a": [0.3] * 4, "b": clear}, (4,)) == (
        "1 of 36 runs is neither finished nor failed. Seed 3 is left out of the conclusions until every arm has run.",
    )
