"""Checkpoints of mmengine, read without running anybody's code.

torch 2.6 and later load with ``weights_only=True`` by default: pickled code is refused. mmengine's own
checkpoints hold its ``HistoryBuffer`` under ``message_hub``, which that refuses too; original mmengine
0.10 then fails to resume, and onedl-mmengine loads again with pickled code allowed. What msbal saves
therefore holds tensors, numbers and strings alone, and `read` lets nothing else in.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msbal.errors import MsbalError, RunError, SpecError
from msbal.training.checkpoints import find, path_of, prune, require_parts
from msbal.training.tensors import read_tensors

__all__ = ["find", "load_weights", "make_plain", "newest_readable", "path_of", "prune", "read", "read_start"]


_PARTS = ("meta", "state_dict", "message_hub", "optimizer", "msbal")


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU.

    Raises:
        RunError: where it cannot be read, or holds more than plain data.
    """
    try:
        return read_tensors(path)
    except SpecError as error:
        raise RunError(
            str(path), f"cannot be read: {error.found}", "a checkpoint of a run", error.fix
        ) from error


def local(name: str, where: str) -> Path:
    """The file that a config or spec names to start from: a path, or an address, from which it is fetched once.

    Raises:
        SpecError: where there is no such file; `where` names the key.
    """
    if not name.startswith(("http://", "https://")):
        path = Path(name).expanduser()
        if not path.is_file():
            raise SpecError(where, f"{name} is no file", "a checkpoint")
        return path.absolute()
    path = Path(torch.hub.get_dir()) / "checkpoints" / name.rpartition("/")[2]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(name, str(path), progress=False)
        except OSError as error:
            raise SpecError(
                where, f"{name} cannot be fetched: {error}", "a checkpoint", f"or put the file at {path}"
            ) from error
    return path


def read_start(path: Path, where: str = "model.weights") -> dict[str, torch.Tensor]:
    """The weights in a checkpoint of mmdet's to start from; of what else is in it nothing runs.

    mmengine runs what it cannot load otherwise, its own history of logged values and all else alike.

    Raises:
        SpecError: where it cannot be read, or has no weights.
    """
    content = read_tensors(path, foreign=True)
    weights = content.get("state_dict", content)
    if isinstance(weights, Mapping):
        weights = {str(k): value for k, value in weights.items() if isinstance(value, torch.Tensor)}
    if not weights or not isinstance(weights, dict):
        raise SpecError(where, f"{path} has no weights", "a checkpoint with a state_dict")
    return weights


def newest_readable(path: Path, report: Any) -> Path:
    """`path`, or the newest older checkpoint beside it that can be read.

    Args:
        report: called with a line about each that cannot.
    """
    candidates = [p for p in find(path.parent) if p.name <= path.name]
    problem: MsbalError | None = None
    for candidate in candidates or [path]:
        try:
            require_parts(candidate, read(candidate), _PARTS, "mmdet")
            return candidate
        except MsbalError as error:
            report(f"passed over a damaged checkpoint: {error}")
            problem = problem or error
    assert problem is not None
    raise problem


def make_plain(checkpoint: dict[str, Any]) -> None:
    """Leave nothing in a checkpoint that `read` would refuse. In place.

    The history of logged values goes; it only smooths what is printed.
    """
    hub = checkpoint.get("message_hub", {})
    infos = {k: v for k, v in hub.get("runtime_info", {}).items() if isinstance(v, int | float | str | bool)}
    checkpoint["message_hub"] = {
        "log_scalars": OrderedDict(),
        "runtime_info": OrderedDict(infos),
        "resumed_keys": OrderedDict((key, True) for key in infos),
    }
    meta = checkpoint.get("meta", {})
    checkpoint["meta"] = {k: v for k, v in meta.items() if isinstance(v, int | float | str | bool | None)}
    for key, value in checkpoint.items():
        if key not in ("state_dict", "ema_state_dict"):
            checkpoint[key] = _plain(value)


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's; schedulers and the hub keep some."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        made = copy.copy(value)  # of its own class: MultiStepLR keeps its milestones in a Counter
        for k, v in value.items():
            made[k] = _plain(v)
        return made
    if isinstance(value, list | tuple):
        return type(value)(_plain(v) for v in value)
    return value


def require_fit(model: torch.nn.Module, weights: dict[str, Any]) -> None:
    """Refuse to resume from another model's weights, which mmengine loads as far as they go.

    Raises:
        SpecError: naming the first tensor that does not fit.
    """
    own = model.state_dict()
    for name in sorted({*own, *weights}):
        here, there = (tuple(state[name].shape) if name in state else None for state in (own, weights))
        if here != there:
            raise SpecError(
                "--resume",
                f"the checkpoint does not fit the spec: {name} is {there or 'missing'}",
                str(here or "no such tensor"),
                "leave the spec as it was, or start anew with --force",
            )


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a checkpoint's weights into `model`.

    Raises:
        RunError: where they do not fit.
    """
    state = read(path)
    weights = state.get("state_dict", state)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        text = " ".join(str(error).split())[:300]
        raise RunError(str(path), f"does not fit the model: {text}", "a checkpoint of this spec") from error
