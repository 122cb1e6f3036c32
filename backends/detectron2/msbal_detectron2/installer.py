"""Install detectron2, which no package index has under its name: `msbal backends install detectron2`.

Two ways, tried in order:

1. upstream's own: ``pip install`` from its git repository, C++ operators and all, where the repository can be
   reached and a compiler is there;
2. detectron2 0.6 as one PyPI project carries it: its Python files without the C++ sources. Its ``setup.py``
   would compile those and fails; some lines of it are changed before it is installed. The archive is checked
   against a fixed SHA-256 before anything in it runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from msbal.errors import BackendError
from msbal.install import BUILD_TOOLS, Say, Step, main, pip
from msbal_detectron2 import compat

UPSTREAM = "https://github.com/facebookresearch/detectron2.git"
SDIST = "pb1-detectron2==0.6"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
MINUTES_OF_COMPILING = 10
SECONDS_TO_ANSWER = 30.0
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


def steps(cpu: bool, dry_run: bool, say: Say) -> Iterator[Step]:
    """Yield what installs detectron2, where it is missing: its repository first, then 0.6's Python part.

    Args:
        cpu: has no meaning here: detectron2's own setup decides.
        dry_run: whether the steps are only printed.
        say: takes lines of progress.

    Raises:
        BackendError: where torch is missing, or the archive is not the one that is known.
    """
    if find_detectron2():
        return
    if importlib.util.find_spec("torch") is None:
        raise BackendError(
            "detectron2", "its installation needs torch first", fix="run `pip install torch torchvision`"
        )
    yield Step("install what building needs", pip("install", *BUILD_TOOLS))
    if can_be_reached():
        command = pip("install", "--no-build-isolation", f"git+{UPSTREAM}")
        title = "build detectron2, C++ operators included, from its repository"
        yield Step(title, command, may_fail=True, minutes=MINUTES_OF_COMPILING)
        if dry_run or find_detectron2():
            return
        say("That failed: installing its Python part from PyPI.")
    else:
        say("detectron2's repository cannot be reached: installing its Python part from PyPI.")
    with tempfile.TemporaryDirectory(prefix="msbal-detectron2-") as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{SDIST} --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
        command = pip(
            "download", "--require-hashes", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
            "--dest", folder, "--requirement", str(requirements),
        )  # fmt: skip
        yield Step(f"download {SDIST}", command)
        source = Path(folder) / "source"
        if not dry_run:
            source = unpack(one_archive(Path(folder)), source)
            patch_source(source)
        yield Step("install detectron2 0.6", pip("install", "--no-build-isolation", str(source)))
    say(WITHOUT_CPP)


def find_detectron2() -> bool:
    importlib.invalidate_caches()
    return importlib.util.find_spec("detectron2") is not None


def can_be_reached() -> bool:
    """Whether detectron2's repository answers."""
    command = ["git", "ls-remote", "--exit-code", UPSTREAM, "HEAD"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS_TO_ANSWER, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def one_archive(folder: Path) -> Path:
    """Return the archive that was downloaded into `folder`."""
    archives = sorted(folder.glob("*.tar.gz"))
    if len(archives) != 1:
        found = ", ".join(archive.name for archive in archives) or "nothing"
        raise BackendError("detectron2", f"the download gave {found}", "one source archive")
    return archives[0]


def unpack(archive: Path, destination: Path) -> Path:
    """Unpack `archive` and return its top folder; links, devices and paths that lead outside are refused."""
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
    """Apply `SETUP_PATCHES` and `compat.PATCHES` to an unpacked source, and add the substitute for its operators.

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
    for module in compat.PATCHES:
        path = source.joinpath(*module.split(".")).with_suffix(".py")
        path.write_text(compat.patched(module, path.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("operators.py"), source / "detectron2" / "_C.py")


if __name__ == "__main__":
    sys.exit(main("detectron2", steps))
