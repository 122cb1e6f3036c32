"""Locks on files: one process at a time writes a run's folder, and works on a cell of an ablation.

Ours, since `filelock` cannot pass a lock on to another process and does not name the process that holds one.

- A run's lock is a POSIX record lock. It falls with its process, however that ended, is not inherited by the
  processes that load images, and works over NFS where the server keeps locks.
- A cell's lock belongs to the open file, which the training process inherits. It holds while either process lives,
  so that a training that outlives a killed `msbal ablate` is never run a second time beside itself.
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
"""Descriptors of the run locks of this process: a record lock does not keep a process from taking its own lock again,
and would fall when any other descriptor of the file is closed."""


class CellLock:
    """An exclusive lock on a file that a process started with its descriptor inherits.

    Attributes:
        descriptor: of the open file, to pass on to the training process; None while not held.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor: int | None = None

    def acquire(self) -> bool:
        """Take it without waiting; return False where another process holds it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, inherited=True)
        except OSError:
            os.close(descriptor)
            return False
        self.descriptor = descriptor
        return True

    def release(self) -> None:
        """Let go of it here; a training process that inherited it still holds it."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def acquire(folder: Path) -> bool:
    """Lock a run's folder, which exists. A no-op where this process holds the lock already.

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
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            if not _lock_run(folder, descriptor):
                os.close(descriptor)
                return False
        except SpecError:
            os.close(descriptor)
            raise
        # The last holder may have unlinked the file between our open and our lock.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        os.close(descriptor)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    _held[path] = descriptor
    return True


def check(folder: Path) -> None:
    """Refuse a run's folder that another process is writing; change nothing.

    Raises:
        SpecError: where one is.
    """
    path = folder.resolve() / NAME
    if path in _held or not path.is_file():
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR)
        try:
            _lock_run(folder, descriptor)
        finally:
            os.close(descriptor)


def release(folder: Path) -> None:
    """Unlock a run's folder; a no-op where this process does not hold the lock."""
    path = folder.resolve() / NAME
    descriptor = _held.pop(path, None)
    if descriptor is not None:
        with contextlib.suppress(OSError):  # Windows deletes no open file
            path.unlink()
        os.close(descriptor)


def _lock_run(folder: Path, descriptor: int) -> bool:
    """Lock a run's open lock file; return False where the file system keeps no locks, refuse another's lock."""
    try:
        _lock(descriptor)
        return True
    except OSError as error:
        if error.errno not in _LOCKED:
            return False
        holder = ""
        with contextlib.suppress(OSError):
            holder = os.read(descriptor, 200).decode("utf-8", "replace").strip()
        raise SpecError(
            "output", f"{folder} is being written by another run" + (f" ({holder})" if holder else ""),
            "a folder of its own", "wait for it, stop it, or choose another `output`",
        ) from error  # fmt: skip


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int, inherited: bool = False) -> None:
        # Beyond what is written: Windows keeps others from reading what is locked.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(descriptor: int, inherited: bool = False) -> None:
        (fcntl.flock if inherited else fcntl.lockf)(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
