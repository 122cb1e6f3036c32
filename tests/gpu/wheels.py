"""Gather what a GPU machine without a network lacks: ``python tests/gpu/wheels.py FOLDER``.

Wheels for its Python (3.12 on Linux, x86-64) of everything that msbal, detectron2's Python part and MMDetection need
beyond torch, torchvision and what such a machine usually has; MMCV's source, whose operators are compiled there for its
card; detectron2 as it is installed here.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
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
    "onedl-mmengine", "pydantic", "pydantic-core",
)  # fmt: skip
SOURCES = (
    "antlr4-python3-runtime==4.9.3", "fvcore==0.1.5.post20221221", "iopath==0.1.9", "onedl-mmdetection==3.5.1",
)  # fmt: skip
OPERATORS = "onedl-mmcv==2.3.6"
MOST = 60 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    target = ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", *platforms]
    pinned = [f"{name}=={metadata.version(name)}" for name in WHEELS]  # as they are tested together here
    pip("download", "-q", "--no-deps", *target, "-d", str(folder), *pinned)
    # Pure Python, published as source alone.
    pip("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), *SOURCES)
    pip("download", "-q", "--no-deps", "--no-binary=onedl-mmcv", "-d", str(folder), OPERATORS)
    pack_detectron2(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{len(list(folder.iterdir()))} files, {size / 2**20:.0f} MiB in {folder}")
    if size > MOST:
        sys.exit(f"wheels.py: more than {MOST / 2**20:.0f} MiB")


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True)


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
