"""Checkpoints of a run; see `msbal.training.checkpoints`.

Content: ``iteration``, and the state dictionaries ``model``, ``optimizer``, ``scheduler``, ``scaler``,
``balancers`` and, where asked for, ``average`` (the averaged weights). Only tensors and plain values.
"""

from __future__ import annotations

from msbal.training.checkpoints import Checkpoints, find, path_of

__all__ = ["find", "load", "load_newest", "path_of", "save"]

_OURS = Checkpoints("torchvision", ("model", "optimizer", "scheduler", "scaler", "balancers"))
save, load, load_newest = _OURS.save, _OURS.load, _OURS.load_newest
