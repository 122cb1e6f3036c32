"""Starts a model from weights in a file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from msbal.errors import SpecError
from msbal.training.tensors import read_tensors


def load_weights(model: Any, path: Path) -> None:
    """Start a model from the weights of a backbone, a whole model or a checkpoint.

    Tensors of another shape (another class list's) are left out, with a warning that names one.

    Raises:
        SpecError: where the file cannot be read, or has nothing for the model's backbone.
    """
    content = read_tensors(path, key="model.weights")
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            content = dict(content[key])
            break
    tensors = {
        name.removeprefix("module."): value for name, value in content.items() if isinstance(value, Tensor)
    }
    own = model.state_dict()
    if not any(name.startswith("backbone.") for name in tensors):
        tensors = _as_backbone(model, tensors)
    fitting = {
        name: value for name, value in tensors.items() if name in own and own[name].shape == value.shape
    }
    backbone = [name for name, _ in model.backbone.named_parameters()]
    body = [f"backbone.{name}" for name in backbone if not name.startswith("fpn.")]
    missing = [name for name in body if name not in fitting]
    if missing:
        raise SpecError(
            "model.weights",
            f"{path} lacks {len(missing)} of the backbone's {len(body)} parameters, e.g. `{missing[0]}`",
            "weights of the same backbone",
            "choose the file or `model.backbone` to match",
        )
    model.load_state_dict(fitting, strict=False)
    others = sorted(name for name in tensors if name in own and name not in fitting)
    if others:
        warnings.warn(
            f"{path}: {len(others)} tensors have another shape and stay random, e.g. `{others[0]}`",
            stacklevel=2,
        )


def _as_backbone(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a classifier's tensors (``layer1.0...``, ``features.3...``, ``_blocks.3...``) to the detector's names."""
    named = {}
    for name, value in tensors.items():
        stem = name.removeprefix("features.").removeprefix("body.").removeprefix("_blocks.")
        named[f"backbone.body.{stem}"] = value
        named[f"backbone.features.{stem}"] = value
    return named
