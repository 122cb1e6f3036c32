"""Records as arrays: every number where it belongs, and nothing invented where one is missing."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_runs import simulate

from msbal.plotting.matplotlib_panel import isolated, move_apart
from msbal.plotting.reading import to_groups
from msbal.plotting.series import GroupSeries, RunSeries, merge_names, moving_average
from msbal.records import IntervalRecord, NonFinite

Make = Callable[..., list[IntervalRecord]]


def one_group(records: list[IntervalRecord]) -> GroupSeries:
    (group,), _ = to_groups(records)
    return group


def test_every_field_of_every_record_arrives(records: Make) -> None:
    made = records(intervals=9)
    group = one_group(made)
    assert group.levels == ("P3", "P4", "P5", "P6", "P7")
    assert group.terms == ("cls", "bbox")
    assert group.actions == ("avw", "min_loss", "max_loss", "equal")
    assert group.length == 10
    assert group.start == 0
    for i, record in enumerate(made):
        assert (group.interval[i], group.iteration[i], group.divisor[i]) == (
            record.interval,
            record.iteration,
            10,
        )
        assert tuple(group.loss[i]) == record.loss
        assert tuple(group.loss_by_term["bbox"][i]) == record.loss_by_term["bbox"]
        assert tuple(group.variance[i]) == record.variance
        assert tuple(group.variance_reduction[i]) == record.variance_reduction
        assert tuple(group.weights[i]) == record.weights
        assert tuple(group.previous_weights[i]) == record.previous_weights
        assert group.reward[i] == record.reward
        assert group.action[i] == record.action
        assert tuple(group.probabilities[i]) == tuple(record.probabilities.values())
    assert not group.missing.any()


@given(st.randoms(use_true_random=False))
def test_the_order_of_lines_does_not_matter(shuffler: random.Random) -> None:
    made = simulate(intervals=6)
    mixed = list(made)
    shuffler.shuffle(mixed)
    a, b = one_group(made), one_group(mixed)
    assert np.array_equal(a.loss, b.loss)
    assert np.array_equal(a.interval, b.interval)


def test_mean_loss_divides_by_the_interval_to_which_the_sums_are_scaled(records: Make) -> None:
    made = records(intervals=2)
    bad = NonFinite(iteration=13, term="bbox", level="P4", rank=0, value="nan")
    made[1] = dataclasses.replace(made[1], count=9, length=10, nonfinite=(bad,))
    group = one_group(made)
    assert np.allclose(group.mean_loss()[0], np.array(made[0].loss) / 10)
    assert np.allclose(group.mean_loss("cls")[1], np.array(made[1].loss_by_term["cls"]) / 10)
    assert group.nonfinite == (bad,)


def test_an_interval_without_one_finite_iteration_has_no_mean(records: Make) -> None:
    made = records(intervals=2)
    lost = tuple(NonFinite(i, "cls", "P3", 0, "inf") for i in range(11, 21))
    made[1] = dataclasses.replace(made[1], count=0, loss=(0.0,) * 5, nonfinite=lost)
    assert np.isnan(one_group(made).mean_loss()[1]).all()


def test_a_writer_that_leaves_the_count_out_means_all_iterations(records: Make) -> None:
    made = [dataclasses.replace(record, count=0, previous_weights=()) for record in records(intervals=3)]
    group = one_group(made)
    assert group.divisor.tolist() == [10, 10, 10]
    # The weights that held are then those of the record before, and 1 at the start.
    assert np.array_equal(group.previous_weights, np.vstack([np.ones(5), group.weights[:-1]]))


@pytest.mark.parametrize(
    ("kept", "rows", "missing"),
    [
        ([1, 2, 3], [1, 2, 3], []),
        ([1, 3], [1, 2, 3], [2]),
        ([1, 2, 6, 7], [1, 2, 3, 5, 6, 7], [3, 5]),
        ([2, 4, 8], [2, 3, 4, 5, 7, 8], [3, 5, 7]),
    ],
)
def test_a_gap_is_kept_as_a_gap(records: Make, kept: list[int], rows: list[int], missing: list[int]) -> None:
    made = [record for record in records(intervals=8) if record.interval in kept]
    (group,), notes = to_groups(made)
    assert group.interval.tolist() == rows
    assert group.iteration.tolist() == [10 * row for row in rows]
    assert group.interval[group.missing].tolist() == missing
    for values in (group.loss, group.weights, group.probabilities, group.loss_by_term["cls"]):
        assert np.isnan(values[group.missing]).all()
        assert np.isfinite(values[~group.missing]).all()
    number = max(kept) - min(kept) + 1 - len(kept)
    assert any(f"{number} intervals are missing" in note for note in notes) == bool(missing)


def test_of_two_records_of_an_interval_the_later_counts(records: Make) -> None:
    first, second = records(intervals=4, seed=1), records(intervals=4, seed=2)
    (group,), notes = to_groups([*first, *second[2:]])
    assert np.array_equal(group.loss[:2], [record.loss for record in first[:2]])
    assert np.array_equal(group.loss[2:], [record.loss for record in second[2:]])
    assert any("twice" in note for note in notes)


def test_groups_are_kept_apart(records: Make) -> None:
    rpn, roi = (
        records(levels=("P2", "P3"), group="rpn"),
        records(levels=("P2", "P3", "P4"), group="roi", seed=3),
    )
    groups, notes = to_groups([record for pair in zip(rpn, roi, strict=True) for record in pair])
    assert [(group.name, len(group.levels), len(group.loss)) for group in groups] == [
        ("rpn", 2, 12),
        ("roi", 3, 12),
    ]
    assert notes == ()


def test_records_that_do_not_fit_are_left_out_and_named(records: Make) -> None:
    made = records(intervals=5)
    made[1] = dataclasses.replace(made[1], previous_weights=(1.0,))
    made[2] = records(levels=("P3", "P4"), intervals=3)[2]
    made[3] = dataclasses.replace(made[3], iteration=10**40)
    (group,), notes = to_groups(made)
    assert group.interval[~group.missing].tolist() == [1, 5]
    assert "2 records skipped" in notes[0]
    assert "1 records skipped" in notes[1]


def test_shares_are_parts_of_one(records: Make) -> None:
    group = one_group(records())
    assert np.allclose(group.share().sum(axis=1), 1)
    held = group.loss * group.previous_weights
    assert np.allclose(group.share(weighted=True), held / held.sum(axis=1, keepdims=True))
    assert not np.allclose(group.share(), group.share(weighted=True))


@pytest.mark.parametrize("loss", [(0.0, 0.0), (-1.0, 3.0), (math.nan, 1.0)])
def test_no_share_of_a_sum_that_has_no_parts(records: Make, loss: tuple[float, float]) -> None:
    made = records(levels=("a", "b"), intervals=2)
    made[1] = dataclasses.replace(made[1], loss=loss)
    share = one_group(made).share()
    assert np.isfinite(share[0]).all()
    assert np.isnan(share[1]).all()


def test_what_is_in_force_was_decided_an_interval_earlier(records: Make) -> None:
    made = [record for record in records(intervals=9) if record.interval != 5]
    group = one_group(made)
    actions, probabilities = group.in_force()
    by_interval = {record.interval: record for record in made}
    for t, action, row in zip(group.interval.tolist(), actions, probabilities, strict=True):
        decided = by_interval.get(t - 1)  # before the first nothing was, and interval 5 is missing
        assert action == (decided.action if decided else "")
        assert np.array_equal(
            row, list(decided.probabilities.values()) if decided else [math.nan] * 4, equal_nan=True
        )


def test_the_total_loss_is_a_mean_over_the_iterations_summed_over_levels_and_groups(records: Make) -> None:
    rpn, roi = records(group="rpn", intervals=4), records(group="roi", levels=("P2", "P3"), intervals=3)
    groups, _ = to_groups([*rpn, *roi])
    x, y = RunSeries("run", "", groups).total_loss()
    assert x.tolist() == [10, 20, 30]  # of interval 4 one group is not known
    assert y == pytest.approx([(sum(a.loss) + sum(b.loss)) / 10 for a, b in zip(rpn, roi, strict=False)])


def test_a_level_is_without_boxes_where_it_never_had_a_positive_sample(records: Make) -> None:
    made = records(intervals=4, positives=(9, 0, 0, 1, 0))
    made[2] = dataclasses.replace(made[2], positives=(9, 0, 1, 1, 0))
    assert one_group(made).without_boxes() == {"P4", "P7"}
    assert one_group(records()).without_boxes() == set()  # not known


@given(st.lists(st.floats(-0.2, 1.2), min_size=1, max_size=9))
def test_labels_do_not_hide_each_other(places: list[float]) -> None:
    moved = move_apart(np.array(places), 0.1)
    assert (np.diff(np.sort(moved)) > 0.1 - 1e-9).all()
    assert (moved > -1e-9).all() and (moved < 1 + 1e-9).all()
    assert np.array_equal(np.argsort(moved), np.argsort(places, kind="stable"))


def test_labels_with_room_stay_where_they_are() -> None:
    assert move_apart(np.array([0.9, 0.1, 0.5]), 0.1) == pytest.approx([0.9, 0.1, 0.5])
    assert move_apart(np.array([0.5, 0.5]), 0.1) == pytest.approx([0.45, 0.55])


@given(
    st.lists(st.one_of(st.just(math.nan), st.floats(-1e6, 1e6)), min_size=1, max_size=30),
    st.integers(1, 12),
)
def test_moving_average_is_the_mean_of_the_known_neighbours(values: list[float], window: int) -> None:
    got = moving_average(np.array(values), window)
    for i, value in enumerate(values):
        near = values[max(0, i - (window - 1) // 2) : i + window // 2 + 1]
        known = [x for x in near if not math.isnan(x)]
        if math.isnan(value):
            assert math.isnan(got[i])
        else:
            assert got[i] == pytest.approx(sum(known) / len(known), rel=1e-9, abs=1e-6)


def test_moving_average_refuses_an_empty_window() -> None:
    with pytest.raises(ValueError, match=r"at least 1\. Found 0"):
        moving_average(np.zeros(3), 0)


@pytest.mark.parametrize(
    ("orders", "merged"),
    [
        ([("P3", "P4"), ("P3", "P4")], "P3 P4"),
        ([("P3", "P4", "P5"), ("P2", "P3", "P4")], "P2 P3 P4 P5"),
        ([("P2", "P3"), ("P3", "P4", "P5")], "P2 P3 P4 P5"),
        ([("a", "d"), ("a", "b", "c", "d")], "a b c d"),
        ([("a",), ("b",)], "a b"),
        ([], ""),
    ],
)
def test_levels_of_several_runs_keep_their_order(orders: list[tuple[str, ...]], merged: str) -> None:
    assert " ".join(merge_names(orders)) == merged


def test_a_value_between_two_gaps_is_found() -> None:
    nan = math.nan
    assert isolated(np.array([1, nan, 1, 1, nan, 1.0])).tolist() == [True, False, False, False, False, True]
