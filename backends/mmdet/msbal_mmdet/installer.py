"""Installs MMDetection with operators that fit this Python, torch and CUDA: `msbal backends install mmdet`.

    python -m msbal_mmdet.installer [--dry-run] [--yes]

First a prebuilt wheel is looked for; where no index has one that fits, the operators are built from the
source distribution, which takes a while and is said before.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, util

ENGINE, OPERATORS, DETECTOR = "onedl-mmengine==0.10.12", "onedl-mmcv==2.3.6", "onedl-mmdetection==3.5.1"
BUILD_TOOLS = ("setuptools>=70,<82", "wheel", "ninja", "psutil")
MINUTES_ON_TWO_CORES = 20
HEARTBEAT = 30.0
"""Seconds without a line from pip after which a sign of life is printed."""


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
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    may_fail: bool = False
    minutes: int = 0


def pip(*arguments: str) -> tuple[str, ...]:
    """pip of this interpreter, or uv's where its environment has none."""
    if util.find_spec("pip") is None and shutil.which("uv"):
        return ("uv", "pip", arguments[0], "--python", sys.executable, *arguments[1:])
    return (sys.executable, "-m", "pip", *arguments)


def probe() -> Step:
    """Whether an index that pip is configured with has a wheel of the operators for this Python."""
    command = pip("install", "--dry-run", "--no-deps", "--only-binary=:all:", "--quiet", OPERATORS)
    return Step("look for a prebuilt wheel of mmcv", command, may_fail=True)


def tools() -> Step:
    return Step("install what building needs", pip("install", *BUILD_TOOLS))


def engine() -> Step:
    return Step("install mmengine", pip("install", ENGINE))


def prebuilt() -> Step:
    return Step("install mmcv from a wheel", pip("install", "--only-binary=onedl-mmcv", OPERATORS))


def build(cores: int, cuda: bool) -> Step:
    """Build the operators against the installed torch, which build isolation would hide.

    Args:
        cores: compilers at once.
        cuda: build the CUDA operators too.
    """
    environment = {"MMCV_WITH_OPS": "1", "FORCE_CUDA": "1" if cuda else "0", "MAX_JOBS": str(cores)}
    minutes = max(3, round(MINUTES_ON_TWO_CORES * 2 / max(1, cores) * (2.5 if cuda else 1)))
    command = pip(
        "install", "--no-build-isolation", "--no-binary=onedl-mmcv", "--no-cache-dir", "-v", OPERATORS
    )
    return Step("build mmcv's operators from source", command, environment, minutes=minutes)


def detector() -> Step:
    return Step("install mmdetection", pip("install", DETECTOR))


def missing_tools(cuda: bool, find: Callable[[str], str | None] = shutil.which) -> list[str]:
    """What has to be there before a build, and how to get it; one line each."""
    wrong = []
    compiler = os.environ.get("CXX", "c++")
    if not any(find(name) for name in (compiler, "g++", "clang++")):
        wrong.append("no C++ compiler is found: install one, e.g. `apt-get install build-essential`")
    if cuda and not (find("nvcc") or os.environ.get("CUDA_HOME")):
        wrong.append(
            "torch is built for CUDA, but no nvcc is found: install the CUDA toolkit of torch's version and set "
            "CUDA_HOME, or build for the CPU with --cpu"
        )
    return wrong


def installed(requirement: str) -> bool:
    """Whether exactly this version is there."""
    name, _, version = requirement.partition("==")
    try:
        return metadata.version(name) == version
    except metadata.PackageNotFoundError:
        return False


def run(step: Step, say: Callable[[str], None] = print) -> int:
    """Run a step, showing its lines as they come and a sign of life where none do."""
    say(f"$ {' '.join(step.command)}")
    if step.minutes:
        say(f"  this takes about {step.minutes} minutes on this machine")
    started = time.monotonic()
    process = subprocess.Popen(
        step.command,
        env={**os.environ, **step.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    last = [started]
    finished = threading.Event()

    def heartbeat() -> None:
        while not finished.wait(HEARTBEAT):
            if time.monotonic() - last[0] >= HEARTBEAT:
                say(f"  ... still at it: {step.title}, {(time.monotonic() - started) / 60:.0f} min")

    watcher = threading.Thread(target=heartbeat, daemon=True)
    watcher.start()
    assert process.stdout is not None
    tail: list[str] = []
    compiled = 0
    for line in process.stdout:
        last[0] = time.monotonic()
        tail = [*tail[-39:], line.rstrip()]
        text = line.strip()
        if step.minutes and text.startswith("["):  # ninja: [12/148]
            compiled += 1
            if compiled % 10 == 0:
                say(f"  {text.split(']')[0]}] compiled")
        elif not step.minutes and text:
            say(f"  {text}")
    code = process.wait()
    finished.set()
    if code and not step.may_fail:
        say("\n".join(f"  {line}" for line in tail))
    return code


def torch_has_cuda() -> bool:
    """Whether the installed torch was built for CUDA and sees a GPU."""
    import torch

    return torch.version.cuda is not None and torch.cuda.is_available()


def install(
    cpu: bool = False,
    dry_run: bool = False,
    say: Callable[[str], None] = print,
    run_step: Callable[[Step, Callable[[str], None]], int] = run,
) -> int:
    """Install everything that is missing; the exit code."""
    try:
        cuda = not cpu and torch_has_cuda()
    except ImportError:
        say("torch is not installed: install it first (https://pytorch.org/get-started/locally)")
        return 3
    steps: list[Step] = []
    if not installed(ENGINE):
        steps.append(engine())
    if not _operators_work():
        if run_step(probe(), _silent) == 0 and not _was_broken():
            steps.append(prebuilt())
        else:
            wrong = missing_tools(cuda)
            if wrong and not dry_run:
                for line in wrong:
                    say(line)
                return 3
            steps += [tools(), build(_cores(), cuda)]
            say("No prebuilt wheel of mmcv fits this Python, torch and CUDA: its operators are built here.")
    if not installed(DETECTOR):
        steps.append(detector())
    if not steps:
        say("Everything is installed.")
    minutes = sum(step.minutes for step in steps)
    if minutes:
        say(f"This will take about {minutes} minutes, nearly all of it compiling; it can be left alone.")
    for number, step in enumerate(steps, 1):
        say(f"[{number}/{len(steps)}] {step.title}")
        if dry_run:
            more = "".join(f"{k}={v} " for k, v in step.environment.items())
            say(f"$ {more}{' '.join(step.command)}")
            continue
        if run_step(step, say):
            say(f"failed: {step.title}")
            return 3
    if dry_run:
        return 0
    return _verify(say)


def _verify(say: Callable[[str], None]) -> int:
    # In a process of its own: this one may have half of an older mmcv imported.
    code = "import sys; from msbal_mmdet.diagnosis import diagnose; d = diagnose(); print(*d.problems, sep='\\n'); sys.exit(bool(d.problems))"  # noqa: E501
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if result.returncode:
        say(f"installed, but: {result.stdout.strip() or result.stderr.strip()[-300:]}")
        return 3
    say("MMDetection is ready.")
    return 0


def _operators_work() -> bool:
    if not installed(OPERATORS):
        return False
    command = [sys.executable, "-c", "import mmcv.ops"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _was_broken() -> bool:
    """Whether the version is there but does not load: its wheel was built for another torch."""
    return installed(OPERATORS)


def _silent(_text: str) -> None:
    pass


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m msbal_mmdet.installer", description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="build the operators for the CPU alone")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run none")
    options = parser.parse_args(arguments)
    return install(cpu=options.cpu, dry_run=options.dry_run)


if __name__ == "__main__":
    sys.exit(main())
