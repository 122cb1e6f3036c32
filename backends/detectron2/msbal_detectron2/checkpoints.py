"""Checkpoints of a run: detectron2's own layout, written whole or not at all, the last two kept.

Content: ``iteration``, ``model``, ``trainer`` (optimizer, scaler and hooks), ``balancing``, ``normalizers`` (each
process's) and, where asked for, ``average``. Only tensors and plain values; ``DetectionCheckpointer`` loads
the model from it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from msbal.errors import RunError, SpecError
from msbal.records.atomic import replace_with
from msbal_detectron2.weights import plain, read_tensors

KEPT = 2
_KEYS = ("iteration", "model", "trainer", "balancing", "normalizers")


def find(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first."""
    return sorted(folder.glob("iteration_*.pth"), key=lambda path: path.name, reverse=True)


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Write a checkpoint atomically, then delete all but the last two."""
    path = folder / f"iteration_{state['iteration']:08d}.pth"
    content = plain(state)
    replace_with(path, lambda temporary: torch.save(content, temporary))
    for old in find(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint.

    Raises:
        SpecError: where it is damaged or no checkpoint.
    """
    state = read_tensors(path)
    missing = [key for key in _KEYS if key not in state]
    if missing:
        raise SpecError(str(path), f"has no `{missing[0]}`", "a checkpoint of a msbal detectron2 run")
    return state


def load_newest(path: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Read a checkpoint, or the one before it where it is damaged.

    Args:
        say: told of each that is passed over.

    Raises:
        RunError: where none can be read.
    """
    candidates = find(path.parent)
    candidates = candidates[candidates.index(path) :] if path in candidates else [path]
    for candidate in candidates:
        try:
            return load(candidate)
        except SpecError as error:
            say(f"passed over a damaged checkpoint: {error}")
    raise RunError(str(path), "holds no checkpoint that can be read", fix="start anew with --force")
