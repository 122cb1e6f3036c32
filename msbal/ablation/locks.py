"""A lock on a cell, held by the process that runs it and by the training process that it started.

The lock is on the open file, which the training process inherits: it stays locked while either lives, and
falls with the last of them, however that ended. So a training that outlives a killed `msbal ablate` is
never run a second time beside itself, and no stale lock has to be cleared away.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


class CellLock:
    """An exclusive lock on a file; see the module.

    Attributes:
        descriptor: of the open file, to be passed on to the training process; None while not held.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor: int | None = None

    def acquire(self) -> bool:
        """Take it, without waiting; False where another process holds it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
