"""The outlines of a COCO file, found again for the boxes that msbal keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msbal.data import read_coco
from msbal.data.coco.outlines import Outlines
from msbal.errors import DataError

SIDE = 64
SQUARE = [[8, 8, 24, 8, 24, 24, 8, 24]]
CROWD = {"size": [SIDE, SIDE], "counts": [0, SIDE * SIDE]}


def write(folder: Path, *objects: dict[str, Any]) -> Path:
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(folder / "a.png")
    document = {
        "images": [{"id": 7, "file_name": "a.png", "width": SIDE, "height": SIDE}],
        "categories": [{"id": 3, "name": "thing"}, {"id": 9, "name": "other"}],
        "annotations": [
            {"id": i + 1, "image_id": 7, "category_id": 3, "iscrowd": 0, "area": 1.0, **entry}
            for i, entry in enumerate(objects)
        ],
    }
    path = folder / "train.json"
    path.write_text(json.dumps(document))
    return path


def outlines(path: Path) -> list[Any]:
    data = read_coco(path, path.parent)
    return Outlines(path, data.category_ids).of(data.images[0])


def test_each_box_finds_its_own_outline_by_image_category_and_box(tmp_path: Path) -> None:
    other = [[30, 30, 50, 30, 50, 50]]
    path = write(
        tmp_path,
        {"bbox": [30, 30, 20, 20], "segmentation": other},
        {"bbox": [8, 8, 16, 16], "segmentation": [[1.0, 1, 2, 2, 3, 3]], "category_id": 9},
        {"bbox": [8, 8, 16, 16], "segmentation": SQUARE},
        {"bbox": [40, 40, 90, 90], "segmentation": SQUARE},  # clipped on reading
        {"bbox": [0, 0, 60, 60], "iscrowd": 1, "segmentation": CROWD},
    )
    assert outlines(path) == [other, [[1.0, 1, 2, 2, 3, 3]], SQUARE, SQUARE, None]


def test_an_object_without_one_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, {"bbox": [8, 8, 16, 16], "segmentation": SQUARE}, {"bbox": [30, 30, 20, 20]})
    with pytest.raises(DataError, match=r"\[30.0, 30.0, 50.0, 50.0\] in a.png has no `segmentation`"):
        outlines(path)


def test_a_file_without_any_says_how_to_go_without(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no object has a `segmentation`.*without a mask head"):
        outlines(write(tmp_path, {"bbox": [8, 8, 16, 16]}))


@pytest.mark.parametrize(
    "segmentation",
    [
        "abc", 5, [1, 2, 3], [["a", 1]], [[1, float("inf")]], {"counts": "a"}, {"size": [64, 64]},
        {"size": [64], "counts": [1]}, {"size": [64, 64], "counts": [-1]},
    ],
)  # fmt: skip
def test_what_is_no_outline_is_refused_in_one_line(tmp_path: Path, segmentation: Any) -> None:
    path = write(
        tmp_path,
        {"bbox": [8, 8, 16, 16], "segmentation": SQUARE},
        {"bbox": [30, 30, 20, 20], "segmentation": segmentation},
    )
    data = read_coco(path, path.parent)
    with pytest.raises(
        DataError, match=r"`segmentation` of the object at \[30.0, 30.0, 50.0, 50.0\]"
    ) as error:
        Outlines(path, data.category_ids).check(data.images)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_outlines_are_found_where_ids_are_texts_and_boxes_are_missing(tmp_path: Path, encoding: str) -> None:
    path = write(
        tmp_path,
        {"segmentation": SQUARE, "image_id": "é7", "category_id": "é3"},
        {"bbox": ["30", "30", "20", "20"], "segmentation": SQUARE, "image_id": "é7", "category_id": "9"},
        {"bbox": [1, 1, 5, 5], "ignore": 1, "image_id": "é7", "category_id": "9"},
    )
    document = json.loads(path.read_text())
    document["images"][0]["id"], document["categories"][0]["id"] = "é7", "é3"
    path.write_text(json.dumps(document, ensure_ascii=False), encoding=encoding)
    assert outlines(path) == [SQUARE, SQUARE, None]
