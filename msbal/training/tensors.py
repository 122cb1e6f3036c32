"""Reading what torch saved, never code: by ``torch.load(weights_only=True)``, or with `msbal.training.inert`."""

from __future__ import annotations

import contextlib
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from msbal.errors import SpecError
from msbal.training.inert import inert_pickle


def read_tensors(path: Path, foreign: bool = False) -> dict[str, Any]:
    """A file that torch saved, on the CPU.

    Args:
        foreign: another program's, of which what is neither tensor nor plain value becomes `inert.Inert`.

    Raises:
        SpecError: where it is missing, damaged, or holds more than tensors and plain values.
    """
    where = str(path)
    with contextlib.suppress(OSError, ValueError):  # torch says what is wrong
        if path.exists() and not path.is_file():
            # A pipe could be waited for without end.
            raise SpecError(where, "is no regular file", "a .pth file")
    if _swells(path):
        raise SpecError(
            where, "is a compressed archive that grows when it is read", "a .pth file as torch.save writes it"
        )
    try:
        with warnings.catch_warnings():
            # That the pickle it refuses is of an unusual version.
            warnings.simplefilter("ignore", UserWarning)
            how: dict[str, Any] = {"pickle_module": inert_pickle} if foreign else {}
            content = torch.load(path, map_location="cpu", weights_only=not foreign, **how)
    except FileNotFoundError as error:
        raise SpecError(where, "does not exist", "a .pth file", "check the path") from error
    except pickle.UnpicklingError as error:
        raise SpecError(
            where, "holds pickled code, which is never run", "tensors and plain values only",
            "save a `state_dict()` instead of a whole module",
        ) from error  # fmt: skip
    except Exception as error:
        # Bytes that were damaged take torch's reader anywhere: struct.error, IndexError, TypeError, ...
        reason = (str(error) or type(error).__name__).partition("\n")[0][:200]
        raise SpecError(where, f"cannot be read: {reason}", "a .pth file, whole") from error
    if not isinstance(content, Mapping):
        raise SpecError(where, f"holds a {type(content).__name__}", "a state dictionary")
    return dict(content)


def _swells(path: Path) -> bool:
    """Whether a zip file holds more than its own bytes: torch stores, it never compresses."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        return (
            any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            or sum(entry.file_size for entry in entries) > path.stat().st_size
        )
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, struct.error, NotImplementedError):
        return False  # no zip file, or a damaged one: torch says what is wrong
