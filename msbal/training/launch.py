"""Several processes of one run on this machine, for `msbal train --nproc N`.

They find each other as under torchrun, whose environment variables they are given. Different from torchrun:
the exit code is that of the process that failed, its one line of error is not buried under tracebacks, and
one Ctrl-C asks all processes alike for a checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

LAUNCHED = "MSBAL_LAUNCHED"
LOST = "lost its connection to the other processes"
UNMET = "found no connection to the other processes"
GRACE = 20.0
"""Seconds that the others have to notice a process's failure, and again to end, before they are killed."""


def launch(count: int, command: Sequence[str]) -> int:
    """Run `command` as `count` processes, wait for all, and give one exit code for them.

    Args:
        count: at least 2.
        command: what each process runs; it calls `watch_launcher` and joins by `process_group`.

    Returns:
        0 where all succeeded; 130 where they stopped when asked; else the code of the process whose failure
        was not that of having lost another, 1 where it gave none of the command line's own.
    """
    import torch.distributed as dist

    # The store lives here, so that no process can take its port in between.
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    environment = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        LAUNCHED: "1",
    }
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    processes = [_Rank(rank, command, environment) for rank in range(count)]
    with _Forwarding(processes):
        _wait(processes)
    for process in processes:
        process.close()
    return _verdict(processes)


def watch_launcher() -> None:
    """In a launched process: stop as if asked to when the launcher dies, so that none trains on unseen."""
    if os.environ.get(LAUNCHED):
        threading.Thread(target=_stop_at_end_of_input, daemon=True).start()


def _stop_at_end_of_input() -> None:
    # Not through `sys.stdin`, whose lock the interpreter would wait for at its end.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


class _Rank:
    """One process and what it says on stderr; the first one's is passed on as it comes."""

    def __init__(self, rank: int, command: Sequence[str], environment: dict[str, str]) -> None:
        self.rank, self.lines = rank, list[str]()
        self.gave_up = False
        # A session of its own: the terminal's Ctrl-C reaches the launcher alone, which passes it on once.
        self.process = subprocess.Popen(
            list(command),
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            if self.rank == 0:
                sys.stderr.write(line)
                sys.stderr.flush()

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.process.poll()

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        with contextlib.suppress(OSError, ValueError):
            self.process.send_signal(number)

    def close(self) -> None:
        """After its end: read the rest of what it said."""
        self._reader.join(timeout=5)
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    @property
    def error(self) -> str:
        """Its own words, or how it ended where it said none."""
        said = [line for line in self.lines if line.startswith("error: ")]
        if said:
            return said[-1].removeprefix("error: ")
        if self.gave_up:
            return f"process {self.rank} did not end when the others did, and was killed"
        if self.code is not None and self.code < 0:
            return f"process {self.rank} was killed by signal {-self.code}"
        return f"process {self.rank} ended with code {self.code}: {' '.join(self.lines[-1:])}"

    @property
    def lost_another(self) -> bool:
        """Whether it failed only because another had."""
        return LOST in self.error or UNMET in self.error


class _Forwarding:
    """Passes this process's SIGINT, SIGTERM and SIGHUP on, while it is entered."""

    def __init__(self, processes: Sequence[_Rank]) -> None:
        self.processes = processes
        hangup = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []
        self._numbers = [signal.SIGINT, signal.SIGTERM, *hangup]

    def __enter__(self) -> None:
        self._previous = [signal.signal(number, self._pass_on) for number in self._numbers]

    def __exit__(self, *exception: object) -> None:
        for number, handler in zip(self._numbers, self._previous, strict=True):
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        for process in self.processes:
            process.send(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


def _wait(processes: Sequence[_Rank]) -> None:
    steps = [signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)]
    due = None
    while any(process.code is None for process in processes):
        if due is None and any(process.code for process in processes):
            due = time.monotonic() + GRACE
        if due is not None and time.monotonic() > due and steps:
            number, due = steps.pop(0), time.monotonic() + GRACE
            for process in processes:
                if process.code is None:
                    process.gave_up = not steps
                    process.send(number)
        time.sleep(0.1)


def _verdict(processes: Sequence[_Rank]) -> int:
    failed = [process for process in processes if process.code not in (0, 130)]
    if not failed:
        return 130 if any(process.code for process in processes) else 0
    causes = [process for process in failed if not process.lost_another] or failed
    said = {line.removeprefix("error: ") for line in processes[0].lines}
    for process in causes:
        if process.error not in said:
            said.add(process.error)
            sys.stderr.write(f"error: {process.error}\n")
    code = causes[0].code
    return code if code in (2, 3) else 1
