"""The page's plots. Metrics are in 0..1, and shown in points (per cent)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msbal.ablation.reporting import svg
from msbal.ablation.reporting.numbers import points, signed, span
from msbal.ablation.statistics import Conclusion, Paired, Summary
from msbal.evaluation.tables import FULL_NAMES
from msbal.plotting.series import GroupSeries

ROW = 48.0  # pixels an arm
AXIS = 22.0  # pixels below, for the ticks' values
MOST_POINTS = 60
"""Points along a curve; more intervals are averaged to so many."""
FAR_TIMES, FAR_LEAST = 5.0, 0.005
"""An arm is far out where its difference is so many times that of the middle arm, but at least this (0..1)."""
SIZE_NAMES = {"AP_S": "small", "AP_M": "medium", "AP_L": "large"}
LEFTWARDS, RIGHTWARDS = "M0 0L9 -6L9 6Z", "M0 0L-9 -6L-9 6Z"
DIAMOND = "M-6 0L0 -7L6 0L0 7Z"
TRIANGLE = "M-5 -8L5 -8L0 1Z"


def far_out(conclusions: Mapping[str, Conclusion]) -> frozenset[str]:
    """Arms so much better or worse that nothing else could be seen on their scale."""
    sizes = {c.arm: abs(c.paired.mean) for c in conclusions.values() if c.paired.mean is not None}
    if not sizes:
        return frozenset()
    middle = sorted(sizes.values())[(len(sizes) - 1) // 2]
    limit = FAR_TIMES * max(middle, FAR_LEAST)
    return frozenset(arm for arm, size in sizes.items() if size > limit)


def differences(metric: str, conclusions: Mapping[str, Conclusion], baselines: Mapping[str, str]) -> str:
    """Each arm less its baseline: a dot a seed, the mean, the t interval, and the bootstrap's below it."""
    shown = [c for c in conclusions.values() if c.paired.mean is not None]
    if not shown:
        return ""
    far = far_out(conclusions)
    near = [c for c in shown if c.arm not in far]
    values = [100 * d for c in near for d in c.paired.differences.values()]
    values += [
        100 * v for c in near for v in (c.paired.low, c.paired.high, *(c.images or ())) if v is not None
    ]
    scale = svg.scale_of(values, around=0.0, narrowest=0.2)
    bottom = ROW * len(shown)
    parts = svg.axis(scale, 0, bottom, zero=0.0)
    several = len(set(baselines.values())) > 1
    for n, found in enumerate(shown):
        y, paired = ROW * n + 32, found.paired
        against = f" less {baselines[found.arm]}" if several else ""
        parts.append(svg.text(0, ROW * n + 14, found.arm + against, "name"))
        parts.append(_right(ROW * n + 14, signed(paired.mean), f"  {span(paired.low, paired.high)}"))
        kind = f"v-{found.verdict.split()[0]}"
        if found.arm in far:
            parts.append(_beyond(paired.mean or 0.0, y, kind))
        else:
            parts += _paired(paired, scale, y, kind, found.images)
    name = FULL_NAMES.get(metric, metric)
    return svg.drawing(
        f"Differences in {name} to the baseline, points: "
        + "; ".join(f"{c.arm} {signed(c.paired.mean)} ({span(c.paired.low, c.paired.high)})" for c in shown),
        bottom + AXIS,
        parts,
    )


def metrics(
    metric: str,
    summaries: Mapping[str, Summary],
    published: Mapping[str, float],
    baselines: Mapping[str, str],
    far: Collection[str] = (),
) -> str:
    """Each arm's metric: a dot a seed, the mean, and a thin line from each seed's baseline to it.

    Args:
        published: by arm, a paper's metric in per cent.
        far: arms that the scale leaves out.
    """
    shown = [arm for arm in summaries if summaries[arm].n]
    if not shown:
        return ""
    near = [arm for arm in shown if arm not in far]
    values = [100 * v for arm in near for v in (*summaries[arm].values.values(), *_spread(summaries[arm]))]
    scale = svg.scale_of([*values, *(published[arm] for arm in near if arm in published)], narrowest=0.2)
    bottom = ROW * len(shown)
    parts = svg.axis(scale, 0, bottom)
    heights = {arm: ROW * n + 32 for n, arm in enumerate(shown)}
    for arm in near:
        base = baselines[arm]
        for seed, value in summaries[arm].values.items():
            before = summaries[base].values.get(seed)
            if base != arm and before is not None:
                parts.append(
                    svg.line(
                        scale.at(100 * before), heights[base], scale.at(100 * value), heights[arm], "pair"
                    )
                )
    for arm in shown:
        summary, y = summaries[arm], heights[arm]
        parts.append(svg.text(0, y - 18, arm, "name"))
        wide = "" if summary.sd is None else f" ± {points(summary.sd)}"
        parts.append(_right(y - 18, points(summary.mean), wide))
        if arm in far:
            away = (summary.mean or 0.0) - (summaries[baselines[arm]].mean or 0.0)
            parts.append(_beyond(away, y, "v-plain"))
            continue
        if summary.mean is not None:
            mean = scale.at(100 * summary.mean)
            if summary.sd is not None:
                low, high = (scale.at(100 * end) for end in _spread(summary))
                parts.append(svg.bar(low, high, y - 4, 8, "spread"))
            parts.append(svg.line(mean, y - 10, mean, y + 10, "mean", f"{arm}: mean {points(summary.mean)}"))
        for seed, value in summary.values.items():
            parts.append(svg.dot(scale.at(100 * value), y, 4, "seed", f"{arm}, seed {seed}: {points(value)}"))
        if arm in published:
            title = f"{arm}: published {published[arm]:g}"
            parts.append(svg.mark(scale.at(published[arm]), y - 8, TRIANGLE, "published", title))
    name = FULL_NAMES.get(metric, metric)
    said = "; ".join(f"{arm} {points(summaries[arm].mean)}" for arm in shown)
    return svg.drawing(f"{name} of each arm, per cent: {said}", bottom + AXIS, parts)


def sizes(pairs: Mapping[str, Mapping[str, Paired]]) -> dict[str, str]:
    """By arm, its differences in the metrics by object size, all on one scale.

    Args:
        pairs: by arm and metric; arms that are far out are better given in a call of their own.
    """
    values = [
        100 * value
        for by_metric in pairs.values()
        for paired in by_metric.values()
        for value in (*paired.differences.values(), paired.low, paired.high)
        if value is not None
    ]
    scale = svg.scale_of(values, around=0.0, narrowest=0.2)
    drawn = {}
    for arm, by_metric in pairs.items():
        parts, step = [], 40.0
        parts += svg.axis(scale, 0, step * len(by_metric), zero=0.0)
        for n, (metric, paired) in enumerate(by_metric.items()):
            parts.append(svg.text(0, step * n + 12, SIZE_NAMES.get(metric, metric), "name small"))
            parts.append(_right(step * n + 12, signed(paired.mean), ""))
            if paired.mean is not None:
                parts += _paired(paired, scale, step * n + 28, "v-plain", None)
        said = ", ".join(f"{metric} {signed(paired.mean)}" for metric, paired in by_metric.items())
        drawn[arm] = svg.drawing(
            f"{arm}: differences by object size, points: {said}", step * len(by_metric) + AXIS, parts
        )
    return drawn


def mean_weights(weights: Mapping[str, Mapping[str, float]], colors: Mapping[str, str]) -> dict[str, str]:
    """By arm, bars from 1 to the mean weight of each level, all on one scale."""
    scale = svg.scale_of([v for by_level in weights.values() for v in by_level.values()], 1.0, narrowest=0.2)
    drawn = {}
    for arm, by_level in weights.items():
        step = max(130.0 / max(1, len(by_level)), 26.0)
        parts = svg.axis(scale, 0, step * len(by_level), zero=1.0)
        for n, (level, weight) in enumerate(by_level.items()):
            y = step * n
            title = f"{arm}, {level}: mean weight {weight:.3f}"
            parts.append(svg.bar(scale.at(1.0), scale.at(weight), y + 15, 7, "weight", title, colors[level]))
            parts.append(svg.text(0, y + 11, level, "name small"))
            parts.append(_right(y + 11, f"{weight:.3f}", ""))
        said = ", ".join(f"{level} {weight:.3f}" for level, weight in by_level.items())
        drawn[arm] = svg.drawing(f"{arm}: mean weights: {said}", step * len(by_level) + AXIS, parts)
    return drawn


@dataclass(frozen=True)
class Course:
    """The weights of one arm over the iterations, over its seeds. P points, K levels.

    Attributes:
        iteration: ``[P]``.
        mean, low, high: ``[P, K]`` over the seeds.
    """

    levels: tuple[str, ...]
    iteration: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def constant(self) -> bool:
        """Whether no weight ever changes."""
        return bool(np.nanmax(self.high) - np.nanmin(self.low) < 1e-9)


def course_of(groups: Sequence[GroupSeries]) -> Course | None:
    """The course of the weights that held, over the runs of an arm; None without a whole run.

    Args:
        groups: one of each run; what is longer than the shortest is cut off.
    """
    groups = [g for g in groups if g.levels == groups[0].levels]
    length = min((len(g.iteration) for g in groups), default=0)
    if not length:
        return None
    held = np.stack([g.previous_weights[:length] for g in groups])  # [runs, I, K]
    bins = np.array_split(np.arange(length), min(length, MOST_POINTS))
    with np.errstate(all="ignore"):
        binned = np.stack([_mean(held[:, chosen]) for chosen in bins], axis=1)  # [runs, P, K]
        kept = np.isfinite(binned).all(axis=(0, 2))
        binned = binned[:, kept]
    if not binned.size:
        return None
    ends = np.array([float(groups[0].iteration[chosen[-1]]) for chosen in bins])[kept]
    return Course(groups[0].levels, ends, binned.mean(axis=0), binned.min(axis=0), binned.max(axis=0))


def courses(found: Mapping[str, Course], colors: Mapping[str, str]) -> dict[str, str]:
    """By panel, the weights over the iterations: lines the mean, bands the range of the seeds; one scale."""
    if not found:
        return {}
    low = min(float(course.low.min()) for course in found.values())
    high = max(float(course.high.max()) for course in found.values())
    down = svg.scale_of([low, high], 1.0, narrowest=0.1)
    height = 170.0
    drawn = {}
    for name, course in found.items():
        across = svg.scale_of([0.0, float(course.iteration[-1])])
        across = svg.Scale(
            0.0, float(course.iteration[-1]), tuple(t for t in across.ticks if 0 <= t <= course.iteration[-1])
        )
        box = (across.low, across.high, down.low, down.high)
        runs = []
        for k, level in enumerate(course.levels):
            if len(course.iteration) > 1:
                there = list(zip(course.iteration, course.high[:, k], strict=True))
                back = list(zip(course.iteration[::-1], course.low[::-1, k], strict=True))
                runs.append(("band", colors[level], [*there, *back]))
        for k, level in enumerate(course.levels):
            runs.append(
                ("course", colors[level], list(zip(course.iteration, course.mean[:, k], strict=True)))
            )
        parts: list[str] = []
        texts: list[str] = []
        for value in down.ticks:
            y = height * (down.high - value) / (down.high - down.low)
            if 8 < y < height - 2:
                parts.append(svg.line(0, y, 100, y, "zero" if value == 1.0 else "grid"))
                texts.append(svg.text(0, y - 3, svg.tick_text(value, down), "tick"))
        parts.append(
            f'<svg x="0" y="0" width="100%" height="{height:g}" viewBox="0 0 1000 1000" '
            f'preserveAspectRatio="none">{svg.curves(runs, box)}</svg>'
        )
        parts += texts
        for value in across.ticks:
            x = 100 * (value - across.low) / (across.high - across.low)
            anchor = "start" if x < 4 else "end" if x > 94 else "middle"
            parts.append(svg.text(x, height + 15, _thousands(value), "tick", anchor))
        said = ", ".join(f"{level} {course.mean[-1, k]:.2f}" for k, level in enumerate(course.levels))
        drawn[name] = svg.drawing(
            f"{name}: weights over the iterations; at the end {said}", height + AXIS, parts
        )
    return drawn


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[runs, n, K] -> [runs, K]``, of what is known."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.asarray(total / known.sum(axis=1), dtype=np.float64)


def _spread(summary: Summary) -> tuple[float, ...]:
    """One standard deviation to each side of the mean; nothing where there is none."""
    if summary.mean is None or summary.sd is None:
        return ()
    return summary.mean - summary.sd, summary.mean + summary.sd


def _paired(
    paired: Paired, scale: svg.Scale, y: float, kind: str, images: tuple[float, float] | None
) -> list[str]:
    """Interval, mean and a dot a seed around the height `y`."""
    assert paired.mean is not None
    parts = []
    if paired.low is not None and paired.high is not None:
        said = f"95 % interval {span(paired.low, paired.high)}"
        ends = scale.at(100 * paired.low), scale.at(100 * paired.high)
        parts.append(svg.bar(*ends, y - 4, 8, f"interval {kind}", said))
    if images is not None:
        said = f"seeds and images drawn anew: {span(*images)}"
        parts.append(
            svg.line(scale.at(100 * images[0]), y + 9, scale.at(100 * images[1]), y + 9, "images", said)
        )
    for seed, value in paired.differences.items():
        parts.append(svg.dot(scale.at(100 * value), y, 3.5, "seed", f"seed {seed}: {signed(value)}"))
    title = f"mean {signed(paired.mean)}"
    parts.append(svg.mark(scale.at(100 * paired.mean), y, DIAMOND, f"middle {kind}", title))
    return parts


def _beyond(away: float, y: float, kind: str) -> str:
    """An arrow at the end of the scale, where an arm is far out."""
    if away < 0:
        return svg.mark(svg.LEFT, y, LEFTWARDS, f"middle {kind}", "beyond the scale")
    return svg.mark(svg.RIGHT, y, RIGHTWARDS, f"middle {kind}", "beyond the scale")


def _right(y: float, number: str, wide: str) -> str:
    """A number at the right end; `wide` goes where there is little room."""
    more = f'<tspan class="wide"> {wide.strip()}</tspan>' if wide.strip() else ""
    return f'<text x="100%" y="{y:.1f}" text-anchor="end" class="number">{number}{more}</text>'


def _thousands(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
