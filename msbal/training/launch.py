"""Several processes of one run on this machine, for `msbal train --nproc N`.

They find each other by torchrun's environment variables. Ours, since torch's launcher (`elastic_launch`)

- kills all processes 30 s after a Ctrl-C or after one has failed, even while they write a checkpoint;
- prints a report of a dozen lines instead of the one error line of the process that failed;
- leaves the processes running when it is killed itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

LAUNCHED = "MSBAL_LAUNCHED"
LOST = "lost its connection to the other processes"
UNMET = "found no connection to the other processes"
GRACE = 20.0
"""Seconds that the others have to notice a failure, and again to end when asked to, before they are killed."""
SHORT_GRACE = 8.0
"""The same after a second Ctrl-C, by which every process ends itself within 5 seconds."""


def launch(count: int, command: Sequence[str]) -> int:
    """Run `command` as `count` processes, wait for all, and return one exit code for them.

    Args:
        count: at least 2.
        command: what each process runs; it calls `watch_launcher` and joins by `process_group`.

    Returns:
        0 where all succeeded; 130 where they stopped when asked to; otherwise the code of the process that failed for
        a reason of its own rather than by losing another, 1 where that is none of the command line's codes.
    """
    import torch.distributed as dist

    # This process keeps the store, so that no other can take its port in between.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
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
    with _forward_signals(processes) as interrupts:
        _wait(processes, interrupts)
    for process in processes:
        process.close()
    return 130 if len(interrupts) > 1 else _verdict(processes)


def watch_launcher() -> None:
    """Stop a launched process as if asked to when its launcher dies, so that none trains on unnoticed."""
    if os.environ.get(LAUNCHED):
        threading.Thread(target=_stop_at_end_of_input, daemon=True).start()


def _stop_at_end_of_input() -> None:
    # Not through `sys.stdin`: the interpreter would wait for its lock at exit.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


class _Rank:
    """One process and its stderr, which is passed on as it comes for the first process."""

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
        """Read the rest of its stderr, after its end."""
        self._reader.join(timeout=5)
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    @property
    def error(self) -> str:
        """Its own error line, or how it ended where it printed none."""
        printed = [line for line in self.lines if line.startswith("error: ")]
        if printed:
            return printed[-1].removeprefix("error: ")
        if self.gave_up:
            return f"process {self.rank} did not end when the others did, and was killed"
        if self.code is not None and self.code < 0:
            return f"process {self.rank} was killed by signal {-self.code}"
        return f"process {self.rank} ended with code {self.code}: {' '.join(self.lines[-1:])}"

    @property
    def lost_another(self) -> bool:
        """Whether it failed only because another process had."""
        return LOST in self.error or UNMET in self.error


@contextlib.contextmanager
def _forward_signals(processes: Sequence[_Rank]) -> Iterator[list[float]]:
    """Pass this process's SIGINT, SIGTERM and SIGHUP on to all; yield the times of the SIGINTs, as they come."""
    interrupts: list[float] = []

    def forward(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            interrupts.append(time.monotonic())
        for process in processes:
            process.send(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield interrupts
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait(processes: Sequence[_Rank], interrupts: Sequence[float]) -> None:
    steps = [signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)]
    due = None
    while any(process.code is None for process in processes):
        if due is None and any(process.code for process in processes):
            due = time.monotonic() + GRACE
        if len(interrupts) > 1 and len(steps) > 1:
            due = interrupts[1] + SHORT_GRACE
            del steps[:-1]
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
    printed = {line.removeprefix("error: ") for line in processes[0].lines}
    for error in dict.fromkeys(process.error for process in causes):
        if error not in printed:
            sys.stderr.write(f"error: {error}\n")
    code = causes[0].code
    return code if code in (2, 3) else 1
