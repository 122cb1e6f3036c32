#!/usr/bin/env python3
"""Set everything up in .venv and run something in it. Needs Python 3.10 or newer and pip, nothing else.

python3 dev.py quickstart   install msbal with its torchvision backend and train on generated data
python3 dev.py test         install everything, all frameworks included, and run all checks and tests
python3 dev.py test fast    the same without slow tests and without MMDetection and Detectron2
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts" if os.name == "nt" else "bin") / "python"
FRAMEWORKS = ("mmdet", "detectron2")


def main(arguments: list[str]) -> int:
    """Run one of the commands in the module's docstring."""
    if sys.version_info < (3, 10):  # noqa: UP036 - this file is what tells users of older Pythons
        print("msbal needs Python 3.10 or newer; this is", sys.version.split()[0])
        return 2
    if arguments[:1] == ["quickstart"]:
        return quickstart(arguments[1:])
    if arguments in (["test"], ["test", "fast"]):
        return test(fast=len(arguments) > 1)
    print(__doc__)
    return 0 if arguments in ([], ["-h"], ["--help"]) else 2


def quickstart(arguments: list[str]) -> int:
    """Train examples/quickstart.yaml; further arguments go to `msbal train`."""
    install("base", [".[plots]", "./backends/torchvision"])
    return run([str(PYTHON), "-m", "msbal", "train", "examples/quickstart.yaml", "--force", *arguments])


def test(fast: bool) -> int:
    """Lint, types, import contract, tests, then the quickstart; everything runs even after a failure."""
    install("test", [".[test]", "./backends/torchvision"])
    if not fast:
        for name in FRAMEWORKS:
            install_framework(name)
    quick = ["-m", "not slow"] if fast else []
    # A process per core and one thread each: more threads than cores make torch crawl. Files of few tests are
    # no quick ones; reordered, they would come last and keep one core waiting for the other.
    parallel = ["-n", "logical", "--dist", "loadfile", "--no-loadscope-reorder"]
    checks = {
        "lint": ["-m", "ruff", "check", "."],
        "format": ["-m", "ruff", "format", "--check", "."],
        "types": ["-m", "mypy"],
        "import contract": ["-c", "from importlinter.cli import lint_imports_command as c; c()"],
        "quickstart": ["-m", "msbal", "train", "examples/quickstart.yaml", "--force", "--plain"],
        "tests": ["-m", "pytest", "-q", *parallel, *quick],
    }
    results = {}
    for name, command in checks.items():
        start = time.monotonic()
        code = run([str(PYTHON), *command], threads=1 if name == "tests" else None)
        results[name] = (code, time.monotonic() - start)
    print()
    for name, (code, seconds) in results.items():
        print(f"{name:<16} {'ok' if code == 0 else f'FAILED ({code})':<12} {seconds:6.0f} s")
    return int(any(code for code, _ in results.values()))


def install(name: str, packages: list[str]) -> None:
    """Install the project's own packages, editable, unless nothing has changed since the last time."""
    make_venv()
    inputs = [
        ROOT / "constraints.txt",
        ROOT / "pyproject.toml",
        *sorted(ROOT.glob("backends/*/pyproject.toml")),
    ]
    stamp = VENV / f".installed-{name}"
    state = hashlib.sha256(b"".join(file.read_bytes() for file in inputs)).hexdigest()
    if stamp.exists() and stamp.read_text() == state:
        return
    print("Installing; the first time downloads PyTorch, about 3 GB.", flush=True)
    editable = [part for package in packages for part in ("-e", package)]
    pip = [str(PYTHON), "-m", "pip", "install", "-q", "-c", "constraints.txt", "setuptools<82", "wheel"]
    code = run(pip) or run([*pip, *editable])
    if code:
        sys.exit(code)
    stamp.write_text(state)


def install_framework(name: str) -> None:
    """Let msbal install a framework, as a user would."""
    code = run([str(PYTHON), "-m", "msbal", "backends", "install", name])
    if code:
        sys.exit(code)


def make_venv() -> None:
    """Create .venv, also where Python comes without ensurepip, as Debian's does."""
    if PYTHON.exists():
        return
    if run([sys.executable, "-m", "venv", str(VENV)], quiet=True):
        code = run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)]) or run(
            [sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "-q", "pip"]
        )
        if code:
            sys.exit(code)


def run(command: list[str], quiet: bool = False, threads: int | None = None) -> int:
    """Run a command from the project's root and give its exit code."""
    if not quiet:
        shown = [Path(part).name if part == str(PYTHON) else part for part in command]
        print("$", " ".join(shown), flush=True)
    output = subprocess.DEVNULL if quiet else None
    environment = {**os.environ, "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdout=output, stderr=output, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
