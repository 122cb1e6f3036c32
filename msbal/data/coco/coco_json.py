"""JSON from anywhere, read so that no content can do worse than a DataError."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from msbal.data.files import named, read_bytes
from msbal.errors import DataError


class OutlineBox(list[Any]):
    """``[x, y, width, height]`` around the polygons of an annotation that has no ``bbox``."""


def read_json(path: Path, what: str, *, masks: bool = False) -> Any:
    """Return the content of a JSON file, without the masks and keypoints in it.

    Masks are most of a COCO file. They are dropped object by object while parsing, so that train2017 needs little more
    memory than its text. Where an annotation has polygons and no ``bbox``, it gets an `OutlineBox`.

    Args:
        path: the file.
        what: what it should be, for the message.
        masks: keep them.

    Raises:
        DataError: naming line and column where it is not JSON.
    """
    raw = read_bytes(path, what)
    where = named(path)
    if not raw.strip():
        raise DataError(where, "is empty", what)
    try:
        text = raw.decode(json.detect_encoding(raw))
        del raw
        return json.loads(text, object_hook=_with_box if masks else _without_masks)
    except json.JSONDecodeError as error:
        found = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise DataError(where, found, what) from error
    except UnicodeDecodeError as error:
        raise DataError(where, f"is not text: {error.reason} at byte {error.start}", what) from error
    except RecursionError as error:
        raise DataError(where, "is nested too deeply", what) from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise DataError(where, f"holds a value that cannot be read: {error}", what) from error


def _without_masks(value: dict[str, Any]) -> dict[str, Any]:
    value.pop("keypoints", None)
    outline = value.pop("segmentation", None)
    if outline and not value.get("bbox"):
        _put_box(value, outline)
    return value


def _with_box(value: dict[str, Any]) -> dict[str, Any]:
    outline = value.get("segmentation")
    if outline and not value.get("bbox"):
        _put_box(value, outline)
    return value


def _put_box(value: dict[str, Any], outline: Any) -> None:
    with suppress(TypeError, ValueError, LookupError):  # not a list of polygons
        polygons = outline if type(outline[0]) is list else [outline]
        x = [value for polygon in polygons for value in polygon[::2]]
        y = [value for polygon in polygons for value in polygon[1::2]]
        value["bbox"] = OutlineBox([min(x), min(y), max(x) - min(x), max(y) - min(y)])
