"""Checks many configs in worker processes; what has been checked is kept."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Protocol

from zoo.outcome import UNUSABLE, Outcome, read, to_line, unusable

BACKENDS = ("torchvision", "mmdet", "detectron2", "ultralytics")
Progress = Callable[[int, int, Outcome], None]


class Zoo(Protocol):
    """The model zoo that an installed framework carries."""

    def names(self) -> list[str]:
        """Every config, by the name that a spec would give."""

    def digest(self, name: str) -> str:
        """Equal for configs whose models are the same once shrunk."""

    def check(self, name: str) -> Outcome:
        """Build a config's model small, without downloads, run one batch, and prove its splitters on it."""


def zoo_of(backend: str) -> Zoo:
    """That of a framework; imports it."""
    zoo: Zoo = import_module(f"zoo.of_{backend}").Zoo()
    return zoo


def serve(backend: str) -> int:
    """In a worker process: a name a line comes in, an `Outcome` a line goes out, until the input ends."""
    import torch

    out = os.fdopen(os.dup(1), "w")  # frameworks print: the lines to the parent get a channel of their own
    os.dup2(2, 1)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    zoo = zoo_of(backend)
    for line in sys.stdin:
        out.write(to_line(_outcome(zoo, line.strip())))
        out.flush()
    return 0


def _outcome(zoo: Zoo, name: str) -> Outcome:
    started = time.monotonic()
    try:
        outcome = zoo.check(name)
    except Exception as error:
        outcome = unusable("load", error)
    return replace(outcome, config=name, seconds=round(time.monotonic() - started, 2))


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
