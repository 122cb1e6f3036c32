"""Checks many configs in worker processes; what has been checked is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from queue import Empty, Queue
from typing import IO

from msbal.coverage.outcome import UNUSABLE, Outcome, read, to_line
from msbal.coverage.zoo import Zoo

Progress = Callable[[int, int, Outcome], None]


class Worker:
    """A process that checks one config after another; replaced when one takes too long or kills it.

    Args:
        command: starts a process that reads a name a line and answers an `Outcome` a line.
        timeout: seconds for one config.
    """

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        self._command, self._timeout = list(command), timeout
        self._process: subprocess.Popen[str] | None = None
        self._lines: Queue[str | None] = Queue()

    def ask(self, name: str) -> Outcome:
        """Check one config in the process."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._start()
        assert self._process.stdin is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        end = time.monotonic() + self._timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.1, end - time.monotonic()))
            except Empty:
                self.stop()
                reason = f"took longer than {self._timeout:.0f} s"
                return Outcome(name, UNUSABLE, reason, seconds=self._timeout)
            if line is None:
                code = self._process.wait()
                self.stop()
                return Outcome(name, UNUSABLE, f"the process ended with {code} (out of memory?)")
            if line.startswith("{"):
                return Outcome(**json.loads(line))

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        # Nothing is downloaded, and threads of several workers do not fight for the cores.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._lines = Queue()
        assert process.stdout is not None
        threading.Thread(target=self._read, args=(process.stdout, self._lines), daemon=True).start()
        return process

    @staticmethod
    def _read(stream: IO[str], lines: Queue[str | None]) -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)


def worker_command(backend: str) -> list[str]:
    """The command of a `Worker`."""
    return [sys.executable, "-m", "msbal.coverage.worker", backend]


def run(
    zoo: Zoo,
    names: Sequence[str],
    output: Path,
    make_worker: Callable[[], Worker],
    jobs: int = 1,
    again: Collection[str] = (),
    progress: Progress = lambda finished, total, outcome: None,
) -> list[Outcome]:
    """Check `names`, appending a line each to `output`.

    Args:
        again: statuses that are checked anew; all others that `output` has are kept.
        progress: called after each proof with how many configs are done, how many there are to do, and
            the outcome.

    Returns:
        The outcomes in the order of `names`.
    """
    done = {outcome.config: outcome for outcome in read(output) if outcome.status not in again}
    groups = Queue[list[str]]()
    waiting = _alike(zoo, [name for name in names if name not in done])
    for group in waiting:
        groups.put(group)
    lock, finished, total = threading.Lock(), 0, sum(map(len, waiting))

    def work() -> None:
        nonlocal finished
        worker = make_worker()
        try:
            while True:
                try:
                    first, *others = groups.get_nowait()
                except Empty:
                    return
                outcome = worker.ask(first)
                outcomes = [outcome]
                outcomes += [replace(outcome, config=o, same_as=first, seconds=0.0) for o in others]
                with lock:
                    with output.open("a", encoding="utf-8") as file:
                        file.writelines(map(to_line, outcomes))
                    done.update((o.config, o) for o in outcomes)
                    finished += len(outcomes)
                    progress(finished, total, outcome)
        finally:
            worker.stop()

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [done[name] for name in names if name in done]


def _alike(zoo: Zoo, names: Sequence[str]) -> list[list[str]]:
    """Names whose models are the same, together; the largest groups first, as they say most."""
    groups = defaultdict[str, list[str]](list)
    for name in names:
        try:
            groups[zoo.digest(name)].append(name)
        except Exception:
            groups[name].append(name)  # its worker will say what is wrong
    return sorted(groups.values(), key=len, reverse=True)
