"""Writes that a kill at any moment leaves either undone or whole."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def replace_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, make it durable and put it in `path`'s place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # mkstemp makes files for the owner alone; others may read what a plain open() would let them.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        put_in_place(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a file that is whole its name in the same folder: durable first, visible then, in one step."""
    _sync(temporary)
    temporary.replace(path)
    _settle_folder(path.parent)


def settle(path: Path) -> None:
    """Return when the file, and its place in its folder, would survive a loss of power."""
    _sync(path)
    _settle_folder(path.parent)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:  # not read-only: Windows syncs no such file
        os.fsync(file.fileno())


def _settle_folder(folder: Path) -> None:
    # Windows cannot open folders, and some network file systems cannot sync them.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    replace_with(path, lambda temporary: _write(temporary, text))


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write a JSON file atomically; see `json_text`."""
    write_text(path, json_text(value, indent))


def json_text(value: Any, indent: int | None = None) -> str:
    """Return `value` as JSON; NaN and infinities, which JSON lacks, become null."""
    return json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """`value` with None in place of every NaN and infinite float, tuples as lists."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
