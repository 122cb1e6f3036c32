"""Where detectron2's own losses become `LevelLosses`: one file per head.

A splitter stands for one head's ``losses`` method. Matching, sampling and targets stay detectron2's and are
computed once; the splitter computes the same element losses with the same normalisers and weights, but adds them
up level by level. `find` says which splitters a model has, or why it has none.
"""

from __future__ import annotations

from msbal_detectron2 import compat

compat.prepare()

from msbal_detectron2.splitters.base import DictSplitter  # noqa: E402
from msbal_detectron2.splitters.find import SCOPES, find  # noqa: E402

__all__ = ["SCOPES", "DictSplitter", "find"]
