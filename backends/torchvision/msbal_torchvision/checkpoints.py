"""Checkpoints: written whole or not at all, the last two kept, a damaged one passed over.

Content: ``iteration``, and the state dictionaries ``model``, ``optimizer``, ``scheduler``, ``scaler``,
``balancers`` and, where asked for, ``average`` (the averaged weights). Only tensors and plain values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from msbal.errors import RunError, SpecError
from msbal.records.atomic import replace_with
from msbal_torchvision.weights import read_tensors

KEPT = 2
_NAME = re.compile(r"iteration_(\d+)\.pth")
_KEYS = ("iteration", "model", "optimizer", "scheduler", "scaler", "balancers")


def path_of(folder: Path, iteration: int) -> Path:
    """Where the checkpoint of an iteration lies."""
    return folder / f"iteration_{iteration:08d}.pth"


def find(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first; none is opened."""
    if not folder.is_dir():
        return []
    named = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(named, key=lambda path: path.name, reverse=True)


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Write a checkpoint atomically, then delete all but the last two."""
    path = path_of(folder, state["iteration"])
    replace_with(path, lambda temporary: torch.save(state, temporary))
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
        raise SpecError(str(path), f"has no `{missing[0]}`", "a checkpoint of a msbal torchvision run")
    if type(state["iteration"]) is not int:
        raise SpecError(str(path), f"iteration {state['iteration']!r}"[:200], "a whole number")
    return state


def load_newest(path: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Read a checkpoint, or the one before it where it is damaged.

    Args:
        path: a checkpoint, or the folder of a run's checkpoints.
        say: told of each that is passed over.

    Raises:
        RunError: where none can be read.
    """
    folder = path if path.is_dir() else path.parent
    candidates = find(folder)
    if path.is_file() and path not in candidates:
        candidates = [path]
    elif path in candidates:
        candidates = candidates[candidates.index(path) :]
    for candidate in candidates:
        try:
            return load(candidate)
        except SpecError as error:
            say(f"passed over a damaged checkpoint: {error}")
    raise RunError(str(path), "holds no checkpoint that can be read", fix="start anew with --force")
