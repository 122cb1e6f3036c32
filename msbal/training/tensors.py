"""Read what torch saved without ever running code from the file.

Our own checkpoints are read with ``weights_only=True``. Those of other programs (mmengine's keep a history of logged
values beside the tensors) are read by an unpickler that builds tensors and puts an `Inert` object in place of anything
else, whatever the file asks to be called.
"""

from __future__ import annotations

import contextlib
import pickle
import string
import struct
import types
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from msbal.errors import SpecError

_BUILT = {
    ("collections", "OrderedDict"), ("torch", "Size"), ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}  # fmt: skip

_PRINTABLE = string.printable.encode()


def read_tensors(path: Path, foreign: bool = False, key: str = "") -> dict[str, Any]:
    """Read a file that torch saved, onto the CPU.

    Args:
        key: the spec's key that names the file, for errors.
        foreign: another program wrote it: what is neither a tensor nor a plain value becomes `Inert`.

    Raises:
        SpecError: where it is missing, damaged, or holds more than tensors and plain values.
    """
    where = f"{key}: {path}" if key else str(path)
    with contextlib.suppress(OSError, ValueError):  # torch says what is wrong
        if path.exists() and not path.is_file():
            # Reading a pipe could wait for ever.
            raise SpecError(where, "is no regular file", "a .pth file")
        _refuse_text(path, where)
    if _swells(path):
        raise SpecError(
            where, "is a compressed archive that grows when it is read", "a .pth file as torch.save writes it"
        )
    try:
        with warnings.catch_warnings():
            # torch warns of the version of a pickle that it then refuses.
            warnings.simplefilter("ignore", UserWarning)
            how: dict[str, Any] = {"pickle_module": _INERT_PICKLE} if foreign else {}
            content = torch.load(path, map_location="cpu", weights_only=not foreign, **how)
    except FileNotFoundError as error:
        fix = "check the path" if path.suffix else "for the weights of ImageNet set model.pretrained=true"
        raise SpecError(where, "does not exist", "a .pth file", fix) from error
    except pickle.UnpicklingError as error:
        raise SpecError(
            where, "holds pickled code, which is never run", "tensors and plain values only",
            "save a `state_dict()` instead of a whole module",
        ) from error  # fmt: skip
    except Exception as error:
        # Damaged bytes make torch's reader raise anything: struct.error, IndexError, TypeError, ...
        reason = (str(error) or type(error).__name__).partition("\n")[0][:200]
        raise SpecError(where, f"cannot be read: {reason}", "a .pth file, whole") from error
    if not isinstance(content, Mapping):
        raise SpecError(where, f"holds a {type(content).__name__}", "a state dictionary")
    return dict(content)


_TEXTS = {
    b"version https://git-lfs": ("is a pointer of Git LFS", "fetch the file itself with `git lfs pull`"),
    b"<": ("is a web page", "download the file again"),
    b"": ("is a text file", "name the weights"),
}
"""For each beginning of a text: what it is, and what to do."""


def _refuse_text(path: Path, where: str) -> None:
    """Refuse a text file, since torch's own error does not say that it is one.

    Raises:
        SpecError: saying what kind of text.
    """
    with path.open("rb") as file:
        start = file.read(1024).strip()
    if start and not set(start) - set(_PRINTABLE):
        found, fix = next(said for begin, said in _TEXTS.items() if start.startswith(begin))
        raise SpecError(where, found, "weights as torch saves them (.pth)", fix)


def _swells(path: Path) -> bool:
    """Tell whether a zip file holds more than its own bytes; torch never compresses."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        return (
            any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            or sum(entry.file_size for entry in entries) > path.stat().st_size
        )
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, struct.error, NotImplementedError):
        return False  # no zip file, or a damaged one: torch says what is wrong


class Inert:
    """Stands in for any object and ignores what is done to it, but for the state that was saved of it: ``state``."""

    def __new__(cls, *arguments: Any, **named: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None: ...

    def __call__(self, *arguments: Any, **named: Any) -> Inert:
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None:
        """Ignore an item, as the unpickler adds them to a list."""

    extend = append


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module, name) if (module, name) in _BUILT else Inert


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_INERT_PICKLE: Any = types.ModuleType("inert_pickle")
"""For ``torch.load(pickle_module=...)``; torch itself finds the storages."""
_INERT_PICKLE.Unpickler, _INERT_PICKLE.load = _Unpickler, _load
