"""Records of made-up runs: decreasing noisy losses, taken through equations 2 to 7 the slow way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from msbal.records import IntervalRecord, to_json

ACTIONS = ("avw", "min_loss", "max_loss", "equal")
FIVE = ("P3", "P4", "P5", "P6", "P7")


def gradients(rng: np.random.Generator, levels: int) -> dict[str, Any]:
    drawn = rng.normal(size=(levels, 7)) * np.array([*(4.0 / 2**i for i in range(levels - 1)), 0.0])[:, None]
    norm = np.linalg.norm(drawn, axis=1)
    unit = drawn / np.where(norm > 0, norm, 1.0)[:, None]
    return {
        "gradient_norm": {"backbone": tuple((norm / 3).tolist()), "shared": tuple(norm.tolist())},
        "gradient_cosine": tuple(map(tuple, (unit @ unit.T).tolist())),
        "gradient_count": 1,
    }


def simulate(
    levels: Sequence[str] = FIVE,
    terms: Sequence[str] = ("cls", "bbox"),
    intervals: int = 12,
    alpha: int = 10,
    seed: int = 0,
    strategy: str = "rlo",
    group: str = "all",
    learning_rate: float | None = None,
    positives: Sequence[float] | None = None,
    measure: int = 0,
) -> list[IntervalRecord]:
    """Return the records; with `measure`, every so many intervals have gradients, the coarsest level none."""
    rng = np.random.default_rng(seed)
    levels_number, iterations = len(levels), intervals * alpha
    fall = 0.3 + np.exp(-np.arange(iterations) / (0.2 * iterations))
    scale = 0.6 ** np.arange(levels_number)
    losses = {
        term: fall[:, None] * scale * rng.gamma(4.0, 0.25, (iterations, levels_number)) for term in terms
    }
    weights, variance, total = np.ones(levels_number), np.ones(levels_number), None
    probabilities, action = dict.fromkeys(ACTIONS, 0.25), None
    records = []
    for t in range(1, intervals + 1):
        part = {term: values[(t - 1) * alpha : t * alpha] for term, values in losses.items()}
        summed = sum(part.values())
        loss, now = summed.sum(axis=0), summed.var(axis=0, ddof=1)
        reduction = (variance - now) / (variance + 1e-5)
        reward = 0 if total is None else int(np.sign(total - loss.sum()))
        if strategy == "rlo":
            if action is not None:
                old = probabilities[action]
                new = min(max(old + (0.01 if reward > 0 else -0.01), 0.1), 0.9)
                probabilities = {
                    name: new if name == action else p * (1 - new) / (1 - old)
                    for name, p in probabilities.items()
                }
            action = str(rng.choice(ACTIONS, p=np.array(list(probabilities.values()))))
        else:
            action = strategy
        before, weights = weights, np.ones(levels_number)
        order = {"avw": -reduction, "min_loss": loss, "max_loss": -loss}.get(action)
        if order is not None:
            top = np.argsort(order, kind="stable")[:2]
            weights[top] = 1 + 1.5 * loss[top] / loss.sum()
        records.append(
            IntervalRecord(
                interval=t,
                iteration=t * alpha,
                levels=tuple(levels),
                loss=tuple(loss.tolist()),
                loss_by_term={term: tuple(values.sum(axis=0).tolist()) for term, values in part.items()},
                variance=tuple(now.tolist()),
                variance_reduction=tuple(reduction.tolist()),
                weights=tuple(weights.tolist()),
                reward=reward if strategy == "rlo" else None,
                action=action,
                probabilities=dict(probabilities) if strategy == "rlo" else {},
                group=group,
                count=alpha,
                previous_weights=tuple(before.tolist()),
                learning_rate=learning_rate,
                positives=None if positives is None else tuple(positives),
                **(gradients(rng, levels_number) if measure and (t - 1) % measure == 0 else {}),
            )
        )
        variance, total = now, loss.sum()
    return records


def lines(records: Sequence[IntervalRecord]) -> str:
    return "".join(to_json(record) + "\n" for record in records)
