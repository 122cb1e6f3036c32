"""Install a framework step by step: what the installers of the backends share.

Runs before the framework exists, so it imports neither torch nor a backend. A backend's `installer` module yields
the steps that are missing and looks again between them; `main` runs them.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path

from msbal.errors import BackendError, MsbalError

HEARTBEAT = 30.0
"""Seconds without a line of output after which a sign of life is printed."""
BUILD_TOOLS = ("setuptools>=70,<82", "wheel", "ninja", "psutil")
"""What building a C++ extension against the installed torch needs; setuptools 82 dropped pkg_resources."""
NINJA = re.compile(r"\[\d+/\d+\]")
"""How ninja counts what it has compiled: [12/148]."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        title: what it does, for people.
        command: its arguments; never a shell string.
        environment: set beside the process's own.
        may_fail: its failure decides what comes next, and is no error.
        minutes: how long it may take, where that is worth saying.
    """

    title: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    may_fail: bool = False
    minutes: int = 0


Steps = Callable[[bool, bool, Say], Iterator[Step]]
"""Given whether to build for the CPU alone, whether nothing is run (a dry run), and what takes lines of progress."""


def pip(*arguments: str) -> list[str]:
    """Return the command that runs pip for this Python, also where its environment has none, as uv's.

    Raises:
        BackendError: where neither pip, nor uv, nor the pip that Python itself carries is there.
    """
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", *arguments]
    if shutil.which("uv") and arguments[0] != "download":  # which uv lacks
        return ["uv", "pip", arguments[0], "--python", sys.executable, *arguments[1:]]
    ensurepip = importlib.util.find_spec("ensurepip")
    wheels = (
        Path(ensurepip.origin).parent.glob("_bundled/pip-*.whl") if ensurepip and ensurepip.origin else ()
    )
    for wheel in wheels:
        return [sys.executable, str(wheel / "pip"), *arguments]  # Python runs a package in a zip file
    raise BackendError(
        "pip", f"{sys.executable} has none", fix="run `uv pip install pip`, or install pip for it"
    )


def is_installed(requirement: str) -> bool:
    """Whether exactly this version (``name==version``) is installed."""
    name, _, version = requirement.partition("==")
    try:
        return metadata.version(name) == version
    except metadata.PackageNotFoundError:
        return False


def run(step: Step, say: Say) -> int:
    """Run a step, show its lines as they come and a sign of life where none do; return its exit code."""
    say(f"$ {shlex.join(step.command)}")
    if step.minutes:
        say(f"  this takes about {step.minutes} minutes on this machine")
    process = subprocess.Popen(
        step.command, env={**os.environ, **step.environment}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    started, output, compiled = time.monotonic(), [""], 0
    for text in _lines(process):
        if text is None:
            say(f"  ... still at it: {step.title}, {(time.monotonic() - started) / 60:.0f} min")
            continue
        output = [*output[-39:], text]
        progress = NINJA.search(text)
        if step.minutes and progress:
            compiled += 1
            if compiled % 10 == 0:
                say(f"  {progress[0]} compiled")
        elif not step.minutes and text:
            say(f"  {text}")
    code = process.wait()
    if code and step.minutes:
        say("\n".join(f"  {line}" for line in output))
    return code


def _lines(process: subprocess.Popen[str]) -> Iterator[str | None]:
    """Yield a process's lines, and None whenever there was none for a while."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line.strip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=HEARTBEAT)
        except queue.Empty:
            yield None
            continue
        if line is None:
            return
        yield line


def carry_out(
    backend: str, steps: Iterator[Step], *, dry_run: bool, say: Say, run: Callable[[Step, Say], int] = run
) -> None:
    """Run the steps one after the other, or only print them.

    Raises:
        BackendError: where a step fails that may not.
    """
    number = 0
    for number, step in enumerate(steps, 1):
        say(f"[{number}] {step.title}")
        if dry_run:
            settings = "".join(f"{name}={value} " for name, value in step.environment.items())
            say(f"$ {settings}{shlex.join(step.command)}")
        elif run(step, say) and not step.may_fail:
            raise BackendError(backend, f"failed: {step.title}", fix="its last lines above say why")
    if not number:
        say("Everything is installed.")


def main(backend: str, steps: Steps, arguments: Sequence[str] | None = None) -> int:
    """Be the command ``python -m msbal_NAME.installer``; return its exit code."""
    parser = argparse.ArgumentParser(
        prog=f"python -m msbal_{backend}.installer", description=f"Install {backend}."
    )
    parser.add_argument("--cpu", action="store_true", help="build its operators for the CPU alone")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run none")
    options = parser.parse_args(arguments)
    say = partial(print, flush=True)
    try:
        carry_out(backend, steps(options.cpu, options.dry_run, say), dry_run=options.dry_run, say=say)
    except MsbalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
