"""The generated data set: made on first use from a seed, without downloads.

A folder in COCO layout: ``train/``, ``val/``, ``annotations/instances_{train,val}.json`` and, written
last, ``generated.json``, which says what it was made from and that it is whole. PNG, because no two
versions of a JPEG encoder need agree.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from msbal.data.coco.read_coco import read_coco
from msbal.data.detection_data import DetectionData
from msbal.data.files import file_names, named
from msbal.data.generated.shapes import CLASSES, SMALLEST, draw_picture
from msbal.errors import DataError

VERSION = 1  # raise where the same seed gives other pictures
SPLITS = ("train", "val")
MANIFEST = "generated.json"
_ABANDONED_AFTER = 3600.0  # seconds without a change


@dataclass(frozen=True)
class Recipe:
    """What a generated data set is made from.

    Attributes:
        seed: not negative. Picture k of a split depends on seed, split, k and size only.
        train, val: how many pictures.
        size: their width and height in pixels.
    """

    seed: int = 0
    train: int = 256
    val: int = 64
    size: int = 160

    def __post_init__(self) -> None:
        for key, least, most in (
            ("seed", 0, 2**63 - 1), ("train", 1, 10**6), ("val", 1, 10**6), ("size", 64, 2048)
        ):  # fmt: skip
            value = getattr(self, key)
            if type(value) is not int or not least <= value <= most:
                raise DataError(f"data.{key}", f"is {value!r}", f"a whole number from {least} to {most}")

    @property
    def folder(self) -> str:
        """The name of the folder; no two recipes share one."""
        counts = f"train{self.train}-val{self.val}"
        return f"shapes-v{VERSION}-seed{self.seed}-{counts}-size{self.size}"


def default_root() -> Path:
    """Where generated data sets are kept: ``$MSBAL_CACHE``, or ``msbal`` in the user's cache folder."""
    named_by_user = os.environ.get("MSBAL_CACHE")
    if named_by_user:
        return Path(named_by_user)
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

    It is made in a folder of another name beside its place and moved there when whole, so that a
    killed process leaves nothing that looks finished, and several processes may do this at once.

    Args:
        root: the folder to put it in; `default_root()` if None.
        seed, train, val, size: see `Recipe`.
        progress: called with pictures done and to do.

    Raises:
        DataError: where a number is out of its range, or nothing can be written there.
    """
    recipe = Recipe(seed, train, val, size)
    root = default_root() if root is None else root
    place = root / recipe.folder
    if is_whole(place, recipe):
        return place
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root, recipe)
        draft = Path(tempfile.mkdtemp(prefix=f".{recipe.folder}.", suffix=".part", dir=root))
        try:
            _fill(draft, recipe, progress)
            draft.chmod(0o755)  # mkdtemp's is for its owner alone
            _move(draft, place, recipe)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        cause = error.strerror or str(error)
        raise DataError(
            named(root),
            f"the generated data set cannot be written: {cause}",
            fix="set data.root, or MSBAL_CACHE in the environment, to a folder that can be written",
        ) from error
    return place


def is_whole(folder: Path, recipe: Recipe) -> bool:
    """Whether `folder` holds all of the data set that `recipe` makes."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    if manifest != _manifest(recipe):
        return False
    counts = {"train": recipe.train, "val": recipe.val}
    return all(
        file_names(folder / split) >= {_file_name(k) for k in range(counts[split])}
        and (folder / "annotations" / f"instances_{split}.json").is_file()
        for split in SPLITS
    )


def read_generated(folder: Path, split: Literal["train", "val"]) -> DetectionData:
    """Read a split of what `generate` made.

    Raises:
        DataError: where it is not there.
    """
    annotations = folder / "annotations" / f"instances_{split}.json"
    return read_coco(annotations, folder / split, CLASSES, f"generated {split}")


def _fill(folder: Path, recipe: Recipe, progress: Callable[[int, int], None] | None) -> None:
    total, done = recipe.train + recipe.val, 0
    (folder / "annotations").mkdir()
    for number, (split, count) in enumerate(zip(SPLITS, (recipe.train, recipe.val), strict=True)):
        (folder / split).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for k in range(count):
            _draw(folder / split, recipe, number, k, images, annotations)
            done += 1
            if progress is not None:
                progress(done, total)
        document = {
            "info": {"description": f"msbal's generated data set, {split}", "version": str(VERSION)},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": label, "name": name} for label, name in enumerate(CLASSES, start=1)],
        }
        path = folder / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(document) + "\n", encoding="utf-8")
    (folder / MANIFEST).write_text(json.dumps(_manifest(recipe), indent=2) + "\n", encoding="utf-8")


def _draw(
    folder: Path,
    recipe: Recipe,
    split: int,
    k: int,
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
) -> None:
    from PIL import Image

    picture = draw_picture((recipe.seed, split, k, recipe.size), recipe.size)
    Image.fromarray(picture.pixels).save(folder / _file_name(k), compress_level=3)
    entry = {"id": k + 1, "file_name": _file_name(k), "width": recipe.size, "height": recipe.size}
    images.append(entry)
    for thing in picture.objects:
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


def _file_name(k: int) -> str:
    return f"{k + 1:06d}.png"


def _manifest(recipe: Recipe) -> dict[str, Any]:
    return {"version": VERSION, **asdict(recipe), "classes": list(CLASSES), "smallest": SMALLEST}


def _move(draft: Path, place: Path, recipe: Recipe) -> None:
    """Put the finished folder in its place; what another process put there meanwhile is as good."""
    for _ in range(3):
        try:
            draft.rename(place)  # fails where `place` is a folder with something in it
            return
        except OSError:
            if is_whole(place, recipe):
                return
            if not place.exists():
                raise
            # Damaged: aside in one step, so that nobody sees it half gone.
            aside = Path(tempfile.mkdtemp(prefix=f".{recipe.folder}.", suffix=".part", dir=place.parent))
            place.rename(aside / "damaged")
            shutil.rmtree(aside, ignore_errors=True)
    raise OSError(None, f"{place} cannot be replaced")


def _sweep(root: Path, recipe: Recipe) -> None:
    """Remove the drafts of processes that were killed."""
    for draft in root.glob(f".{recipe.folder}.*.part"):
        try:
            newest = max(path.stat().st_mtime for path in (draft, *draft.iterdir()))
        except OSError:  # its owner has just finished with it
            continue
        if time.time() - newest > _ABANDONED_AFTER:
            shutil.rmtree(draft, ignore_errors=True)
