"""Install MMDetection with operators that fit this Python, torch and CUDA: `msbal backends install mmdet`.

First a prebuilt wheel is looked for: among those that mmcv's maintainers build for each torch and CUDA, then in the
indexes that pip is configured with. Where none fits, or the one that was found does not load, the operators are built
from the source distribution, which takes a while and is announced.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata

from msbal.errors import BackendError
from msbal.install import BUILD_TOOLS, Say, Step, is_installed, main, pip, run

ENGINE, OPERATORS, DETECTOR = "onedl-mmengine==0.10.12", "onedl-mmcv==2.3.6", "onedl-mmdetection==3.5.1"
# The maintainers' wheels are not of every version for every torch.
ANY_OPERATORS = "onedl-mmcv>=2.3.0,<2.4"
WHEELS = "https://mmwheels.onedl.ai"
"""Pages of wheels, one for each device and torch; ``MMCV_BASE_URL`` names another place, as for onedl-mim."""
MINUTES_ON_TWO_CORES = 20


def steps(cpu: bool, dry_run: bool, say: Say, run: Callable[[Step, Say], int] = run) -> Iterator[Step]:
    """Yield what is missing; a wheel that does not load with this torch is followed by a build.

    Raises:
        BackendError: where torch, or something that a build needs, is missing.
    """
    version, cuda = torch_build()
    page, building = "", []
    if not operators_work():
        found = (
            None if operators_there() else find_wheel(wheel_page(version, None if cpu else cuda), say, run)
        )
        if found is None:
            say("No prebuilt wheel of mmcv fits this Python, torch and CUDA: its operators are built here.")
            building = build(not cpu and torch_sees_gpu(), dry_run)
            minutes = building[-1].minutes
            say(f"This will take about {minutes} minutes, nearly all of it compiling; it can be left alone.")
        else:
            page = found
    if not is_installed(ENGINE):
        yield Step("install mmengine", pip("install", ENGINE))
    if not building and not operators_work():
        where, operators = (("--find-links", page), ANY_OPERATORS) if page else ((), OPERATORS)
        command = pip("install", "--only-binary=onedl-mmcv", *where, operators)
        yield Step("install mmcv from a wheel", command)
        if not dry_run and not operators_work():
            building = build(not cpu and torch_sees_gpu(), dry_run)
            say(
                f"The wheel does not load with this torch. Building takes about {building[-1].minutes} minutes more."
            )
    yield from building
    if not is_installed(DETECTOR):
        yield Step("install mmdetection", pip("install", DETECTOR))


def wheel_page(torch_version: str, cuda: str | None) -> str:
    """Return the page of the wheels that were built for a torch.

    Args:
        torch_version: e.g. ``2.8.0+cu128``; the wheels of 2.8.0 fit every 2.8.
        cuda: that torch was built for, e.g. ``12.8``; None for the CPU.
    """
    major, minor = torch_version.split(".")[:2]
    device = "cpu" if cuda is None else f"cu{cuda.replace('.', '')}"
    base = os.environ.get("MMCV_BASE_URL", WHEELS).rstrip("/")
    return f"{base}/{device}-torch{major}{minor}0/simple/onedl-mmcv/index.html"


def find_wheel(page: str, say: Say, run: Callable[[Step, Say], int] = run) -> str | None:
    """Look for a wheel for this Python: return its page, "" for pip's own indexes, None where there is none."""
    for place, requirement in ((page, ANY_OPERATORS), ("", OPERATORS)):
        where = ("--no-index", "--find-links", place) if place else ()
        command = pip(
            "install", "--dry-run", "--no-deps", "--only-binary=:all:", "--quiet", *where, requirement
        )
        # An index that cannot be reached is an answer, too.
        patience = {"PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "15"}
        title = f"look for a prebuilt wheel of mmcv {'at ' + place if place else 'in the configured indexes'}"
        say(title)
        if run(Step(title, command, patience, may_fail=True), lambda _line: None) == 0:
            return place
    return None


def build(cuda: bool, dry_run: bool = False) -> list[Step]:
    """Return the steps that build the operators against the installed torch, which build isolation would hide.

    Args:
        cuda: build the CUDA operators too.
        dry_run: whether missing tools are no error.

    Raises:
        BackendError: where a compiler is missing.
    """
    compiler = os.environ.get("CXX", "c++")
    if not dry_run and not any(map(shutil.which, (compiler, "g++", "clang++"))):
        raise BackendError("mmdet", "no C++ compiler is found", fix="install one, e.g. `apt-get install g++`")
    if not dry_run and cuda and not (shutil.which("nvcc") or os.environ.get("CUDA_HOME")):
        raise BackendError(
            "mmdet", "torch is built for CUDA, but no nvcc is found",
            fix="install the CUDA toolkit of torch's version and set CUDA_HOME, or build for the CPU with --cpu",
        )  # fmt: skip
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {"MMCV_WITH_OPS": "1", "FORCE_CUDA": "1" if cuda else "0", "MAX_JOBS": str(cores)}
    # An mmcv that is there and does not load would be left in place by pip.
    again = ("--force-reinstall", "--no-deps") if operators_there() else ()
    command = pip(
        "install", "--no-build-isolation", "--no-binary=onedl-mmcv", "--no-cache-dir", "-v", *again, OPERATORS
    )
    minutes = max(3, round(MINUTES_ON_TWO_CORES * 2 / cores * (2.5 if cuda else 1)))
    return [
        Step("install what building needs", pip("install", *BUILD_TOOLS)),
        Step("build mmcv's operators from source", command, environment, minutes=minutes),
    ]


def torch_build() -> tuple[str, str | None]:
    """Return the version of the installed torch, and the CUDA that it was built for."""
    try:
        import torch
    except ImportError:
        raise BackendError(
            "mmdet",
            "torch is not installed",
            fix="install it first (https://pytorch.org/get-started/locally)",
        ) from None
    return torch.__version__, torch.version.cuda


def torch_sees_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def operators_work() -> bool:
    """Whether mmcv's operators load, tried in a process of its own: this one may have half of an older mmcv."""
    command = [sys.executable, "-c", "import mmcv.ops"]
    return operators_there() and subprocess.run(command, capture_output=True, check=False).returncode == 0


def operators_there() -> bool:
    """Whether a version that would do is there; where it does not load, it was built for another torch."""
    try:
        return metadata.version("onedl-mmcv").startswith("2.3.")
    except metadata.PackageNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main("mmdet", steps))
