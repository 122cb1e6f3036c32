"""Checkpoints of a run, in detectron2's own layout; see `msbal.training.checkpoints`.

Content: ``iteration``, ``model``, ``trainer`` (optimizer, scaler and hooks), ``balancing`` (the balancers, and each
process's loss normalizer) and, where asked for, ``average``. Only tensors and plain values;
``DetectionCheckpointer`` loads the model from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msbal.training.checkpoints import Checkpoints, find, path_of
from msbal_detectron2.weights import plain

__all__ = ["find", "load", "load_newest", "path_of", "save"]

_OURS = Checkpoints("detectron2", ("model", "trainer", "balancing"))
load, load_newest = _OURS.load, _OURS.load_newest


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Write a checkpoint; NumPy's numbers become Python's."""
    return _OURS.save(folder, plain(state))
