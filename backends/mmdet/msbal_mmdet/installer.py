"""Installs MMDetection with operators that fit this Python, torch and CUDA: `msbal backends install mmdet`.

    python -m msbal_mmdet.installer [--cpu] [--dry-run]

First a prebuilt wheel is looked for: among those that mmcv's maintainers build for each torch and CUDA, then
in the indexes that pip is configured with. Where none fits, or the one that was found does not load, the
operators are built from the source distribution, which takes a while and is said before.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, util

ENGINE, OPERATORS, DETECTOR = "onedl-mmengine==0.10.12", "onedl-mmcv==2.3.6", "onedl-mmdetection==3.5.1"
# The maintainers' wheels are not of every version for every torch.
ANY_OPERATORS = "onedl-mmcv>=2.3.0,<2.4"
WHEELS = "https://mmwheels.onedl.ai"
"""Pages of wheels, one for each device and torch; ``MMCV_BASE_URL`` names another place, as for onedl-mim."""
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


def wheel_page(torch_version: str, cuda: str | None) -> str:
    """The page of the wheels that were built for a torch.

    Args:
        torch_version: e.g. ``2.8.0+cu128``; the wheels of 2.8.0 fit every 2.8.
        cuda: that torch was built for, e.g. ``12.8``; None for the CPU.
    """
    major, minor = torch_version.split(".")[:2]
    device = "cpu" if cuda is None else f"cu{cuda.replace('.', '')}"
    base = os.environ.get("MMCV_BASE_URL", WHEELS).rstrip("/")
    return f"{base}/{device}-torch{major}{minor}0/simple/onedl-mmcv/index.html"


def probe(page: str = "") -> Step:
    """Whether there is a wheel of the operators for this Python.

    Args:
        page: of wheels; by default the indexes that pip is configured with.
    """
    where = ("--no-index", "--find-links", page) if page else ()
    requirement = ANY_OPERATORS if page else OPERATORS
    command = pip("install", "--dry-run", "--no-deps", "--only-binary=:all:", "--quiet", *where, requirement)
    title = f"look for a prebuilt wheel of mmcv {'at ' + page if page else 'in the configured indexes'}"
    # An index that cannot be reached is an answer too.
    return Step(title, command, {"PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "15"}, may_fail=True)


def tools() -> Step:
    return Step("install what building needs", pip("install", *BUILD_TOOLS))


def engine() -> Step:
    return Step("install mmengine", pip("install", ENGINE))


def prebuilt(page: str = "") -> Step:
    """Install the wheel that `probe` has found."""
    where = ("--find-links", page) if page else ()
    requirement = ANY_OPERATORS if page else OPERATORS
    return Step("install mmcv from a wheel", pip("install", "--only-binary=onedl-mmcv", *where, requirement))


def build(cores: int, cuda: bool, again: bool = False) -> Step:
    """Build the operators against the installed torch, which build isolation would hide.

    Args:
        cores: compilers at once.
        cuda: build the CUDA operators too.
        again: in the place of an mmcv that is installed and does not load, which pip would leave there.
    """
    environment = {"MMCV_WITH_OPS": "1", "FORCE_CUDA": "1" if cuda else "0", "MAX_JOBS": str(cores)}
    minutes = max(3, round(MINUTES_ON_TWO_CORES * 2 / max(1, cores) * (2.5 if cuda else 1)))
    command = pip(
        "install", "--no-build-isolation", "--no-binary=onedl-mmcv", "--no-cache-dir", "-v",
        *(("--force-reinstall", "--no-deps") if again else ()), OPERATORS,
    )  # fmt: skip
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
    say(f"$ {shlex.join(step.command)}")
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


def torch_build(cpu: bool) -> tuple[str, str | None]:
    """The version of the installed torch, and the CUDA that it was built for, unless the CPU is asked for."""
    import torch

    return torch.__version__, None if cpu else torch.version.cuda


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
        page = None if _operators_there() else _find_wheel(cpu, say, run_step)
        if page is not None:
            steps.append(prebuilt(page))
        else:
            building = _building(cuda, dry_run, say)
            if building is None:
                return 3
            steps += building
    if not installed(DETECTOR):
        steps.append(detector())
    if not steps:
        say("Everything is installed.")
    minutes = sum(step.minutes for step in steps)
    if minutes:
        say(f"This will take about {minutes} minutes, nearly all of it compiling; it can be left alone.")
    if dry_run:
        for number, step in enumerate(steps, 1):
            more = "".join(f"{k}={v} " for k, v in step.environment.items())
            say(f"[{number}/{len(steps)}] {step.title}\n$ {more}{shlex.join(step.command)}")
        return 0
    done = 0
    while steps:
        step, done = steps.pop(0), done + 1
        say(f"[{done}/{done + len(steps)}] {step.title}")
        if run_step(step, say):
            say(f"failed: {step.title}")
            return 3
        if step.title == prebuilt().title and not _operators_work():
            say("The wheel does not load with this torch.")
            building = _building(cuda, dry_run, say)
            if building is None:
                return 3
            say(f"Building takes about {building[-1].minutes} minutes more.")
            steps = [*building, *steps]
    return _verify(say)


def _find_wheel(
    cpu: bool, say: Callable[[str], None], run_step: Callable[[Step, Callable[[str], None]], int]
) -> str | None:
    """The page that has a wheel which fits, empty for the configured indexes; None where there is none."""
    for page in (wheel_page(*torch_build(cpu)), ""):
        step = probe(page)
        say(step.title)
        if run_step(step, _silent) == 0:
            return page
    return None


def _building(cuda: bool, dry_run: bool, say: Callable[[str], None]) -> list[Step] | None:
    """The steps of a build, or None, the reason said, where something for it is missing."""
    wrong = missing_tools(cuda)
    if wrong and not dry_run:
        for line in wrong:
            say(line)
        return None
    say("No prebuilt wheel of mmcv fits this Python, torch and CUDA: its operators are built here.")
    return [tools(), build(_cores(), cuda, again=_operators_there())]


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
    if not _operators_there():
        return False
    command = [sys.executable, "-c", "import mmcv.ops"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _operators_there() -> bool:
    """Whether a version that would do is there; where it does not load, it was built for another torch."""
    try:
        return metadata.version("onedl-mmcv").startswith("2.3.")
    except metadata.PackageNotFoundError:
        return False


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
