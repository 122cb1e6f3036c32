"""The page's charts with a row for each arm, size or level. Metrics are in 0..1, and shown in points."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from msbal.ablation.grid import Comparison
from msbal.ablation.reporting.svg import AXIS, Drawing, Scale, scale_of
from msbal.ablation.statistics.conclusion import Conclusion
from msbal.ablation.statistics.images import SeedsAndImages
from msbal.ablation.statistics.intervals import Interval
from msbal.ablation.statistics.samples import Paired, Summary
from msbal.ablation.statistics.words import name_of, tone
from msbal.metric_text import full_name, in_points, points, signed, span

ROW, SMALL_ROW = 48.0, 42.0  # pixels
FAR_TIMES, FAR_LEAST = 5.0, 0.005
"""An arm is far out where its difference is so many times that of the middle arm, but at least this (0..1)."""
SIZE_NAMES = {"AP_S": "small", "AP_M": "medium", "AP_L": "large"}
LEFTWARDS, RIGHTWARDS = "M0 0L9 -6L9 6Z", "M0 0L-9 -6L-9 6Z"
DIAMOND = "M-6 0L0 -7L6 0L0 7Z"
TRIANGLE = "M-5 -8L5 -8L0 1Z"


class RowChart(Drawing):
    """Rows on one scale: a name at the left, a number at the right, and marks below them.

    Args:
        label: what it shows, in words; the rows' numbers follow it.
        axis: the name of the x axis, with its unit.
        rows: how many.
        step: pixels a row.
        zero: the value whose line stands out.
        gain: smaller differences than this do not matter: a band around zero.
    """

    def __init__(
        self,
        label: str,
        axis: str,
        scale: Scale,
        rows: int,
        step: float = ROW,
        zero: float | None = None,
        gain: float = 0.0,
    ) -> None:
        bottom = step * rows
        super().__init__(label, scale, bottom + AXIS, axis)
        self.step, self.rows = step, 0
        if gain:
            said = f"less than {in_points(gain / 100)}: too little to matter"
            self.bar(-gain, gain, bottom / 2, bottom, "gain", said)
        for value in scale.ticks:
            self.line(value, 0, value, bottom, "grid")
            self.tick(value, bottom, scale.text(value))
        if zero is not None:
            self.line(zero, 0, zero, bottom, "zero")

    def middle(self, row: int) -> float:
        """Return the height of a row's marks."""
        return self.step * (row + 2 / 3)

    def row(self, name: str, number: str, wide: str = "") -> float:
        """Begin the next row and return the height of its marks; `wide` is left out where there is little room."""
        y = self.step * self.rows + (14 if self.step == ROW else 12)
        self.text(0, y, name, "name" if self.step == ROW else "name small")
        written = self.text(100, y, number, "number", "end")
        if wide:
            ET.SubElement(written, "tspan", {"class": "wide"}).text = f" {wide}"
        before = f"{self.svg.get('aria-label')}{';' if self.rows else ':'}"
        self.svg.set("aria-label", f"{before} {name} {number}" + (f" ({wide})" if wide else ""))
        self.rows += 1
        return self.middle(self.rows - 1)

    def paired(self, paired: Paired, y: float, kind: str, corrected: Interval | None = None) -> None:
        """Draw the mean, a dot for each seed and the t interval, within the one that is corrected."""
        if corrected is not None:
            said = f"corrected 95 % interval {span(*corrected)}"
            self.bar(100 * corrected[0], 100 * corrected[1], y, 10, f"corrected {kind}", said)
        if paired.low is not None and paired.high is not None:
            said = f"95 % interval {span(paired.low, paired.high)}{', uncorrected' if corrected else ''}"
            height = 4 if corrected else 8
            self.bar(100 * paired.low, 100 * paired.high, y, height, f"interval {kind}", said)
        for seed, value in paired.differences.items():
            self.dot(100 * value, y, 3.5, "seed", f"seed {seed}: {signed(value)}")
        if paired.mean is not None:
            self.mark(100 * paired.mean, y, DIAMOND, f"middle {kind}", f"mean {signed(paired.mean)}")

    def images(self, images: SeedsAndImages, y: float) -> None:
        """Draw the interval over seeds and images below the others."""
        said = f"95 % interval over seeds and images {span(images.low, images.high)}"
        self.line(100 * images.low, y + 10, 100 * images.high, y + 10, "images", said)

    def beyond(self, away: float, y: float, kind: str) -> None:
        """Draw an arrow at the end of the scale, where an arm is far out."""
        shape = LEFTWARDS if away < 0 else RIGHTWARDS
        self.mark(math.copysign(math.inf, away), y, shape, f"middle {kind}", "beyond the scale")


def far_out(conclusions: Mapping[Comparison, Conclusion]) -> frozenset[Comparison]:
    """Return the comparisons with so large a difference that nothing else could be seen on their scale."""
    sizes = {each: abs(c.paired.mean) for each, c in conclusions.items() if c.paired.mean is not None}
    if not sizes:
        return frozenset()
    middle = sorted(sizes.values())[(len(sizes) - 1) // 2]
    limit = FAR_TIMES * max(middle, FAR_LEAST)
    return frozenset(each for each, size in sizes.items() if size > limit)


def differences(
    metric: str, gain: float, conclusions: Mapping[Comparison, Conclusion], baselines: Mapping[str, str]
) -> RowChart | None:
    """Draw each comparison: a dot a seed, the mean and its intervals, and the band of what does not matter."""
    shown = {each: c for each, c in conclusions.items() if c.paired.mean is not None}
    if not shown:
        return None
    far = far_out(conclusions)
    near = [c for each, c in shown.items() if each not in far]
    scale = _scale(value for c in near for value in (-gain, gain, *_places(c.paired), *_bounds(c)))
    axis = f"difference in {full_name(metric)}, points"
    label = f"Differences in {full_name(metric)}, points"
    chart = RowChart(label, axis, scale, len(shown), zero=0.0, gain=100 * gain)
    several = len(set(baselines.values())) > 1
    for each, found in shown.items():
        paired, tested, kind = found.paired, found.tested, f"v-{tone(found.verdict)}"
        if found.reason is not None:  # nothing is concluded, nor seems to be
            paired = replace(paired, low=None, high=None)
        name = f"{each.arm} vs {each.to}" if several else name_of(each, baselines)
        y = chart.row(name, signed(paired.mean), "" if tested is None else span(*tested.interval))
        if each in far:
            chart.beyond(paired.mean or 0.0, y, kind)
            continue
        chart.paired(paired, y, kind, None if tested is None else tested.interval)
        if found.images is not None:
            chart.images(found.images, y)
    return chart


def metrics(
    metric: str,
    summaries: Mapping[str, Summary],
    published: Mapping[str, float],
    baselines: Mapping[str, str],
    far: Collection[str] = (),
) -> RowChart | None:
    """Draw each arm's metric: a dot a seed, the mean, and a thin line from each seed's baseline to it.

    Args:
        published: by arm, a paper's metric in points.
        far: arms that the scale leaves out.
    """
    shown = [arm for arm in summaries if summaries[arm].n]
    if not shown:
        return None
    near = [arm for arm in shown if arm not in far]
    values = [v for arm in near for v in (*summaries[arm].values.values(), *_spread(summaries[arm]))]
    scale = _scale([*values, *(published[arm] / 100 for arm in near if arm in published)], around=None)
    name = f"{full_name(metric)}, points"
    chart = RowChart(f"{name}, of each arm", name, scale, len(shown))
    middle = {arm: chart.middle(row) for row, arm in enumerate(shown)}
    for arm in near:
        base = baselines[arm]
        for seed, value in summaries[arm].values.items():
            before = summaries[base].values.get(seed)
            if base != arm and before is not None:
                chart.line(100 * before, middle[base], 100 * value, middle[arm], "pair")
    for arm in shown:
        summary, mean = summaries[arm], summaries[arm].mean or 0.0
        y = chart.row(arm, points(mean), "" if summary.sd is None else f"± {points(summary.sd)}")
        if arm in far:
            chart.beyond(mean - (summaries[baselines[arm]].mean or 0.0), y, "v-plain")
            continue
        if spread := _spread(summary):
            chart.bar(100 * spread[0], 100 * spread[1], y, 8, "spread")
        chart.line(100 * mean, y - 10, 100 * mean, y + 10, "mean", f"{arm}: mean {points(mean)}")
        for seed, value in summary.values.items():
            chart.dot(100 * value, y, 4, "seed", f"{arm}, seed {seed}: {points(value)}")
        if arm in published:
            chart.mark(published[arm], y - 8, TRIANGLE, "published", f"{arm}: published {published[arm]:g}")
    return chart


def sizes(pairs: Mapping[str, Mapping[str, Paired]], baselines: Mapping[str, str]) -> dict[str, RowChart]:
    """Draw each arm's differences in the metrics by object size, all on one scale.

    Args:
        pairs: by arm and metric; arms that are far out are better given in a call of their own.
    """
    scale = _scale(
        value for found in pairs.values() for paired in found.values() for value in _places(paired)
    )
    drawn = {}
    for arm, by_metric in pairs.items():
        label = f"{arm}: differences by object size, points"
        axis = f"difference to {baselines[arm]}, points"
        drawn[arm] = chart = RowChart(label, axis, scale, len(by_metric), SMALL_ROW, zero=0.0)
        for metric, paired in by_metric.items():
            y = chart.row(SIZE_NAMES.get(metric, metric), signed(paired.mean))
            chart.paired(paired, y, "v-plain")
    return drawn


def mean_weights(
    weights: Mapping[str, Mapping[str, float]], colors: Mapping[str, str]
) -> dict[str, RowChart]:
    """Draw each arm's mean weight of each level as a bar from 1, all on one scale."""
    scale = scale_of([v for by_level in weights.values() for v in by_level.values()], 1.0, narrowest=0.2)
    drawn = {}
    for arm, by_level in weights.items():
        step = max(3 * SMALL_ROW / max(1, len(by_level)), 26.0)
        chart = RowChart(f"{arm}: mean weights", "mean weight in force", scale, len(by_level), step, zero=1.0)
        drawn[arm] = chart
        for level, weight in by_level.items():
            y = chart.row(level, f"{weight:.3f}")
            title = f"{arm}, {level}: mean weight {weight:.3f}"
            chart.bar(1.0, weight, y + 1, 7, "weight", title, colors[level])
    return drawn


def _scale(values: Iterable[float], around: float | None = 0.0) -> Scale:
    """Return the scale of metrics in 0..1, in points."""
    return scale_of((100 * value for value in values), around, narrowest=0.2)


def _bounds(found: Conclusion) -> tuple[float, ...]:
    """Return the ends of the intervals that take more into account than the seeds of one comparison."""
    images = () if found.images is None else (found.images.low, found.images.high)
    return (*(() if found.tested is None else found.tested.interval), *images)


def _places(paired: Paired) -> list[float]:
    """Return what is drawn of a pair of arms."""
    ends = (paired.low, paired.high)
    return [*paired.differences.values(), *(value for value in ends if value is not None)]


def _spread(summary: Summary) -> tuple[float, ...]:
    """Return one standard deviation to each side of the mean; nothing where there is none."""
    if summary.mean is None or summary.sd is None:
        return ()
    return summary.mean - summary.sd, summary.mean + summary.sd
