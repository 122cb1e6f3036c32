"""Interval records as scalars in detectron2's EventStorage, from where its writers take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msbal.record import IntervalRecord

if TYPE_CHECKING:
    from detectron2.utils.events import EventStorage


def scalars(record: IntervalRecord) -> dict[str, float]:
    """What a record says, by names that TensorBoard groups: ``msbal/weight/P3``, ``msbal/rpn/loss/P3/cls``.

    No name begins with ``loss``: nothing may take these for terms of the objective.
    """
    head = "msbal" if record.group == "all" else f"msbal/{record.group}"
    found: dict[str, float] = {}
    for k, level in enumerate(record.levels):
        found[f"{head}/weight/{level}"] = record.weights[k]
        found[f"{head}/variance/{level}"] = record.variance[k]
        for term, losses in record.loss_by_term.items():
            found[f"{head}/loss/{level}/{term}"] = losses[k] / max(record.count, 1)
    for action, probability in record.probabilities.items():
        found[f"{head}/probability/{action}"] = probability
    if record.reward is not None:
        found[f"{head}/reward"] = float(record.reward)
    return found


def put(storage: EventStorage, record: IntervalRecord) -> None:
    """Put a record into a storage, unsmoothed: it is one decision, not a noisy reading."""
    for name, value in scalars(record).items():
        storage.put_scalar(name, value, smoothing_hint=False)
