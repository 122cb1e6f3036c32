"""Deaths at chosen moments of writing, for tests: by a signal, or by a loss of power.

In a process that calls `install`, everything that is written under a folder passes a point at each step, of a
kind: half of a write done, a write done, a file synced, a folder synced, a name changed, a file deleted. At the
chosen point the process is killed. With `power` the disk forgets first what no sync has made durable: bytes, new
names and changed names.
"""

from __future__ import annotations

import builtins
import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

_TEMPORARY = re.compile(r"^\.(.*)\.[^.]*\.tmp$")
_CALLED = r"temporary \1"
_NUMBER = re.compile(r"_\d+")


ANY = "any"


class Disk:
    """What is durable, and when to die.

    Args:
        folder: only what lies in it counts.
        die_at: the point, as its kind and which of them from 1 on; the kind `ANY` counts all, 0 is never.
        power: whether it is the power that fails.
        events: a file that every point is written to, one line each.
    """

    def __init__(self, folder: Path, die_at: tuple[str, int], power: bool, events: Path) -> None:
        self.folder, self.die_at, self.power = folder, die_at, power
        self.passed: Counter[str] = Counter()
        self.log = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.durable: dict[int, int] = {}  # inode -> bytes
        self.unsettled: dict[Path, Path | None] = {}  # name -> where its old content is kept

    def mine(self, path: Any) -> bool:
        """Whether the path counts."""
        return isinstance(path, (str, Path)) and Path(path).absolute().is_relative_to(self.folder)

    def point(self, what: str, path: Path) -> None:
        """Pass a point, or die at it."""
        name = "run's folder" if path == self.folder else path.name
        kind = f"{what} {_NUMBER.sub('', _TEMPORARY.sub(_CALLED, name))}"
        os.write(self.log, f"{kind}\n".encode())
        self.passed.update([kind, ANY])
        if self.passed[self.die_at[0]] == self.die_at[1]:
            if self.power:
                self._forget()
            os.kill(os.getpid(), signal.SIGKILL)

    def name(self, path: Path) -> None:
        """A name is about to be made or to get another content: keep what it has."""
        if path in self.unsettled:
            return
        kept = None
        if path.exists():
            kept = path.with_name(f"{path.name}.kept")
            kept.unlink(missing_ok=True)
            os.link(path, kept)
        self.unsettled[path] = kept

    def settled(self, folder: Path) -> None:
        """The folder is synced."""
        for path in [path for path in self.unsettled if path.parent == folder]:
            kept = self.unsettled.pop(path)
            if kept is not None:
                os.unlink(kept)  # noqa: PTH108 - not through the point in Path.unlink

    def _forget(self) -> None:
        for path, kept in self.unsettled.items():
            if kept is not None:
                os.rename(kept, path)  # noqa: PTH104
            elif path.exists():
                os.unlink(path)  # noqa: PTH108
        for path in self.folder.rglob("*"):
            if path.is_file() and path.stat().st_ino in self.durable:
                length = min(self.durable[path.stat().st_ino], path.stat().st_size)
                os.truncate(path, length)


class _File:
    """An open file whose writes come in halves."""

    def __init__(self, disk: Disk, path: Path, file: Any) -> None:
        self._disk, self._path, self._file = disk, path, file

    def write(self, data: Any) -> int:
        data = data if isinstance(data, str) else bytes(data)
        half = len(data) // 2
        for part, what in ((data[:half], "half written"), (data[half:], "written")):
            self._file.write(part)
            self._file.flush()
            self._disk.point(what, self._path)
        return len(data)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def install(folder: str, die_at: tuple[str, int], power: bool, events: str) -> None:
    """Lay the points into this process."""
    disk = Disk(Path(folder).absolute(), die_at, power, Path(events))
    replace, unlink, fsync = Path.replace, Path.unlink, os.fsync

    def opens(before: Any) -> Any:
        def new_open(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not disk.mine(path) or Path(path).name == "log.txt" or not set(mode) & set("wa"):
                return before(path, mode, *args, **kwargs)
            path = Path(path).absolute()
            if not path.exists():
                disk.name(path)
            file = before(path, mode, *args, **kwargs)
            inode = os.fstat(file.fileno()).st_ino
            disk.durable.setdefault(inode, 0)
            if "w" in mode:
                disk.durable[inode] = 0
            return _File(disk, path, file)

        return new_open

    def new_replace(self: Path, target: Path) -> Path:
        if disk.mine(target):
            disk.point("to be named", Path(target))
            disk.name(Path(target))
            result = replace(self, target)
            disk.point("named", Path(target))
            return result
        return replace(self, target)

    def new_unlink(self: Path, missing_ok: bool = False) -> None:
        if disk.mine(self) and self.exists():
            disk.point("to be deleted", self)
        unlink(self, missing_ok=missing_ok)

    def new_fsync(handle: int) -> None:
        fsync(handle)
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if not disk.mine(path) and path != disk.folder:
            return
        if path.is_dir():
            disk.settled(path)
        else:
            disk.durable[os.fstat(handle).st_ino] = os.fstat(handle).st_size
        disk.point("synced", path)

    Path.replace, Path.unlink, os.fsync = new_replace, new_unlink, new_fsync  # type: ignore[method-assign,assignment]
    # msbal opens by the one, mmengine by the other.
    Path.open, builtins.open = opens(Path.open), opens(builtins.open)  # type: ignore[method-assign,assignment]
