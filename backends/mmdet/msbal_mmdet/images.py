"""Images that mmcv cannot read, or that have another size than is annotated, named as in the other backends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmcv.transforms import LoadImageFromFile

from msbal.data import read_pixels
from msbal.errors import DataError


@contextmanager
def naming_images() -> Iterator[None]:
    """Let mmcv's transform that loads an image fail as the other backends do.

    The class is changed, and so what loads in processes that are forked meanwhile, and what hooks make anew of a
    config's transforms in the middle of a run.

    Raises:
        DataError: in place of whatever mmcv raises, and where the image has another size than the annotations say.
    """
    own = LoadImageFromFile.transform

    def transform(self: LoadImageFromFile, results: dict[str, Any]) -> dict[str, Any] | None:
        path, size = Path(results["img_path"]), (results.get("width", 0), results.get("height", 0))
        try:
            loaded: dict[str, Any] | None = own(self, results)
            if loaded is not None and all(size):
                _require_size(loaded, *size)
        except DataError:
            raise
        except Exception as error:  # decoders raise anything on damaged files
            read_pixels(path, *size)  # raises what all backends say, where the file is to blame
            reason = (str(error).strip().splitlines() or [""])[-1][:200]
            raise DataError(
                str(path),
                f"cannot be read by mmcv: {reason}",
                fix="save it anew as a JPEG or PNG, without an EXIF orientation",
            ) from error
        return loaded

    LoadImageFromFile.transform = transform
    try:
        yield
    finally:
        LoadImageFromFile.transform = own


def _require_size(loaded: dict[str, Any], width: int, height: int) -> None:
    found = loaded["img"].shape[:2]
    if found != (height, width):
        raise ValueError(
            f"it finds {found[1]} x {found[0]} pixels, and the annotations say {width} x {height}"
        )
