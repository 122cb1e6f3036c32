"""Atomic, durable writes: a kill at any moment leaves the old file or the new one."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def replace_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, fsync it and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # mkstemp makes files for the owner alone; give them the mode of a plain open().
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        put_in_place(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a complete file within its folder, after an fsync."""
    _fsync(temporary)
    temporary.replace(path)
    _fsync_folder(path.parent)


def fsync(path: Path) -> None:
    """Fsync a file and its folder, so that both survive a loss of power."""
    _fsync(path)
    _fsync_folder(path.parent)


def _fsync(path: Path) -> None:
    with path.open("rb+") as file:  # writable, since Windows cannot fsync a read-only one
        os.fsync(file.fileno())


def _fsync_folder(folder: Path) -> None:
    # Windows cannot open folders, and some network file systems cannot fsync them.
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
    """Return `value` with None for every NaN and infinite float, and lists for tuples."""
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
