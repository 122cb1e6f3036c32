"""Installs detectron2, which no package index has under its name. Runs before detectron2 exists.

Two ways, tried in order:

1. upstream's own: ``pip install`` from its git repository, C++ operators and all, where the repository can be
   reached and a compiler is there;
2. detectron2 0.6 as one PyPI project carries it: its Python files without the C++ sources. Its ``setup.py``
   would compile those and fails; three lines of it are changed before it is installed. The archive is checked
   against a fixed SHA-256 before anything in it runs.

``python -m msbal_detectron2.installer`` does the same as ``msbal backends install detectron2``.
"""

from __future__ import annotations

import argparse
import ensurepip
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from msbal.errors import BackendError, MsbalError
from msbal_detectron2 import compat

UPSTREAM = "https://github.com/facebookresearch/detectron2.git"
SDIST = "pb1-detectron2==0.6"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
WITHOUT_CPP = (
    "detectron2 0.6 is installed without its C++ operators. RetinaNet, FCOS and the R-CNNs (masks, keypoints, "
    "cascades and deformable convolutions included) do not need them. Missing: rotated boxes (RRPN, "
    "nms_rotated, ROIAlignRotated) and the C++ COCO evaluation (COCOEvaluator needs use_fast_impl=False). "
    "To have them, build detectron2 from its repository."
)

# What is changed in the source distribution's setup.py, and why.
SETUP_PATCHES = (
    # The sources of the operators are not in the archive.
    ("    ext_modules=get_extensions(),\n", ""),
    ('    cmdclass={"build_ext": torch.utils.cpp_extension.BuildExtension},\n', ""),
    # It looks for configs/ beside setup.py, as in the repository; in the archive they are in place.
    (
        'package_data={"detectron2.model_zoo": get_model_zoo_configs()}',
        'package_data={"detectron2.model_zoo": ["configs/**/*.yaml", "configs/**/*.py"]}',
    ),
    # A formatter of 2021, pinned, only to print LazyConfigs; it drags others' packages back years.
    ('"black==21.4b2"', '"black"'),
)

Say = Callable[[str], None]


def install(say: Say = print, *, upstream: bool = True, force: bool = False, timeout: float = 30.0) -> None:
    """Install detectron2 into this Python's environment.

    Args:
        say: takes each line of progress.
        upstream: whether to try the git repository first.
        force: install although it is there.
        timeout: seconds to wait for the repository to answer.

    Raises:
        BackendError: where neither way works; the last lines of the failing command are named.
    """
    if importlib.util.find_spec("detectron2") is not None and not force:
        say("detectron2 is already installed")
        return
    if importlib.util.find_spec("torch") is None:
        raise BackendError(
            "detectron2", "its installation needs torch first", fix="run `pip install torch torchvision`"
        )
    if upstream and _reachable(timeout):
        say(f"installing detectron2 from {UPSTREAM}; compiling its operators takes some minutes")
        try:
            _pip("install", "--no-build-isolation", f"git+{UPSTREAM}")
            say("detectron2 is installed, C++ operators included")
            return
        except BackendError as error:
            say(f"that failed ({error.found}); trying PyPI")
    elif upstream:
        say("detectron2's repository cannot be reached; installing its Python part from PyPI")
    install_from_sdist(say)


def install_from_sdist(say: Say = print) -> None:
    """Install 0.6's Python part from PyPI, with the stand-in operators and the patches of `compat`."""
    with tempfile.TemporaryDirectory(prefix="msbal-detectron2-") as folder:
        say(f"downloading {SDIST}")
        source = unpack(download(Path(folder)), Path(folder) / "source")
        patch_source(source)
        say("installing")
        _pip("install", "--no-build-isolation", str(source))
    say(WITHOUT_CPP)


def download(folder: Path) -> Path:
    """Fetch the source distribution into `folder`; pip refuses any other than the expected one."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{SDIST} --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    _pip(
        "download",
        "--require-hashes",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--no-build-isolation",
        "--dest",
        str(folder),
        "--requirement",
        str(requirements),
    )
    archives = sorted(folder.glob("*.tar.gz"))
    if len(archives) != 1:
        found = ", ".join(archive.name for archive in archives) or "nothing"
        raise BackendError("detectron2", f"the download gave {found}", "one source archive")
    return archives[0]


def unpack(archive: Path, destination: Path) -> Path:
    """Unpack `archive` and return its top folder. Links, devices and paths that lead outside are refused."""
    if not hasattr(tarfile, "data_filter"):
        raise BackendError(
            "detectron2",
            f"Python {sys.version.split()[0]} cannot unpack archives safely",
            "Python 3.10.12, 3.11.4 or newer",
        )
    destination.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(destination, filter="data")
    except tarfile.TarError as error:
        raise BackendError("detectron2", f"{archive.name} cannot be unpacked: {error}") from error
    tops = [path for path in destination.iterdir() if path.is_dir()]
    if len(tops) != 1 or not (tops[0] / "setup.py").is_file():
        raise BackendError("detectron2", f"{archive.name} holds no setup.py", "one folder with a setup.py")
    return tops[0]


def patch_source(source: Path) -> None:
    """Apply `SETUP_PATCHES` and `compat.PATCHES` to an unpacked source, and add the stand-in operators.

    Raises:
        BackendError: where setup.py is not the one that is known.
    """
    setup = source / "setup.py"
    text = setup.read_text(encoding="utf-8")
    for old, new in SETUP_PATCHES:
        if text.count(old) != 1:
            raise BackendError("detectron2", f"setup.py lacks {old.strip()!r}", "the setup.py of 0.6")
        text = text.replace(old, new)
    setup.write_text(text, encoding="utf-8")
    for module in {patch.module for patch in compat.PATCHES}:
        path = source.joinpath(*module.split(".")).with_suffix(".py")
        path.write_text(compat.patched(module, path.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("operators.py"), source / "detectron2" / "_C.py")


def _reachable(timeout: float) -> bool:
    git = shutil.which("git")
    if git is None:
        return False
    try:
        done = subprocess.run(
            [git, "ls-remote", "--exit-code", UPSTREAM, "HEAD"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def pip_command() -> list[str]:
    """How to run pip for this Python, also where its environment has none (as those that uv makes)."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    bundled = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    if not bundled:
        raise BackendError(
            "detectron2", "this environment has no pip", fix=f"install pip for {sys.executable}"
        )
    # A wheel is a zip file, which Python runs as it runs a package.
    return [sys.executable, str(bundled[-1] / "pip")]


def _pip(*arguments: str) -> None:
    done = subprocess.run(
        [*pip_command(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BackendError(
            "detectron2",
            f"`pip {arguments[0]}` failed: {_cause(done.stdout)}",
            fix=f"run `{' '.join(['pip', *arguments])}` to see all of it",
        )


def _cause(output: str) -> str:
    """The line of pip's output that says most."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no output"])[-1]


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m msbal_detectron2.installer [--pypi] [--force]``."""
    parser = argparse.ArgumentParser(prog="msbal_detectron2.installer", description="Install detectron2.")
    parser.add_argument("--pypi", action="store_true", help="do not try detectron2's own repository")
    parser.add_argument("--force", action="store_true", help="install although it is there")
    options = parser.parse_args(arguments)
    try:
        install(upstream=not options.pypi, force=options.force)
    except MsbalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
