#!/usr/bin/env python3
"""Set everything up in .venv and run something in it. Needs Python 3.10 or newer and pip, nothing else.

python3 dev.py quickstart   install msbal with its torchvision backend and train on generated data
python3 dev.py test         install everything, all frameworks included, and check all that a change needs
python3 dev.py test fast    the same without whole runs and without MMDetection, Detectron2 and ultralytics
python3 dev.py test all     the same with all that there is, for a release: clusters, a browser, every head
python3 dev.py docs         build the documentation's site into site/
python3 dev.py version V    write a new version wherever one stands
python3 dev.py publish URL  make the README's links absolute and name the repository, before wheels are built
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts" if os.name == "nt" else "bin") / "python"
MSBAL = PYTHON.with_name("msbal.exe" if os.name == "nt" else "msbal")
FRAMEWORKS = ("mmdet", "detectron2", "ultralytics")
TIERS = {"": "a change", "fast": "a first look", "all": "a release"}
# The longest first, so that no core waits for another at the end.
LANES = (
    "ablations and clusters", "torchvision runs", "mmdet", "mmdet runs", "torchvision", "figures and pages",
    "detectron2 runs", "ultralytics runs", "ultralytics", "detectron2", "engine", "data",
)  # fmt: skip
FAST = ("torchvision", "figures and pages", "engine", "data")
FIGURES = ("unit/ablation/", "unit/docs/", "unit/drawing/", "unit/evaluation/", "unit/plotting/", "unit/ui/")
ENGINE = ("contract/", "reference/", "unit/baselines/", "unit/engine/")
PROJECTS = (ROOT / "pyproject.toml", *sorted(ROOT.glob("backends/*/pyproject.toml")))
# Where a version of ours stands: the package's, a backend's and what they require of each other.
VERSION = re.compile(r'((?:^__version__ = |^version = |"msbal[-\w]*==|^version: )"?)\d[\w.]*', re.MULTILINE)
LINK = re.compile(r"(\])\((?!https?:|#|mailto:)([^)\s]+)\)")
DOCS = ("docs/build.py",)
LINT_IMPORTS = ("-c", "from importlinter.cli import lint_imports_command as lint; lint()")
# Of what is tried at random, more before a release; variables that are set already stay.
MORE = {"MSBAL_KILLS": "3", "MSBAL_FUZZ_EXAMPLES": "500"}


@dataclass(frozen=True)
class Job:
    """One process of a test run."""

    name: str
    arguments: Sequence[str]  # of Python
    environment: Mapping[str, str] = field(default_factory=dict)


def main(arguments: list[str]) -> int:
    """Run one of the commands in the module's docstring."""
    if sys.version_info < (3, 10):  # noqa: UP036 - this file is what tells users of older Pythons
        print("msbal needs Python 3.10 or newer; this is", sys.version.split()[0])
        return 2
    if arguments[:1] == ["quickstart"]:
        return quickstart(arguments[1:])
    if arguments[:1] == ["test"] and len(arguments) <= 2 and "".join(arguments[1:]) in TIERS:
        return test("".join(arguments[1:]))
    if arguments == ["docs"]:
        install("docs", [".[docs]"])
        return run([str(PYTHON), *DOCS])
    if arguments[:1] == ["version"] and len(arguments) == 2:
        return set_version(arguments[1])
    if arguments[:1] == ["publish"] and len(arguments) == 2:
        return name_repository(arguments[1])
    print(__doc__)
    return 0 if arguments in ([], ["-h"], ["--help"]) else 2


def quickstart(arguments: list[str]) -> int:
    """Train examples/quickstart.yaml; further arguments go to `msbal train`."""
    install("base", [".[plots,features]", "./backends/torchvision"])
    # In the caller's folder, so that the paths in what is printed are right there.
    spec = os.path.relpath(ROOT / "examples" / "quickstart.yaml")
    code = run([str(MSBAL), "train", spec, "--force", *arguments], folder=Path.cwd())
    print(f"To type just `msbal` from now on: {activation()}", flush=True)
    return code


def activation() -> str:
    """Return the line that activates .venv in the caller's shell."""
    scripts = os.path.relpath(PYTHON.parent)
    if os.name == "nt":
        return str(Path(scripts) / "activate")
    fish = ".fish" if os.environ.get("SHELL", "").endswith("fish") else ""
    return f"source {shlex.quote(scripts)}/activate{fish}"


def test(tier: str) -> int:
    """Run a tier's checks and tests beside each other; everything runs even after a failure."""
    install("test", [".[test]", "./backends/torchvision"])
    if tier != "fast":
        for name in FRAMEWORKS:
            install_framework(name)
    if tier == "all":
        install("trackers", [".[clearml,comet,trackio]"], "mlflow-skinny")
    start = time.monotonic()
    results: dict[str, tuple[int, float]] = {}

    def ended(job: Job, code: int, seconds: float, output: bytes) -> None:
        results[job.name] = (code, seconds)
        print(f"\n== {job.name}: {verdict(code)} after {seconds:.0f} s", flush=True)
        sys.stdout.buffer.write(output)  # as it came: what this terminal cannot show must not end the run
        sys.stdout.flush()

    jobs = [*checks(tier), *lanes(tier)]
    print(f"For {TIERS[tier]}: {', '.join(job.name for job in jobs)}", flush=True)
    run_beside_each_other(jobs, ended)
    print()
    for name, (code, seconds) in results.items():
        print(f"{name:<24} {verdict(code):<12} {seconds:6.0f} s")
    print(f"{'all of it':<37} {time.monotonic() - start:6.0f} s")
    return int(any(code for code, _ in results.values()))


def set_version(version: str) -> int:
    """Write a version into msbal, its backends and what they require of each other, as a release's first step."""
    files = [ROOT / "msbal" / "__init__.py", ROOT / "CITATION.cff", *PROJECTS]
    for file in files:
        text = file.read_text(encoding="utf-8")
        file.write_text(VERSION.sub(rf"\g<1>{version}", text), encoding="utf-8")
    return 0


def name_repository(url: str) -> int:
    """Make links absolute for a package index, which has none of the repository's files.

    Args:
        url: the repository at GitHub; the files are those of this version's tag. Only a release knows it.
    """
    init = (ROOT / "msbal" / "__init__.py").read_text(encoding="utf-8")
    version = next(VERSION.finditer(init))[0].rpartition('"')[2]
    readme = ROOT / "README.md"
    text = LINK.sub(rf"\1({url}/blob/v{version}/\2)", readme.read_text(encoding="utf-8"))
    text = re.sub(rf"(!\[[^\]]*\]\({re.escape(url)})/blob/", r"\1/raw/", text)
    readme.write_text(text, encoding="utf-8")
    for file in PROJECTS:
        text = file.read_text(encoding="utf-8")
        file.write_text(
            text.replace("[project.urls]\n", f'[project.urls]\nSource = "{url}"\n'), encoding="utf-8"
        )
    return 0


def verdict(code: int) -> str:
    return "ok" if code == 0 else f"FAILED ({code})"


def checks(tier: str) -> list[Job]:
    """Everything but the tests."""
    quickstart = ["-m", "msbal", "train", "examples/quickstart.yaml", "--force", "--plain"]
    if tier != "all":
        quickstart += ["--set", "schedule.iterations=40", "--set", "schedule.warmup=5"]
    # The imports are read as text, so the backends need not be installed.
    backends = os.pathsep.join(str(ROOT / "backends" / name) for name in ("torchvision", *FRAMEWORKS))
    return [
        Job("lint", ["-m", "ruff", "check", "."]),
        Job("format", ["-m", "ruff", "format", "--check", "."]),
        Job("types", ["-m", "mypy", *(word for name in typed(tier) for word in ("-p", name))]),
        Job("import contracts", LINT_IMPORTS, {"PYTHONPATH": backends}),
        Job("docs", DOCS),
        Job("quickstart", quickstart),
    ]


def typed(tier: str) -> list[str]:
    """The packages whose types are checked: a backend's where its framework is installed."""
    return ["msbal", "msbal_torchvision", *(f"msbal_{name}" for name in FRAMEWORKS if tier != "fast")]


def lanes(tier: str) -> list[Job]:
    """The tests, a process for each lane: one that imports several frameworks would take much more time and memory."""
    files: dict[str, list[str]] = {lane: [] for lane in LANES}
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        files[lane_of(file.relative_to(ROOT / "tests").as_posix())].append(str(file.relative_to(ROOT)))
    chosen = FAST if tier == "fast" else LANES
    # What has become slow is seen; lanes that end together would spoil each other's cache of the last failures.
    options = ["-q", "-p", "no:cacheprovider", "--durations=10", "--durations-min=2"]
    marked = ["-m", ""] if tier == "all" else []
    found = []
    for lane in chosen:
        environment = {"MSBAL_TEST_FRAMEWORK": framework_of(lane)}
        if tier == "all":
            environment |= {name: os.environ.get(name, value) for name, value in MORE.items()}
        found.append(Job(lane, ["-m", "pytest", *options, *marked, *files[lane]], environment))
    return found


def lane_of(file: str) -> str:
    """The lane of a test file, from its path below tests/; a framework's tests have its name in theirs."""
    framework = framework_of(file)
    if framework:
        return f"{framework} runs" if file.startswith("e2e/") else framework
    if any(word in file for word in ("e2e/test_abla", "docs_distributed", "ablation_ray", "ablation_slurm")):
        return "ablations and clusters"
    if file.startswith("e2e/"):
        return "torchvision runs"
    if "torchvision" in file:
        return "torchvision"
    if file.startswith(FIGURES):
        return "figures and pages"
    return "engine" if file.startswith(ENGINE) else "data"


def framework_of(name: str) -> str:
    return next((framework for framework in FRAMEWORKS if framework in name), "")


def run_beside_each_other(jobs: Sequence[Job], ended: Callable[[Job, int, float, bytes], None]) -> None:
    """Run as many processes at once as there are cores, each with one thread: more make torch crawl.

    Args:
        ended: gets each job's exit code, seconds and output, in the order in which they end.
    """

    def run_one(job: Job) -> tuple[int, float, bytes]:
        start = time.monotonic()
        environment = {**os.environ, **job.environment, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [str(PYTHON), *job.arguments], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        return done.returncode, time.monotonic() - start, done.stdout

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        running = {pool.submit(run_one, job): job for job in jobs}
        try:
            for future in as_completed(running):
                ended(running[future], *future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def install(name: str, packages: list[str], *others: str) -> None:
    """Install the project's own packages, editable, and others, unless nothing has changed since the last time."""
    make_venv()
    inputs = [ROOT / "constraints.txt", *PROJECTS]
    stamp = VENV / f".installed-{name}"
    state = hashlib.sha256(b"".join(file.read_bytes() for file in inputs)).hexdigest()
    if stamp.exists() and stamp.read_text() == state:
        return
    print("Installing; the first time downloads PyTorch, about 3 GB.", flush=True)
    editable = [part for package in packages for part in ("-e", package)]
    pip = [str(PYTHON), "-m", "pip", "install", "-q", "-c", "constraints.txt", "setuptools<82", "wheel"]
    code = run(pip) or run([*pip, *editable, *others])
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


def run(command: list[str], quiet: bool = False, folder: Path = ROOT) -> int:
    """Run a command, from the project's root unless told otherwise, and return its exit code."""
    if not quiet:
        shown = [os.path.relpath(part, folder) if part.startswith(str(VENV)) else part for part in command]
        print("$", shlex.join(shown), flush=True)
    output = subprocess.DEVNULL if quiet else None
    environment = {**os.environ, "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the command has got it, too, and may have something to save
                continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
