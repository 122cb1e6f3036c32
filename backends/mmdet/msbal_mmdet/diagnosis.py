"""What is installed, what does not fit, and the command that fixes it."""

from __future__ import annotations

import importlib
import os
import re
import sys
from importlib import metadata, util

from msbal.backend import Diagnosis
from msbal_mmdet.quiet import quiet

INSTALL = "msbal backends install mmdet"
# The maintained line first, then the original distributions of the same packages.
PACKAGES = {
    "mmengine": ("onedl-mmengine", "mmengine"),
    "mmcv": ("onedl-mmcv", "mmcv", "mmcv-lite", "mmcv-full"),
    "mmdet": ("onedl-mmdetection", "mmdet"),
}
# mmdet's own __init__ asserts the range of mmcv; ours says it before the import fails.
RANGES = {"mmengine": ((0, 7, 1), (1, 0, 0)), "mmcv": ((2, 0, 0), (3, 0, 0)), "mmdet": ((3, 0, 0), (4, 0, 0))}


def diagnose() -> Diagnosis:
    """Run every check, in the order in which one failure would hide the next."""
    versions: dict[str, str] = {}
    problems: list[str] = []
    remedies: list[str] = []
    notes: list[str] = []
    for package in ("msbal-mmdet", "torch", "numpy", "setuptools"):
        version = _version(package)
        if version:
            versions[package] = version
    for module, names in PACKAGES.items():
        found = [(name, v) for name in names if (v := _version(name))]
        for name, version in found:
            versions[name] = version
        if not found:
            problems.append(f"{module} is not installed")
            remedies.append(INSTALL)
        elif len(found) > 1:
            both = " and ".join(name for name, _ in found)
            problems.append(f"{both} are both installed, and overwrite each other's files")
            remedies.append(f"{_pip()} uninstall -y {' '.join(n for n, _ in found)} && {INSTALL}")
        elif not _in_range(found[0][1], module):
            low, high = (".".join(map(str, v)) for v in RANGES[module])
            problems.append(
                f"{found[0][0]} {found[0][1]} does not fit: {low} or later, below {high}, is needed"
            )
            remedies.append(INSTALL)
    setuptools = versions.get("setuptools")
    if setuptools and _numbers(setuptools) >= (82,) and util.find_spec("pkg_resources") is None:
        notes.append(
            f"setuptools {setuptools} has no pkg_resources, which building mmcv needs: {_pip()} install 'setuptools<82'"
        )
    if not problems:
        _try_imports(problems, remedies)
    if not problems and not _has_cuda():
        notes.append("torch sees no GPU, or mmcv's operators are built for the CPU: training runs on the CPU")
    if util.find_spec("sklearn") is None:
        notes.append(f"scikit-learn is missing, which PAA and LAD need: {_pip()} install scikit-learn")
    return Diagnosis(versions, problems, remedies, notes)


def _try_imports(problems: list[str], remedies: list[str]) -> None:
    """Import what a run imports; name the first thing that fails."""
    for module, advice in (
        ("torch", f"{_pip()} install torch"),
        ("mmengine", INSTALL),
        ("mmcv", INSTALL),
        ("mmcv.ops", INSTALL),
        ("mmdet", INSTALL),
        ("mmdet.models", INSTALL),
    ):
        try:
            with quiet(errors=True):  # of packages that mmdet can do without, too
                importlib.import_module(module)
        except Exception as error:
            problem, remedy = explain(module, error)
            problems.append(problem)
            remedies.append(remedy or advice)
            return


def explain(module: str, error: Exception) -> tuple[str, str]:
    """Return what an import error means, and the command that fixes it; an empty one where none is known."""
    text = " ".join(str(error).split())[:200]
    name = getattr(error, "name", None)
    if name == "mmcv._ext":
        return "mmcv is installed without its compiled operators", INSTALL
    if "undefined symbol" in text or "_ext" in text:
        return (
            f"mmcv's operators were built for another torch: {text}",
            f"{_pip()} uninstall -y onedl-mmcv mmcv && {INSTALL}",
        )
    if "numpy" in text.lower() and (
        "ABI" in text or "dtype size" in text or "_ARRAY_API" in text or "NumPy 1" in text
    ):
        return f"a package was built for another NumPy: {text}", f"{_pip()} install 'numpy<2'"
    if name == "pkg_resources":
        return (
            f"{module} needs pkg_resources, which setuptools 82 dropped",
            f"{_pip()} install 'setuptools<82'",
        )
    if "libGL" in text or "libgthread" in text:
        return (
            f"OpenCV needs a display library: {text}",
            f"{_pip()} uninstall -y opencv-python && {_pip()} install --force-reinstall opencv-python-headless",
        )
    if isinstance(error, AssertionError) and "MMCV" in text:
        return f"mmdet and mmcv do not fit each other: {text}", INSTALL
    if isinstance(error, ModuleNotFoundError) and name:
        return f"{module} needs {name}, which is not installed", f"{_pip()} install {name}"
    return f"{module} does not load: {type(error).__name__}: {text}", ""


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the release numbers of a version, without what follows them (rc1, +cu130)."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()


def _in_range(version: str, module: str) -> bool:
    low, high = RANGES[module]
    return low <= _numbers(version) < high


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _pip() -> str:
    return (
        "python -m pip"
        if sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ
        else f"{sys.executable} -m pip"
    )
