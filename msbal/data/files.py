"""Files read so that any of them can be refused in one line: what is there, what is missing, how to name it."""

from __future__ import annotations

import reprlib
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msbal.errors import DataError, suggest_path

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def printable(text: str) -> str:
    """Escape what no terminal can show: lone surrogates, control characters."""
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in safe)


def shown(value: Any) -> str:
    """Write a value from a file in a few characters, cut where it is long or deep."""
    return printable(_short.repr(value))


def named(path: Path | str) -> str:
    """Write a path as error messages show it."""
    return printable(str(path))


def listed(names: Iterable[str], total: int, limit: int = 3) -> str:
    """Write names as 'a, b, c and 7 more'."""
    first = [printable(name) for _, name in zip(range(limit), names, strict=False)]
    rest = total - len(first)
    return ", ".join(first) + (f" and {rest} more" if rest > 0 else "")


def kind_of(path: Path) -> str:
    """Return ``file``, ``folder``, ``nothing``, or ``other``: a device or pipe, which reading could hang on.

    Raises:
        DataError: where the system refuses to say (permissions, a loop of links, a name too long).
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "nothing"
    except (OSError, ValueError) as error:
        raise DataError(named(path), f"cannot be looked at: {_cause(error)}") from error
    if stat.S_ISREG(mode):
        return "file"
    return "folder" if stat.S_ISDIR(mode) else "other"


def read_bytes(path: Path, what: str) -> bytes:
    """Return the content of a regular file.

    Args:
        path: the file.
        what: what it should be, for the message, e.g. ``a COCO annotation file``.

    Raises:
        DataError: where there is no such file, or it cannot be read.
    """
    kind = kind_of(path)
    if kind == "nothing":
        raise DataError(named(path), "does not exist", what, suggest_path(path))
    if kind != "file":
        found = "is a folder" if kind == "folder" else "is not a regular file"
        raise DataError(named(path), found, what)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(named(path), f"cannot be read: {_cause(error)}", what) from error


def read_text(path: Path, what: str) -> str:
    """Return the text of a file in UTF-8, or UTF-16 where its first bytes say so: PowerShell's ``>`` writes that.

    Args:
        what: as for `read_bytes`.

    Raises:
        DataError: as `read_bytes` does, and where it is no text.
    """
    raw = read_bytes(path, what)
    try:
        return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"is not UTF-8: {error.reason} at byte {error.start}"
        raise DataError(named(path), found, what, "save it as UTF-8") from error


def require_folder(path: Path, what: str) -> None:
    """Raise a DataError unless `path` is a folder."""
    kind = kind_of(path)
    if kind == "nothing":
        raise DataError(named(path), "does not exist", what, suggest_path(path))
    if kind != "folder":
        above = named(path.parent)
        raise DataError(
            named(path), "is not a folder", what, f"did you mean {above}?" if above != "." else ""
        )


def _cause(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
