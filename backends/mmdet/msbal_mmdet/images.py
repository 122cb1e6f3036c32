"""Images that mmcv cannot read, or that have another size than is annotated, named as in the other backends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmcv.transforms import LoadImageFromFile

from msbal.errors import DataError


@contextmanager
def naming_images() -> Iterator[None]:
    """Let mmcv's transform that loads an image fail as the other backends do.

    It does so in processes that are forked meanwhile too: what a data set or a hook makes of the config's transforms,
    and when, is mmengine's affair, so that the class is changed and not an instance.

    Raises:
        DataError: in place of whatever mmcv raises, and where the image has another size than the annotations say.
    """
    own = LoadImageFromFile.transform

    def transform(self: LoadImageFromFile, results: dict[str, Any]) -> dict[str, Any] | None:
        path = str(results["img_path"])
        try:
            loaded: dict[str, Any] | None = own(self, results)
        except DataError:
            raise
        except Exception as error:  # decoders raise anything on damaged files
            raise DataError(path, f"cannot be read: {_reason(error)}", "an image") from error
        if loaded is not None and "width" in loaded:
            _require_size(path, loaded)
        return loaded

    LoadImageFromFile.transform = transform
    try:
        yield
    finally:
        LoadImageFromFile.transform = own


def _reason(error: Exception) -> str:
    if isinstance(error, AssertionError):  # its text is the path again
        return "mmcv finds no image in it"
    return getattr(error, "strerror", None) or (str(error).strip().splitlines() or [""])[-1][:200]


def _require_size(path: str, loaded: dict[str, Any]) -> None:
    height, width = loaded["img"].shape[:2]
    if (width, height) != (loaded["width"], loaded["height"]):
        raise DataError(
            path,
            f"is {width} x {height} pixels",
            f"{loaded['width']} x {loaded['height']}, as the annotations say",
        )
