"""Finds the loss splitters of a model, or of a criterion alone."""

from __future__ import annotations

from typing import Any

from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import loss as losses

from msbal.backend.kit.splitter import require_levels
from msbal.errors import SpecError
from msbal_ultralytics.splitters.criterion import CriterionSplitter, OrientedSplitter

_REASONS: dict[str, str] = {
    "RTDETRDetectionModel": "its decoder's losses are by query and have no levels",
    "WorldModel": "its classes are texts, whose embeddings all levels share",
    "YOLOEModel": "its classes are prompts, and its criterion changes with them",
    "ClassificationModel": "a classifier has no pyramid levels",
    "SemanticSegmentationModel": "its loss is by pixel, not by level",
    "DepthModel": "its loss is by pixel, not by level",
    "DistillationModel": "a teacher's loss is added to its own",
}
"""Why a model cannot be balanced, by its class or one of its bases."""
BALANCED = (
    "a YOLO model that detects (v3 to 26), its boxes upright or oriented, with masks or keypoints or without"
)


def require_detection(model: Any) -> None:
    """Refuse a model that cannot be balanced, with the reason. Raises: SpecError."""
    kind = type(model)
    for base in kind.__mro__:
        if base.__name__ in _REASONS:
            raise SpecError(f"model: {kind.__name__}", _REASONS[base.__name__], BALANCED)
    if not isinstance(model, tasks.DetectionModel):
        raise SpecError(f"model: {kind.__name__}", "no detection model of ultralytics", BALANCED)
    require_levels(type(model.model[-1]).__name__, [float(stride) for stride in model.stride])


def find(model: nn.Module) -> list[CriterionSplitter]:
    """Return the splitters of a model, whose criterion is made here where it has none yet.

    Raises:
        SpecError: where the model cannot be balanced, with the reason.
    """
    built: Any = model
    require_detection(built)
    if not hasattr(getattr(model, "args", None), "box"):
        raise SpecError(
            f"model: {type(model).__name__}.args", "no loss gains", "ultralytics' settings",
            "for YOLO.train() give balance() the YOLO itself; for a loop of your own set model.args = "
            "ultralytics.cfg.get_cfg()",
        )  # fmt: skip
    if getattr(built, "criterion", None) is None:
        built.criterion = built.init_criterion()
    return find_in_criterion(built.criterion, type(built.model[-1]).__name__)


def find_in_criterion(criterion: Any, head: str = "") -> list[CriterionSplitter]:
    """Return the splitters of a criterion: one, or two where a head is trained with two assignments (v10, 26).

    Raises:
        SpecError: where its loss is not a sum over levels that msbal knows.
    """
    branches = {"o2m": "one2many", "o2o": "one2one"}
    if all(hasattr(criterion, name) for name in branches.values()):
        return [
            _splitter(getattr(criterion, name), group, head, f"criterion.{name}")
            for group, name in branches.items()
        ]
    return [_splitter(criterion, "all", head, "criterion")]


def _splitter(criterion: Any, group: str, head: str, place: str) -> CriterionSplitter:
    if not isinstance(criterion, losses.v8DetectionLoss):
        raise SpecError(f"model: {type(criterion).__name__}", "no v8DetectionLoss of ultralytics", BALANCED)
    kind = OrientedSplitter if isinstance(criterion, losses.v8OBBLoss) else CriterionSplitter
    return kind(criterion, group, head or type(criterion).__name__, place)
