"""Scales and weights: where things stand on the page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from msbal.ablation.grid import Comparison
from msbal.ablation.reporting import row_charts
from msbal.ablation.reporting.svg import Scale, scale_of
from msbal.ablation.reporting.weight_history import MAX_POINTS, history_drawings, history_of
from msbal.ablation.statistics.conclude import Study, conclude
from msbal.ablation.statistics.conclusion import Conclusion
from msbal.ablation.statistics.samples import summarize
from msbal.plotting.series import GroupSeries


@pytest.mark.parametrize("size", [1e-3, 0.7, 1.0, 3.3, 250.0, 1e6])
def test_a_scale_holds_its_values_between_round_ticks(size: float) -> None:
    values = [-0.31 * size, 0.62 * size]
    scale = scale_of(values, narrowest=0)
    assert scale.low < values[0] and values[1] < scale.high
    assert all(scale.left <= scale.at(v) <= scale.right for v in values)
    assert 3 <= len(scale.ticks) <= 8
    steps = np.diff(scale.ticks)
    assert steps == pytest.approx(steps[0])
    # What a tick says is the tick: no rounding that would move it.
    assert [float(scale.text(t)) for t in scale.ticks] == pytest.approx(list(scale.ticks))
    assert len({scale.text(t) for t in scale.ticks}) == len(scale.ticks)


def test_scales_of_little() -> None:
    assert scale_of([]).low < 0 < 1 < scale_of([]).high
    one = scale_of([5.0], narrowest=0.2)
    assert one.low < 4.9 and one.high > 5.1
    assert scale_of([3.0], around=0.0).at(0.0) < scale_of([3.0], around=0.0).at(3.0)
    assert scale_of([1.0, float("nan")]).low < 1.0
    scale = Scale(0.0, 1.0, (0.0, 0.5, 1.0))
    assert (scale.at(-9.0), scale.at(9.0)) == (scale.left, scale.right)


def series(weights: np.ndarray, levels: tuple[str, ...] = ("P3", "P4")) -> GroupSeries:
    """Weights ``[I, K]`` that held, in intervals of ten iterations."""
    i, k = weights.shape
    nothing, empty = np.zeros((i, k)), np.zeros((i, 0))
    return GroupSeries(
        "all", levels, ("cls",), (), np.arange(1, i + 1), 10 * np.arange(1, i + 1), np.full(i, 10), nothing, {},
        nothing, nothing, weights, weights, np.zeros(i), ("",) * i, empty, nothing, np.zeros(i),
        {}, np.zeros((i, k, k)), np.zeros(i, dtype=bool), (),
    )  # fmt: skip


def test_a_history_of_weights_is_the_mean_over_seeds_and_their_range() -> None:
    first, second = np.full((6, 2), 1.0), np.full((6, 2), 2.0)
    second[:, 1] = 1.0
    history = history_of([series(first), series(second)])
    assert history is not None and not history.constant
    assert history.start.tolist() == [0, 10, 20, 30, 40, 50]
    assert history.end.tolist() == [10, 20, 30, 40, 50, 60]
    assert history.mean.tolist() == [[1.5, 1.0]] * 6
    assert history.low.tolist() == [[1.0, 1.0]] * 6 and history.high.tolist() == [[2.0, 1.0]] * 6
    still = history_of([series(first), series(first)])
    assert still is not None and still.constant


def test_long_histories_are_averaged_and_the_shortest_run_ends_them() -> None:
    rng = np.random.default_rng(0)
    long, short = rng.uniform(1, 2, (1000, 2)), rng.uniform(1, 2, (900, 2))
    history = history_of([series(long), series(short)])
    assert history is not None and len(history.end) == MAX_POINTS
    assert history.end[-1] == 9000
    bins = np.array_split(np.arange(900), MAX_POINTS)
    expected = [(long[b].mean(axis=0) + short[b].mean(axis=0)) / 2 for b in bins]
    assert history.mean == pytest.approx(np.array(expected))


def test_gaps_and_foreign_levels_are_left_out_of_a_history() -> None:
    weights = np.ones((4, 2))
    weights[1] = np.nan
    history = history_of([series(weights), series(np.ones((4, 3)), ("a", "b", "c"))])
    assert history is not None and history.end.tolist() == [10, 30, 40]
    assert history.start.tolist() == [0, 20, 30]
    assert history_of([]) is None
    assert history_of([series(np.full((2, 2), np.nan))]) is None


def test_weights_are_steps_in_a_lane_for_each_level() -> None:
    weights = np.array([[1.0, 1.0], [1.5, 1.0], [1.0, 1.2]])
    history = history_of([series(weights)])
    assert history is not None
    drawn = ET.fromstring(history_drawings({"avw": history}, {"P3": "#111", "P4": "#222"})["avw"].__html__())
    lines = [line.get("points", "") for line in drawn.findall(".//polyline")]
    across, down = (np.array([point.split(",") for point in line.split()], dtype=float).T for line in lines)
    for corners in (across, down):
        assert corners[0] == pytest.approx([0, 1000 / 3, 1000 / 3, 2000 / 3, 2000 / 3, 1000], abs=0.1)
    assert (np.diff(across[1]) != 0).tolist() == [False, True, False, True, False]
    assert across[1].max() < down[1].min()  # the finest level is at the top, in a lane of its own
    texts = ["".join(text.itertext()) for text in drawn.findall("text")]
    assert {"P3", "P4", "iteration (each level: weights from 1.00 to 1.50)"} <= set(texts)


def concluded(**gains: list[float]) -> dict[Comparison, Conclusion]:
    """Conclude on arms by their differences, in points, to `base`."""
    base = [36.0, 36.5, 35.8, 36.2, 36.1]
    values = {"base": base} | {
        arm: [b + d for b, d in zip(base, differences, strict=False)] for arm, differences in gains.items()
    }
    summaries = {arm: summarize({s: v / 100 for s, v in enumerate(of)}) for arm, of in values.items()}
    comparisons = [Comparison(arm, "base") for arm in gains]
    return conclude(Study(summaries, comparisons, [tuple(values)], 0.005))


def test_drawings_are_well_formed_whatever_arms_are_called() -> None:
    name = "<b>\"&'"
    conclusions = concluded(**{name: [1.0, 2.0, 1.4]})
    (found,) = conclusions.values()
    history = history_of([series(np.random.default_rng(0).uniform(1, 2, (5, 2)))])
    assert history is not None
    colors = {"P3": "#111111", "P4": "#222222"}
    drawn = [
        row_charts.differences("AP", 0.005, conclusions, {name: "base", "base": "base"}),
        *row_charts.sizes({name: {"AP_S": found.paired}}, {name: "base"}).values(),
        *row_charts.mean_weights({name: {"P3": 1.2, "P4": 0.8}}, colors).values(),
        *history_drawings({name: history}, colors).values(),
    ]
    for drawing in drawn:
        assert drawing is not None
        markup = drawing.__html__()
        assert not ET.fromstring(markup).findall(".//b") and "nan" not in markup and "inf" not in markup
        places = re.findall(r'(?:cx|x1|x2|x)="([\d.-]+)%"', markup)
        assert places and all(0 <= float(place) <= 100 for place in places)


def test_the_band_of_the_gain_is_around_zero_and_both_intervals_are_where_they_belong() -> None:
    gain = 0.005
    conclusions = concluded(good=[1.1, 0.9, 1.3, 1.0, 1.2], other=[0.1, -0.2, 0.2, 0.0, -0.1])
    chart = row_charts.differences("AP", gain, conclusions, dict.fromkeys(("base", "good", "other"), "base"))
    assert chart is not None
    drawn = ET.fromstring(chart.__html__())

    def bars(kind: str) -> list[tuple[float, float]]:
        found = [bar for bar in drawn.iter("rect") if bar.get("class", "").startswith(kind)]
        places = [(bar.get("x", ""), bar.get("width", "")) for bar in found]
        return [(float(x[:-1]), float(x[:-1]) + float(width[:-1])) for x, width in places]

    (band,) = bars("gain")
    assert band == pytest.approx((chart.scale.at(-100 * gain), chart.scale.at(100 * gain)), abs=0.01)
    corrected = [tuple(chart.scale.at(100 * end) for end in c.tested.interval) for c in conclusions.values()]
    assert bars("corrected") == [pytest.approx(ends, abs=0.01) for ends in corrected]
    plain = [
        tuple(chart.scale.at(100 * end) for end in (c.paired.low, c.paired.high))
        for c in conclusions.values()
    ]
    assert bars("interval") == [pytest.approx(ends, abs=0.01) for ends in plain]
    kinds = [bar.get("class") for bar in drawn.iter("rect")]
    assert "corrected v-better" in kinds and "corrected v-equal" in kinds


def test_an_arm_far_out_does_not_hide_the_others() -> None:
    def far(**shifts: float) -> set[str]:
        noise = {0: 0.0, 1: 0.1, 2: -0.1}
        found = concluded(**{arm: [shift + d for d in noise.values()] for arm, shift in shifts.items()})
        return {each.arm for each in row_charts.far_out(found)}

    assert far(a=0.1, b=-20.0) == {"b"}
    assert far(a=10.0, b=-20.0) == far(a=-20.0) == far() == set()
