"""The generated data set: a folder in COCO layout, made on first use from a seed, without downloads.

It holds ``train/``, ``val/``, ``annotations/instances_{train,val}.json`` and ``generated.json``, which says what it
was made from. PNG, because no two versions of a JPEG encoder need agree.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from msbal.data.coco.read_coco import read_coco
from msbal.data.detection_data import DetectionData
from msbal.data.files import named
from msbal.data.folders import file_names
from msbal.data.generated.shapes import CLASSES, draw_image
from msbal.errors import DataError

VERSION = 3  # raise where the same seed gives other images
MANIFEST = "generated.json"
_ABANDONED_AFTER = 3600.0  # seconds without a change
_LIMITS = {"seed": (0, 2**63 - 1), "train": (1, 10**6), "val": (1, 10**6), "size": (64, 2048)}


def default_root() -> Path:
    """Where generated data sets are kept: ``$MSBAL_CACHE``, or ``msbal`` in the user's cache folder."""
    chosen = os.environ.get("MSBAL_CACHE")
    if chosen:
        return Path(chosen)
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "msbal"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "msbal"


def generate(
    root: Path | None = None,
    seed: int = 0,
    train: int = 256,
    val: int = 64,
    size: int = 160,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make the data set, unless it is there, and return its folder.

    It is made in a folder of another name beside its place and moved there when whole, so that a killed process
    leaves nothing that looks finished, and several processes may do this at once.

    Args:
        root: the folder to put it in; `default_root()` if None.
        seed: not negative. Image k of a split depends on seed, split, k and size only.
        train, val: how many images.
        size: their width and height in pixels.
        progress: called with how many images are drawn and how many there will be.

    Raises:
        DataError: where a number is out of its range, or nothing can be written there.
    """
    recipe = {"seed": seed, "train": train, "val": val, "size": size}
    for key, value in recipe.items():
        low, high = _LIMITS[key]
        if type(value) is not int or not low <= value <= high:
            raise DataError(f"data.{key}", f"is {value!r}", f"a whole number from {low} to {high}")
    root = default_root() if root is None else root
    place = root / f"shapes-v{VERSION}-seed{seed}-train{train}-val{val}-size{size}"
    if _is_whole(place, recipe):
        return place
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(root, place.name)
        draft = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".part", dir=root))
        try:
            _fill(draft, recipe, progress)
            draft.chmod(0o755)  # mkdtemp's is for its owner alone
            _move(draft, place, recipe)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise DataError(
            named(root),
            f"the generated data set cannot be written: {error.strerror or error}",
            fix="set data.root, or MSBAL_CACHE in the environment, to a folder that can be written",
        ) from error
    return place


def read_generated(folder: Path, split: Literal["train", "val"]) -> DetectionData:
    """Read a split of what `generate` made.

    Raises:
        DataError: where it is not there.
    """
    return read_coco(_annotations(folder, split), folder / split, CLASSES, f"generated {split}")


def _annotations(folder: Path, split: str) -> Path:
    return folder / "annotations" / f"instances_{split}.json"


def _file_name(k: int) -> str:
    return f"{k + 1:06d}.png"


def _manifest(recipe: dict[str, int]) -> dict[str, Any]:
    return {"version": VERSION, **recipe, "classes": list(CLASSES)}


def _is_whole(folder: Path, recipe: dict[str, int]) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return manifest == _manifest(recipe) and all(
        _annotations(folder, split).is_file()
        and file_names(folder / split) >= {_file_name(k) for k in range(recipe[split])}
        for split in ("train", "val")
    )


def _fill(folder: Path, recipe: dict[str, int], progress: Callable[[int, int], None] | None) -> None:
    size, total, done = recipe["size"], recipe["train"] + recipe["val"], 0
    (folder / "annotations").mkdir()
    for number, split in enumerate(("train", "val")):
        (folder / split).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for k in range(recipe[split]):
            pixels, objects = draw_image((recipe["seed"], number, k, size), size)
            Image.fromarray(pixels).save(folder / split / _file_name(k), compress_level=3)
            done += 1
            if progress is not None:
                progress(done, total)
            images.append({"id": k + 1, "file_name": _file_name(k), "width": size, "height": size})
            for thing in objects:
                x1, y1, x2, y2 = thing.box
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": k + 1,
                        "category_id": thing.label + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": thing.area,
                        "iscrowd": 0,
                    }
                )
        document = {
            "info": {"description": f"msbal's generated data set, {split}", "version": str(VERSION)},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": label, "name": name} for label, name in enumerate(CLASSES, start=1)],
        }
        _annotations(folder, split).write_text(json.dumps(document) + "\n", encoding="utf-8")
    (folder / MANIFEST).write_text(json.dumps(_manifest(recipe), indent=2) + "\n", encoding="utf-8")


def _move(draft: Path, place: Path, recipe: dict[str, int]) -> None:
    """Put the finished folder in its place, unless another process has put it there meanwhile."""
    try:
        draft.rename(place)  # fails where `place` is a folder with something in it
    except OSError:
        if _is_whole(place, recipe):
            return
        if not place.exists():
            raise
        place.rename(
            draft / "damaged"
        )  # in one step, so that nobody sees it half gone; removed with the draft
        shutil.rmtree(draft / "damaged")
        draft.rename(place)


def _remove_abandoned(root: Path, name: str) -> None:
    """Remove the drafts of processes that were killed."""
    for draft in root.glob(f".{name}.*.part"):
        try:
            newest = max(path.stat().st_mtime for path in (draft, *draft.iterdir()))
        except OSError:  # its owner has just finished with it
            continue
        if time.time() - newest > _ABANDONED_AFTER:
            shutil.rmtree(draft, ignore_errors=True)
