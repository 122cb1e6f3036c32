"""Install ultralytics, of the versions that msbal is proven with: `msbal backends install ultralytics`.

It comes as two distributions: ``ultralytics`` requires the OpenCV that draws windows and so needs a display library,
which servers and containers often lack; ``ultralytics-opencv-headless`` is the same package with an OpenCV that needs
none. Both OpenCVs are one folder, ``cv2``, and the last that was installed is the one that loads.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from ctypes import CDLL

from msbal.errors import BackendError
from msbal.install import Say, Step, main, pip
from msbal_ultralytics.diagnosis import DISTRIBUTIONS, installed_version, version_of, wrong_version

VERSIONS = ">=8.4.10,<8.5"
OPENCV, HEADLESS = "opencv-python", "opencv-python-headless"
LIBRARIES = ("libGL.so.1", "libgthread-2.0.so.0")
"""What the OpenCV that draws windows needs of Linux."""


def steps(cpu: bool, dry_run: bool, say: Say) -> Iterator[Step]:
    """Yield what is missing.

    Args:
        cpu: has no meaning here: nothing is built.
        dry_run: whether the steps are only printed.
        say: takes lines of progress.

    Raises:
        BackendError: where torch or torchvision is missing: pip could choose a pair that does not fit this machine.
    """
    for package in ("torch", "torchvision"):
        if importlib.util.find_spec(package) is None:
            raise BackendError(
                "ultralytics", f"{package} is not installed",
                fix="install torch and torchvision first (https://pytorch.org/get-started/locally)",
            )  # fmt: skip
    if not installed_version() or wrong_version():
        there = [name for name in DISTRIBUTIONS if version_of(name)]
        name = (there or DISTRIBUTIONS)[0 if there else prefers_headless()]
        yield Step(f"install {name}", pip("install", f"{name}{VERSIONS}"))
        if dry_run:
            return
    if not opencv_loads():
        same = f"=={version_of(OPENCV)}" if version_of(OPENCV) else ""
        command = pip("install", "--force-reinstall", "--no-deps", f"{HEADLESS}{same}")
        yield Step("install an OpenCV that needs no display library", command)


def prefers_headless() -> bool:
    """Whether the OpenCV that is there needs no display library, or the one that draws windows would not load."""
    if version_of(OPENCV):
        return False
    return bool(version_of(HEADLESS)) or not has_display_libraries()


def has_display_libraries() -> bool:
    """Whether the OpenCV that draws windows would load here."""
    try:
        return not sys.platform.startswith("linux") or all(map(CDLL, LIBRARIES))
    except OSError:
        return False


def opencv_loads() -> bool:
    """Whether OpenCV can be imported, tried in a process of its own: this one would keep half of it."""
    command = [sys.executable, "-c", "import cv2"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main("ultralytics", steps))
