"""Interval records as scalars, for TensorBoard and its like."""

from __future__ import annotations

from collections.abc import Sequence

from msbal.backend.protocol import LevelGroup
from msbal.engine.record import IntervalRecord


def interval_scalars(record: IntervalRecord, groups: Sequence[LevelGroup]) -> dict[str, float]:
    """What a record says: ``msbal/weight/P3``, ``msbal/value/P3/cls``, ``msbal/probability/avw``, ...

    Of several groups, or with `per_term`, the group comes first: ``msbal/rpn/weight/P3``. No name has "loss" in it
    (``min_loss`` is ``min``): mmengine's parse_losses adds such a value to the objective, and detectron2's console
    prints each.

    Args:
        groups: all that is balanced.
    """
    alone = [group.name for group in groups] == [record.group]
    head = "msbal" if alone else f"msbal/{record.group.replace(':', '/')}"
    found: dict[str, float] = {}
    for k, level in enumerate(record.levels):
        found[f"{head}/weight/{level}"] = record.weights[k]
        found[f"{head}/variance/{level}"] = record.variance[k]
        for term, losses in record.loss_by_term.items():
            found[f"{head}/value/{level}/{term}"] = losses[k] / max(record.count, 1)
    for action, probability in record.probabilities.items():
        found[f"{head}/probability/{action}"] = probability
    if record.reward is not None:
        found[f"{head}/reward"] = record.reward
    return {_without_loss(name): float(value) for name, value in found.items()}


def _without_loss(name: str) -> str:
    return name.replace("_loss", "").replace("loss_", "").replace("loss", "value")
