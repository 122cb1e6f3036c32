"""Which splitter knows a head of mmdet's, by the class of the head and its bases; and which heads none can split."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from msbal_mmdet.splitters.base import HeadSplitter

_QUERIES = "it predicts a set of queries, which belong to no pyramid level"
_ONE_LEVEL = "it predicts on one level only"
_HOURGLASS = "its losses are listed by hourglass stack, all on one level"

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "AutoAssignHead": "its loss pools each object's evidence over all levels, so it is no sum over levels",
        "FreeAnchorRetinaHead": "its loss ranks bags of anchors that span several levels, so it is no sum over levels",
        "CenterNetHead": _ONE_LEVEL,
        "YOLOFHead": _ONE_LEVEL,
        "CornerHead": _HOURGLASS,
        "CentripetalHead": _HOURGLASS,
        "CLRHead": "it detects lanes in stages that each see all levels",
        "DETRHead": _QUERIES,
        "EmbeddingRPNHead": "its proposals are learned queries and have no loss of their own",
        "MaskFormerHead": _QUERIES,
    }
)
"""Heads that cannot be balanced by level, by class name, and why; subclasses are refused with their base."""

REFUSED_MODELS: Mapping[str, str] = MappingProxyType(
    {
        "DeepSORT": "it is not trained: its detector and its re-identification model are, each on its own",
        "Detectron2Wrapper": "its heads are detectron2's own, which the detectron2 backend balances",
    }
)
"""Detectors and trackers, by class name, that are refused whatever heads they have; subclasses with their base."""

_SPLITTERS: dict[str, type[HeadSplitter]] = {}


def register(splitter: type[HeadSplitter]) -> type[HeadSplitter]:
    """Register a splitter under its `heads`. Usable as a decorator, also outside this package."""
    for name in splitter.heads:
        _SPLITTERS[name] = splitter
    return splitter


def known() -> dict[str, type[HeadSplitter]]:
    """Return all splitters of dense heads by the head's class name."""
    return dict(_SPLITTERS)


def look_up(
    head: nn.Module, splitters: Mapping[str, type[HeadSplitter]] | None = None
) -> type[HeadSplitter] | str | None:
    """Return how to split a head.

    Args:
        splitters: by the head's class name; by default those that are registered.

    Returns:
        its splitter; or why it has none; or None where no splitter knows such a head.
    """
    overridden: set[str] = set()
    for cls in type(head).__mro__:
        package = cls.__module__.partition(".")[0]
        splitter = (_SPLITTERS if splitters is None else splitters).get(cls.__name__)
        if splitter is not None and splitter.package in (package, ""):
            own = sorted(overridden & {splitter.method, *splitter.called})
            if own:
                return (
                    f"it computes its loss in its own way ({own[0]} is not that of its base {cls.__name__}), which "
                    "nobody has told msbal about; see msbal_mmdet.splitters.register"
                )
            return splitter
        if cls.__name__ in REFUSED and package == "mmdet":
            return REFUSED[cls.__name__]
        overridden |= set(vars(cls))
    return None
