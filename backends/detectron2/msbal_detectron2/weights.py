"""Reads initial weights and checkpoints, without running code that is pickled in them."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from msbal.errors import SpecError
from msbal.training.tensors import read_tensors

# The model zoo's .pkl files hold dictionaries of NumPy arrays.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): OrderedDict,
}
for _core in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _multiarray = getattr(np, "_core", None) or np.core
    _ALLOWED[_core, "_reconstruct"] = _multiarray.multiarray._reconstruct
    _ALLOWED[_core, "scalar"] = _multiarray.multiarray.scalar


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _ALLOWED[module, name]


def read_weights(path: Path) -> dict[str, Any]:
    """Read a file of weights: a ``.pth`` of torch's, or a ``.pkl`` of detectron2's model zoo.

    Raises:
        SpecError: where it is missing, damaged, or holds more than tensors, arrays and plain values.
    """
    if path.suffix != ".pkl":
        return read_tensors(path, key="model.weights")
    where = str(path)
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="latin1").load()
    except FileNotFoundError as error:
        raise SpecError(where, "does not exist", "a .pth or .pkl file", "check the path") from error
    except pickle.UnpicklingError as error:
        raise SpecError(
            where,
            f"holds pickled code, which is never run ({str(error).partition(chr(10))[0][:100]})",
            "tensors, arrays and plain values only",
        ) from error
    except Exception as error:  # on damaged bytes the unpickler raises anything
        reason = (str(error) or type(error).__name__).partition("\n")[0][:200]
        raise SpecError(where, f"cannot be read: {reason}", "a .pkl file, whole") from error
    if not isinstance(content, Mapping):
        raise SpecError(where, f"holds a {type(content).__name__}", "a dictionary of weights")
    return dict(content)


def start_from(model: nn.Module, path: Path, heuristics: bool = False) -> None:
    """Load initial weights as detectron2 does: by name, with legacy names translated and other shapes left out.

    Args:
        heuristics: whether to match names that differ, as for a backbone from elsewhere.

    Raises:
        SpecError: where the file cannot be read, or nothing in it fits.
    """
    content = read_weights(path)
    if path.suffix == ".pkl" and not ("model" in content and "__author__" in content):
        blobs = content.get("blobs", content)
        kept = {key: value for key, value in blobs.items() if not key.endswith("_momentum")}
        content = {"model": kept, "__author__": "Caffe2", "matching_heuristics": True}
    elif "model" not in content:
        content = {"model": content.get("state_dict", content)}
    checkpointer = DetectionCheckpointer(model)
    report = checkpointer._load_model(
        {
            "model": dict(content["model"]),
            "__author__": content.get("__author__"),
            "matching_heuristics": heuristics or content.get("matching_heuristics", False),
        }
    )
    checkpointer._log_incompatible_keys(report)
    # Normalisation layers fill in statistics that a file lacks, so those prove nothing.
    left_out = {*report.missing_keys, *(name for name, *_ in report.incorrect_shapes)}
    if not any(
        name not in left_out and not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        for name in model.state_dict()
    ):
        raise SpecError(str(path), "has no tensor that fits the model", "weights of this model or backbone")


def start_pretrained(model: nn.Module, source: str) -> None:
    """Load the weights that a config names, downloading them on first use.

    Raises:
        SpecError: where it names none, or they cannot be downloaded.
    """
    if not source:
        raise SpecError("model.pretrained", "the config names no weights", "a config with MODEL.WEIGHTS")
    path, _, query = source.partition("?")
    try:
        local = PathManager.get_local_path(path)
    except Exception as error:  # each of iopath's handlers raises its own
        raise SpecError(
            "model.pretrained",
            f"the weights {path} could not be downloaded ({type(error).__name__})",
            "a connection, or the file in detectron2's cache",
            "give a local file as `model.weights`, or set `pretrained: false`",
        ) from error
    start_from(model, Path(local), heuristics="matching_heuristics=True" in query)


def plain(value: Any) -> Any:
    """Turn NumPy's numbers in `value` into Python's, so that a file of it loads without pickled code."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return value
