"""Starts a model from weights in a file, without running code that is pickled in it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from ultralytics.nn.tasks import DetectionModel

from msbal.errors import SpecError
from msbal.training.tensors import Inert, read_tensors

KEY = "model.weights"
_CLASSES = re.compile(r"model\.\d+\.cv3\.0\.2\.weight")
"""The last layer of the head's classes; its shape says how many there are."""


def start_from(model: Any, config: Mapping[str, Any], path: Path) -> None:
    """Start a model from a .pt of ultralytics or a checkpoint of a run, as ultralytics does.

    A class starts from the one of the same name, where the file has it. Of a model of another scale or version whatever
    fits is taken, with a warning.

    Args:
        config: what the model was built from.

    Raises:
        SpecError: where the file cannot be read, or nothing in it fits.
    """
    tensors, names = _read(path)
    own = model.state_dict()
    of_classes = [value.shape[0] for name, value in tensors.items() if _CLASSES.fullmatch(name)]
    fitting = [name for name, value in own.items() if name in tensors and tensors[name].shape == value.shape]
    if not any(name.endswith(".weight") for name in fitting):
        raise SpecError(
            KEY, f"{path} has no tensor that fits the model", "weights of the same model",
            "choose the file or `model.config` to match",
        )  # fmt: skip
    source = DetectionModel(dict(config), nc=of_classes[0] if of_classes else None, verbose=False)
    try:
        source.load_state_dict(tensors)
    except RuntimeError:
        # Of another scale or version: what has the same name and shape.
        model.load_state_dict({name: tensors[name] for name in fitting}, strict=False)
        others = len(own) - len(fitting)
        warnings.warn(f"{path}: {others} of the model's {len(own)} tensors stay at random", stacklevel=2)
        return
    if list(names) == list(range(source.model[-1].nc)):
        source.names = names
    model.load(source, verbose=False)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[int, str]]:
    """Return the tensors of a file by name, in float32, and the names of its classes, where it has them."""
    if path.suffix != ".pt":
        content = read_tensors(path, key=KEY)
        average = content.get("average") or {}
        found = {
            name: value for name, value in (average or content.get("model", content)).items()
            if isinstance(value, Tensor) and name != "n_averaged"
        }  # fmt: skip
        return {name: value.float() for name, value in found.items()}, {}
    content = read_tensors(path, foreign=True, key=KEY)
    module = content.get("ema") or content.get("model")
    if not isinstance(module, Inert):
        raise SpecError(f"{KEY}: {path}", "holds no model", "a .pt of ultralytics")
    named = _state(module).get("names") or {}
    pairs = (
        named.items() if isinstance(named, Mapping) else enumerate(named if isinstance(named, list) else ())
    )
    try:
        return dict(_tensors(module)), {number: str(name) for number, name in pairs}
    except RecursionError:
        raise SpecError(f"{KEY}: {path}", "holds a module within itself", "a .pt of ultralytics") from None


def _tensors(module: Inert, prefix: str = "") -> list[tuple[str, Tensor]]:
    """Return a saved module's parameters and buffers by name, from its state alone."""
    state = _state(module)
    found = [
        (prefix + name, value.detach().float())
        for kind in ("_parameters", "_buffers")
        for name, value in (state.get(kind) or {}).items()
        if isinstance(value, Tensor)
    ]
    for name, part in (state.get("_modules") or {}).items():
        if isinstance(part, Inert):
            found += _tensors(part, f"{prefix}{name}.")
    return found


def _state(module: Inert) -> Mapping[str, Any]:
    state = getattr(module, "state", None)
    return state if isinstance(state, Mapping) else {}
