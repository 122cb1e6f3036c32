"""One process at a time writes a run's folder.

The lock is a record lock on a file in the folder: it falls with its process, however that ended, is not
inherited by the processes that load images, and reaches over NFS where the server keeps locks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from pathlib import Path

from msbal.errors import SpecError

NAME = ".lock"
_LOCKED = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)

_held: dict[Path, int] = {}
"""What this process holds: a record lock does not keep a process from taking its own lock again, and would
fall when any other descriptor of the file is closed."""


def acquire(folder: Path) -> bool:
    """Lock a run's folder, which exists. Again by the same process: no effect.

    Returns:
        False where the file system keeps no locks: then nothing is locked.

    Raises:
        SpecError: where another process holds it.
        OSError: where the file cannot be made.
    """
    path = folder.resolve() / NAME
    if path in _held:
        return True
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            _lock(handle)
        except OSError as error:
            refusal = _refusal(folder, handle) if error.errno in _LOCKED else None
            os.close(handle)
            if refusal is None:
                return False
            raise refusal from error
        # Its last holder deletes the file: this may be one that has no name any more.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                break
        os.close(handle)
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    _held[path] = handle
    return True


def check(folder: Path) -> None:
    """Find out whether another process writes a run's folder now; changes nothing.

    Raises:
        SpecError: where one does.
    """
    path = folder.resolve() / NAME
    if path in _held or not path.is_file():
        return
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return
    try:
        _lock(handle)
    except OSError as error:
        if error.errno in _LOCKED:
            raise _refusal(folder, handle) from error
    finally:
        os.close(handle)


def release(folder: Path) -> None:
    """Give it back. Where this process does not hold it: no effect."""
    path = folder.resolve() / NAME
    handle = _held.pop(path, None)
    if handle is not None:
        with contextlib.suppress(OSError):  # Windows deletes no open file
            path.unlink()
        os.close(handle)


def _refusal(folder: Path, handle: int) -> SpecError:
    said = ""
    with contextlib.suppress(OSError):
        said = os.read(handle, 200).decode("utf-8", "replace").strip()
    return SpecError(
        "output", f"{folder} is being written by another run" + (f" ({said})" if said else ""),
        "a folder of its own", "wait for it, stop it, or choose another `output`",
    )  # fmt: skip


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        # Beyond what is written: Windows keeps others from reading what is locked.
        os.lseek(handle, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
