"""Diagnoses of made-up models: batches of gradients with known norms and cosines, averaged as a diagnosis does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from scipy import stats

from msbal.records.diagnosis import GroupState, LevelDiagnosis, ModelState, Spread

FIVE = ("P3", "P4", "P5", "P6", "P7")


def spread(values: Any) -> Spread:
    """Mean over batches and its interval by Student's t."""
    values = np.asarray(values, dtype=float)
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Spread(mean, np.nan, np.nan)
    reach = float(t_value(count - 1) * values.std(ddof=1) / np.sqrt(count))
    return Spread(mean, mean - reach, mean + reach)


@cache
def t_value(degrees: int) -> float:
    return float(stats.t.ppf(0.975, degrees))


def make_group(
    norms: Sequence[float],
    *,
    levels: Sequence[str] = FIVE,
    batches: int = 8,
    noise: float = 0.1,
    cosine_noise: float = 0.1,
    cosines: Mapping[tuple[int, int], float] | None = None,
    losses: Sequence[float] | None = None,
    positives: Sequence[float] | None = None,
    ap: Sequence[float | None] = (),
    evaluated: Sequence[int] = (1500, 800, 400, 200, 150),
    signal: Sequence[float | None] | None = None,
    signal_cosines: Mapping[tuple[int, int], float] | None = None,
    group: str = "all",
    rng: np.random.Generator | None = None,
) -> GroupState:
    """One group at one moment: lognormal norms around `norms`, cosines around `cosines` (0 where not given)."""
    rng, k = rng or np.random.default_rng(0), len(norms)
    signal = (0.5,) * k if signal is None else signal
    levels = levels[:k]
    sampled = np.array(norms) * np.exp(noise * rng.normal(size=(batches, k)))
    total = np.maximum(sampled.sum(axis=1, keepdims=True), 1e-12)
    cosine = [[Spread(1.0, 1.0, 1.0)] * k for _ in range(k)]
    for i in range(k):
        for j in range(i):
            middle = (cosines or {}).get((j, i), 0.0)
            cosine[i][j] = cosine[j][i] = spread(
                np.clip(middle + cosine_noise * rng.normal(size=batches), -1, 1)
            )
    of_loss = np.array(losses or [1.0] * k) * np.exp(noise * rng.normal(size=(batches, k)))
    mean = sampled.mean(axis=0)
    weights, alive = np.ones(k), mean > 0
    if alive.any():
        weights[alive] = 1 / mean[alive] / np.mean(1 / mean[alive])
    by_part = {
        "backbone": 0.6 * sampled,
        "neck": 0.5 * sampled,
        "head": 0.62 * sampled * np.exp(0.2 * rng.normal(size=k)),
        "shared": sampled,
    }
    return GroupState(
        group=group,
        levels=tuple(levels),
        loss={
            "cls": tuple(map(spread, 0.7 * of_loss.T)),
            "bbox": tuple(map(spread, 0.3 * of_loss.T)),
        },
        positives=None if positives is None else tuple(Spread(p, 0.8 * p, 1.2 * p) for p in positives),
        norm={part: tuple(map(spread, values.T)) for part, values in by_part.items()},
        share=tuple(map(spread, (sampled / total).T)),
        cosine=tuple(map(tuple, cosine)),
        equal_norms=tuple(weights.tolist()),
        ap=tuple(ap),
        recall=tuple(None if each is None else min(1.0, 1.4 * each) for each in ap),
        evaluated=tuple(evaluated[:k]) if ap else (),
        signal=tuple(signal),
        signal_cosine=tuple(
            tuple(
                spread(
                    (1.0 if i == j else (signal_cosines or {}).get((min(i, j), max(i, j)), 0.0))
                    + 0.03 * np.linspace(-1, 1, batches)
                )
                if all((signal[at] or 0) > 0 for at in (i, j)) else None
                for j in range(k)
            )
            for i in range(k)
        ) if signal else (),
    )  # fmt: skip


def make_diagnosis(
    *moments: GroupState | tuple[GroupState, ...],
    iterations: Sequence[int] = (0, 300),
    batches: int = 8,
    boxes: Sequence[int] | None = (4000, 2500, 900, 300, 120),
    boxes_val: Sequence[int] | None = (1500, 800, 400, 200, 150),
) -> LevelDiagnosis:
    """A diagnosis with one state for each of `moments`, a group or several."""
    states = tuple(
        ModelState(at, each if isinstance(each, tuple) else (each,), {"AP": 0.3} if at else {})
        for at, each in zip(iterations, moments, strict=False)
    )
    groups = [group.group for group in states[0].groups]
    return LevelDiagnosis(
        "retinanet", "torchvision", batches, 4,
        {} if boxes is None else dict.fromkeys(groups, tuple(boxes)),
        {} if boxes_val is None else dict.fromkeys(groups, tuple(boxes_val)),
        states,
    )  # fmt: skip
