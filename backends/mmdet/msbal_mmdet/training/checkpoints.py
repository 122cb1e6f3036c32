"""Checkpoints in mmengine's layout, read without running anybody's code; see `msbal.training.checkpoints`.

torch 2.6 and later load with ``weights_only=True`` by default, which refuses pickled code. mmengine's own checkpoints
hold its ``HistoryBuffer`` under ``message_hub``, which is refused too: original mmengine 0.10 then fails to resume, and
onedl-mmengine loads again with pickled code allowed. What msbal saves holds tensors, numbers and strings alone.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.runner import load_state_dict

from msbal.errors import SpecError
from msbal.training.checkpoints import Checkpoints, find, path_of, prune
from msbal.training.tensors import read_tensors
from msbal_mmdet.quiet import quiet

__all__ = ["find", "load", "load_newest", "load_weights", "path_of", "prune"]

_OURS = Checkpoints("mmdet", ("meta", "state_dict", "message_hub", "optimizer", "msbal"), "state_dict")
load, load_newest, load_weights = _OURS.load, _OURS.load_newest, _OURS.load_weights


def local(name: str, where: str) -> Path:
    """Return the file that a config or spec names to start from; what an address names is fetched once.

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
    """Return the weights in a checkpoint of mmdet's to start from; nothing else that is in it runs.

    mmengine would run whatever it cannot load otherwise, its own history of logged values included.

    Raises:
        SpecError: where it cannot be read, or has no weights.
    """
    content = read_tensors(path, foreign=True, key=where)
    weights = content.get("state_dict", content)
    if isinstance(weights, Mapping):
        weights = {str(k): value for k, value in weights.items() if isinstance(value, torch.Tensor)}
    if not weights or not isinstance(weights, dict):
        raise SpecError(where, f"{path} has no weights", "a checkpoint with a state_dict")
    return weights


def start_from(model: torch.nn.Module, path: Path) -> None:
    """Load the weights to start from, as far as they fit: what mmengine does, too, when a training begins."""
    weights = read_start(path)
    with quiet():
        load_state_dict(model, {name.removeprefix("module."): value for name, value in weights.items()})


def make_ours(checkpoint: dict[str, Any], iteration: int) -> None:
    """Turn mmengine's checkpoint of an iteration into one that `load` reads. In place.

    The history of logged values goes; it only smooths what is printed.
    """
    hub = checkpoint.get("message_hub", {})
    infos = _plain_entries(hub.get("runtime_info", {}))
    checkpoint["message_hub"] = {
        "log_scalars": OrderedDict(),
        "runtime_info": OrderedDict(infos),
        "resumed_keys": OrderedDict((key, True) for key in infos),
    }
    # mmengine assumes that an iteration is just ending.
    checkpoint["meta"] = {**_plain_entries(checkpoint.get("meta", {})), "iter": iteration}
    checkpoint["iteration"] = iteration
    for key, value in checkpoint.items():
        if key not in ("state_dict", "ema_state_dict"):
            checkpoint[key] = _plain(value)


def _plain_entries(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if isinstance(v, int | float | str | bool | None)}


def _plain(value: Any) -> Any:
    """Return NumPy's numbers, which schedulers and the hub keep, as Python's."""
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
