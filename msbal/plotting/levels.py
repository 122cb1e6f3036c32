"""Describe a diagnosis of levels: gradient norms, the three imbalances side by side, cosines, AP and recall.

Shape legend: K levels, finest first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from msbal.plotting.panel import Matrix, Panel, Spreads
from msbal.plotting.series import Bools, Floats
from msbal.plotting.style import BAD, GOOD, INK
from msbal.records.diagnosis import GroupState, LevelDiagnosis, ModelState, Spread

LIGHT, MIDDLE = "#c4c4c4", "#868686"
PARTS: Mapping[str, tuple[str, str]] = {
    "model": (GOOD, "circle"),
    "backbone": (GOOD, "circle"),
    "neck": (MIDDLE, "square"),
    "head": (BAD, "triangle-up"),
    "shared": (INK, "diamond"),
}
"""Colour and mark of a part's norms; blue, orange and greys stay apart for every sight."""


def describe_diagnosis(diagnosis: LevelDiagnosis, run: int = 0) -> list[list[Panel]]:
    """Return rows of panels, of each group in turn: at the first and at the last moment, on one scale."""
    rows = []
    for name in dict.fromkeys(group.group for state in diagnosis.moments for group in state.groups):
        found = [
            (state, group) for state in diagnosis.moments for group in state.groups if group.group == name
        ]
        states = [group for _, group in found]
        norms, shares = _norm_range(states), _share_top(diagnosis, states)
        made = [
            [_norms(state, group, norms, run) for state, group in found],
            [_shares(diagnosis, state, group, shares, run) for state, group in found],
            [_cosines(diagnosis, state, group, run) for state, group in found if len(group.levels) > 1],
            [_weights(found, run), *(_metrics(state, group, run) for state, group in found[-1:] if group.ap)],
        ]
        several = len(diagnosis.states[0].groups) > 1
        rows += [[replace(panel, group=name if several else "") for panel in row] for row in made if row]
    return rows


def _panel(key: str, title: str, state: ModelState, says: str, levels: Sequence[str], run: int) -> Panel:
    moment = "-last" if state.iteration else "-start"
    return Panel(
        f"levels-{key}{moment}", f"{title}, {state.when}", says, runs=(run,), x=(-0.5, len(levels) - 0.5),
        xlabel="", xticks={float(place): level for place, level in enumerate(levels)},
    )  # fmt: skip


def _norms(state: ModelState, group: GroupState, limits: tuple[float, float], run: int) -> Panel:
    """Describe the norms on a log scale. A norm of 0 has no mark."""
    places, step = np.arange(len(group.levels), dtype=np.float64), 0.7 / max(4, len(group.norm))
    spreads = []
    for n, (part, values) in enumerate(group.norm.items()):
        y, low, high = _columns(values)
        positive = y > 0
        color, marker = PARTS.get(part, (MIDDLE, "circle"))
        spreads.append(
            Spreads(
                part, color, places + (n - (len(group.norm) - 1) / 2) * step, np.where(positive, y, np.nan),
                np.where(positive, np.maximum(low, limits[0]), np.nan), np.where(positive, high, np.nan),
                [f"{level}: {_told(value)}" for level, value in zip(group.levels, values, strict=True)],
                marker, run=run,
            )
        )  # fmt: skip
    says = "of each level's loss, on each part of the model; shared: the parameters that levels share"
    panel = _panel("norms", "Gradient norm", state, says, group.levels, run)
    return replace(panel, ylabel="Norm $\\|g_i\\|$", spreads=spreads, log=True, range=limits)


def _shares(diagnosis: LevelDiagnosis, state: ModelState, group: GroupState, top: float, run: int) -> Panel:
    """Describe the three imbalances: of boxes and positive samples, of the loss, and of the gradient."""
    quantities = _quantities(diagnosis, group)
    spreads = _bars(group.levels, quantities, lambda one: _told(one, percent=True), run)
    says = "how much of the training boxes, positive samples, loss and gradient is each level's; line: an equal share"
    panel = _panel("shares", "Each level's part", state, says, group.levels, run)
    ticks = [value for value in np.arange(0.0, 1.01, 0.1 if top < 0.6 else 0.25).tolist() if value <= top]
    return replace(
        panel, ylabel="Share", spreads=spreads, range=(0.0, top), rules=[1 / len(group.levels)],
        ticks={value: f"{value:.0%}" for value in ticks},
    )  # fmt: skip


def _quantities(diagnosis: LevelDiagnosis, group: GroupState) -> list[tuple[str, str, Floats]]:
    """Return what is shared out among the levels, each with its colour and ``[3, K]``: mean, low and high."""
    found: list[tuple[str, str, Floats]] = []
    boxes = diagnosis.boxes.get(group.group)
    if boxes is not None and any(boxes):
        found.append(("boxes", LIGHT, _exact(np.array(boxes) / np.sum(boxes))))
    if group.positives is not None:
        positives = _columns(group.positives)[0]
        if np.nansum(positives) > 0:
            found.append(("positives", MIDDLE, _exact(positives / np.nansum(positives))))
    loss = sum((_columns(term)[0] for term in group.loss.values()), np.zeros(len(group.levels)))
    if (loss >= 0).all() and loss.sum() > 0:
        found.append(("loss", GOOD, _exact(loss / loss.sum())))
    return [*found, ("gradient", BAD, _columns(group.share))]


def _cosines(diagnosis: LevelDiagnosis, state: ModelState, group: GroupState, run: int) -> Panel:
    levels, k = group.levels, len(group.levels)
    below = np.tril(np.ones((k, k), dtype=bool), -1)[1:, :-1]
    means, low, high = (
        np.array([[each[n] for each in row] for row in group.cosine])[1:, :-1] for n in range(3)
    )
    texts = [
        [
            f"{levels[i + 1]} and {levels[j]}: {_told(group.cosine[i + 1][j])}"
            + _without_noise(diagnosis, group, i + 1, j)
            for j in range(k - 1)
        ]
        for i in range(k - 1)
    ]
    bold: Bools = (low > 0) | (high < 0)
    panel = _panel(
        "cosines", "Cosines of the gradients", state,
        "of each two levels, on the parameters that they share: 1 alike, 0 unrelated, −1 opposite; bold: the interval "
        "excludes 0", levels[:-1], run,
    )  # fmt: skip
    return replace(
        panel, matrix=Matrix(np.where(below, means, np.nan), bold, texts, run), range=(-0.5, k - 1.5),
        ticks={float(k - 2 - i): level for i, level in enumerate(levels[1:])},
    )  # fmt: skip


def _without_noise(diagnosis: LevelDiagnosis, group: GroupState, i: int, j: int) -> str:
    cosine = group.signal_cosine[i][j] if diagnosis.tells(group, i, j) else None
    return "" if cosine is None else f"; without the noise of batches: {_told(cosine)}"


def _weights(found: Sequence[tuple[ModelState, GroupState]], run: int) -> Panel:
    """Describe the weights that would give all gradients one norm, of the first and the last moment side by side."""
    first, group = found[0]
    colors = [MIDDLE, BAD][-len(found) :]
    weights = [np.array(each.equal_norms, dtype=np.float64) for _, each in found]
    series = [
        (state.when, color, _exact(values))
        for (state, _), color, values in zip(found, colors, weights, strict=True)
    ]
    spreads = _bars(group.levels, series, _told, run)
    title, top = "Weights for equal gradient norms", 1.2 * max(float(np.nanmax(values)) for values in weights)
    says = (
        "what each level's loss would have to be multiplied by: a question for an ablation, no recommendation"
    )
    panel = _panel("weights", title, first, says, group.levels, run)
    return replace(
        panel,
        key="levels-weights",
        title=title,
        ylabel="Weight $w_i$",
        spreads=spreads,
        range=(0.0, top),
        rules=[1.0],
    )


def _metrics(state: ModelState, group: GroupState, run: int) -> Panel:
    series = [
        (name, color, _exact(np.array([math.nan if value is None else 100 * value for value in values])))
        for name, color, values in (("AP", GOOD, group.ap), ("recall", LIGHT, group.recall))
    ]
    spreads = _bars(group.levels, series, _told, run)
    panel = _panel(
        "ap", "AP and recall", state, "of the validation boxes that each level answers for, in points: 100 is perfect",
        [f"{level}\n{number:,}" for level, number in zip(group.levels, group.evaluated, strict=True)], run,
    )  # fmt: skip
    largest = max(float(np.nanmax(one.y, initial=0.0)) for one in spreads)
    top = next(value for value in (25, 50, 75, 100) if value >= min(largest, 100.0))
    return replace(
        panel, xlabel="Level, and its boxes", ylabel="Points", spreads=spreads, range=(0.0, 1.18 * top),
        ticks={float(value): f"{value}" for value in range(0, top + 1, 25 if top > 50 else 10)},
    )  # fmt: skip


def _bars(
    levels: Sequence[str],
    series: Sequence[tuple[str, str, Floats]],
    tell: Callable[[Spread], str],
    run: int,
) -> list[Spreads]:
    """Return bars side by side at each level.

    Args:
        series: names, colours and ``[3, K]``: mean, low and high.
    """
    width = min(0.5, 0.84 / len(series))
    found = []
    for n, (name, color, (y, low, high)) in enumerate(series):
        x = np.arange(len(levels), dtype=np.float64) + (n - (len(series) - 1) / 2) * width
        each = [Spread(*map(float, one)) for one in zip(y, low, high, strict=True)]
        texts = [f"{level}: {tell(one)}" for level, one in zip(levels, each, strict=True)]
        found.append(Spreads(name, color, x, y, low, high, texts, width=0.94 * width, run=run))
    return found


def _norm_range(states: Sequence[GroupState]) -> tuple[float, float]:
    """Return the range of all norms, with room for the legend above."""
    ends = np.array([value for state in states for values in state.norm.values() for value in values])
    means = ends[:, 0][ends[:, 0] > 0]
    if not means.size:
        return 0.1, 10.0
    low, high = means.min() / 2.5, max(means.max(), np.nanmax(ends[:, 2], initial=0.0)) * 1.3
    return float(low), float(high * (high / low) ** 0.16)


def _share_top(diagnosis: LevelDiagnosis, states: Sequence[GroupState]) -> float:
    """Return the top of the shares, with room for the legend above."""
    largest = max(
        float(np.nanmax(values, initial=0.1))
        for state in states
        for _, _, values in _quantities(diagnosis, state)
    )
    return 1.2 * min(1.0, largest)


def _columns(spreads: Sequence[Spread]) -> Floats:
    """Return means, lower and upper ends: ``[3, K]``."""
    return np.array([tuple(spread) for spread in spreads], dtype=np.float64).T


def _exact(values: Floats) -> Floats:
    """Return `values` without intervals: ``[K] -> [3, K]``."""
    return np.stack([values, np.full_like(values, np.nan), np.full_like(values, np.nan)])


def _told(spread: Spread, *, percent: bool = False) -> str:
    def text(value: float) -> str:
        return f"{value:.1%}" if percent else f"{value:.3g}"

    interval = f" ({text(spread.low)} to {text(spread.high)})" if math.isfinite(spread.low) else ""
    return text(spread.mean) + interval if math.isfinite(spread.mean) else "none"
