"""Turns detectron2's own losses into `LevelLosses`, one file a head.

A splitter replaces one head's ``losses`` method. Matching, sampling and targets stay detectron2's and are computed
once; the splitter computes the same element losses with the same normalisers and weights, but adds them up level by
level. `find` returns a model's splitters, or says why it has none.
"""

from __future__ import annotations

from msbal_detectron2 import compat

compat.prepare()

from msbal_detectron2.splitters.base import DictSplitter  # noqa: E402
from msbal_detectron2.splitters.find import SCOPES, find  # noqa: E402

__all__ = ["SCOPES", "DictSplitter", "find"]
