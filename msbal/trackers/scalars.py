"""The names under which every tracker shows a run's numbers.

With several groups of levels, the names of a group's numbers begin with the group's: ``rpn/loss/P3``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msbal.engine.record import IntervalRecord


def record_scalars(record: IntervalRecord, named: bool = False) -> dict[str, float]:
    """Return what an interval's record says; an undefined value is NaN.

    Args:
        named: put the group's name in front, since there is more than one.
    """
    by_level = {
        "loss": [loss / record.divisor for loss in record.loss],
        "weight": record.previous_weights or (1.0,) * len(record.levels),
        **{f"loss/{term}": [x / record.divisor for x in row] for term, row in record.loss_by_term.items()},
        "variance": record.variance,
        "reduction": record.variance_reduction,
        **{f"gradient/{part}": norms for part, norms in record.gradient_norm.items()},
    }
    found = {
        f"{what}/{level}": value
        for what, row in by_level.items()
        for level, value in zip(record.levels, row, strict=True)
    }
    found |= {f"cosine/{pair}": cosine for pair, cosine in record.cosines.items()}
    found |= {f"probability/{action}": p for action, p in record.probabilities.items()}
    if record.reward is not None:
        found["reward"] = record.reward
    if record.action in record.probabilities:
        found["action"] = list(record.probabilities).index(record.action)
    return {f"{record.group}/{name}": value for name, value in found.items()} if named else found


def metric_scalars(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of an evaluation in points, 0 to 100, and the AP of each class."""
    found = {f"metrics/{name}": value for name, value in metrics.items()}
    found |= {f"metrics/voc/{name}": value for name, value in (metrics.get("voc") or {}).items()}
    classes = metrics.get("per_class") or {}
    found |= {f"class_AP/{name}": of_class.get("AP") for name, of_class in classes.items()}
    return {name: 100 * value for name, value in found.items() if _is_metric(name, value)}


def _is_metric(name: str, value: object) -> bool:
    kind = name.rpartition("/")[2] if name.startswith("metrics/") else "AP"
    return isinstance(value, (int, float)) and kind.startswith(("AP", "AR", "mAP"))
