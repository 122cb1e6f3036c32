"""Checkpoints of a run: written atomically, the last two kept, a damaged one skipped."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from msbal.errors import RunError, SpecError
from msbal.records.atomic import replace_with
from msbal.training.tensors import read_tensors

KEPT = 2
_NAME = re.compile(r"iteration_(\d+)\.pth")


def path_of(folder: Path, iteration: int) -> Path:
    """Return the path of an iteration's checkpoint."""
    return folder / f"iteration_{iteration:08d}.pth"


def find(folder: Path) -> list[Path]:
    """Find the checkpoints in a folder, newest first, without opening them."""
    if not folder.is_dir():
        return []
    named = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(named, key=iteration_of, reverse=True)


def iteration_of(path: Path) -> int:
    """Return the iteration in the name of a checkpoint that `find` returned."""
    return int(path.stem.removeprefix("iteration_"))


def prune(path: Path) -> None:
    """Delete all but the checkpoint just written and the one before it.

    Later ones go too: they could not be used, so the run was resumed from before them.
    """
    found = find(path.parent)
    at = found.index(path)
    for other in (*found[:at], *found[at + KEPT :]):
        other.unlink(missing_ok=True)


def require_parts(path: Path, state: Mapping[str, Any], keys: Iterable[str], backend: str) -> None:
    """Refuse a file that torch could read but no run of `backend` has written.

    Raises:
        SpecError: where one of `keys` is missing or holds a single value.
    """
    for key in keys:
        if not isinstance(state.get(key), (Mapping, list, tuple)):
            found = f"`{key}` is a {type(state[key]).__name__}" if key in state else f"has no `{key}`"
            raise SpecError(str(path), found, f"a checkpoint of an msbal {backend} run")


@dataclass(frozen=True)
class Checkpoints:
    """How one backend's checkpoints are written and read.

    Attributes:
        backend: its name.
        keys: what every checkpoint has, besides ``iteration``.
        weights: the key of the model's weights.
    """

    backend: str
    keys: tuple[str, ...]
    weights: str = "model"

    def save(self, folder: Path, state: dict[str, Any]) -> Path:
        """Write a checkpoint atomically, then `prune`.

        Args:
            state: tensors and plain values only.
        """
        path = path_of(folder, state["iteration"])

        def write(temporary: Path) -> None:
            # With a Python file a full disk is an OSError that says so, although torch's writer, closed too early,
            # buries it under an error of its own.
            try:
                with temporary.open("wb") as file:
                    torch.save(state, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

        replace_with(path, write)
        prune(path)
        return path

    def load(self, path: Path) -> dict[str, Any]:
        """Read one checkpoint.

        Raises:
            SpecError: where it is damaged, or is no checkpoint.
        """
        state = read_tensors(path)
        require_parts(path, state, self.keys, self.backend)
        if type(state.get("iteration")) is not int:
            raise SpecError(str(path), f"iteration {state.get('iteration')!r}"[:200], "a whole number")
        return state

    def load_newest(self, path: Path, say: Callable[[str], None]) -> dict[str, Any]:
        """Read a checkpoint, or where it is damaged the one before it.

        Args:
            path: a checkpoint, or the folder of a run's checkpoints.
            say: called with a line for each that is skipped.

        Raises:
            SpecError: where one that is no run's newest is damaged.
            RunError: where none can be read.
        """
        candidates = find(path if path.is_dir() else path.parent)
        if path in candidates:
            candidates = candidates[candidates.index(path) :]
        elif not path.is_dir():
            return self.load(path)
        for candidate in candidates:
            try:
                return self.load(candidate)
            except SpecError as error:
                say(f"passed over a damaged checkpoint: {error}")
        raise RunError(str(path), "holds no checkpoint that can be read", fix="start anew with --force")

    def load_weights(self, model: nn.Module, path: Path) -> dict[str, Any]:
        """Load a checkpoint's weights into a model, or its ``average`` (an `AveragedModel`'s state) if it has one.

        Returns:
            all that the checkpoint holds.

        Args:
            path: see `load_newest`.

        Raises:
            SpecError: where they do not fit the model.
            RunError: where no checkpoint can be read.
        """
        state = self.load_newest(path, lambda text: warnings.warn(text, stacklevel=4))
        average = state.get("average") or {}
        averaged = {
            name.removeprefix("module."): value for name, value in average.items() if name != "n_averaged"
        }
        try:
            model.load_state_dict(averaged or state[self.weights])
        except RuntimeError as error:
            raise SpecError(
                str(path), f"does not fit the model: {str(error)[:300]}", "a checkpoint of this spec"
            ) from error
        return state


@contextmanager
def resuming() -> Iterator[None]:
    """Refuse a checkpoint that does not fit, while its parts are loaded.

    A file that is not damaged may still hold anything, and torch's own loading then fails in any way.

    Raises:
        SpecError: from any exception within.
    """
    try:
        yield
    except Exception as error:
        raise SpecError(
            "--resume",
            f"the checkpoint does not fit the spec: {' '.join(str(error).split())[:300]}",
            "the spec that the run was started with",
            "leave the spec as it was, or start anew with --force",
        ) from error
