"""Heads that cannot be balanced by level, and the true reason for each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_QUERIES = "it predicts a set of queries, which belong to no pyramid level"
_BAGS = "its loss ranks bags of anchors that span several levels, so it is no sum over levels"

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "AutoAssignHead": "its loss pools each object's evidence over all levels, so it is no sum over levels",
        "FreeAnchorRetinaHead": _BAGS,
        "CenterNetHead": "it predicts on one level only",
        "YOLOFHead": "it predicts on one level only",
        "CornerHead": "its losses are listed by hourglass stack, all on one level",
        "CentripetalHead": "its losses are listed by hourglass stack, all on one level",
        "CLRHead": "it detects lanes in stages that each see all levels",
        "DETRHead": _QUERIES,
        "EmbeddingRPNHead": "its proposals are learned queries and have no loss of their own",
        "MaskFormerHead": _QUERIES,
    }
)
"""By class name; subclasses are refused with their base."""

REFUSED_MODELS: Mapping[str, str] = MappingProxyType(
    {
        "DeepSORT": "it is not trained: its detector and its re-identification model are, each on its own",
        "Detectron2Wrapper": "its heads are detectron2's own, which the detectron2 backend balances",
    }
)
"""Detectors and trackers, by class name, whatever heads are in them; subclasses with their base."""
