from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detection_scenes import make_scenes
from test_coco import by_pycocotools

from msbal.errors import DataError
from msbal.evaluation import evaluate
from msbal.evaluation.annotations import read_annotations
from msbal.evaluation.coco import FIGURES

DATA, PREDICTIONS = make_scenes(31, images=8)


def written(folder: Path, document: Any) -> Path:
    path = folder / "truth.json"
    path.write_text(json.dumps(document))
    return path


def test_reads_back_what_a_split_writes(tmp_path: Path) -> None:
    read = read_annotations(written(tmp_path, DATA.to_coco()), tmp_path / "pictures")
    assert (read.classes, read.category_ids) == (DATA.classes, DATA.category_ids)
    for one, other in zip(read.images, DATA.images, strict=True):
        assert (one.id, one.width, one.height) == (other.id, other.width, other.height)
        for key in ("boxes", "labels", "area", "crowd", "difficult"):
            assert np.array_equal(getattr(one, key), getattr(other, key))
            assert getattr(one, key).dtype == getattr(other, key).dtype
        assert one.path.parent == tmp_path / "pictures"


def test_boxes_over_the_edge_stay_as_they_are_for_pycocotools_takes_them_so(tmp_path: Path) -> None:
    document = DATA.to_coco()
    for annotation in document["annotations"][::3]:
        annotation["bbox"][0] -= 200
        annotation["bbox"][2] += 200
    read = read_annotations(written(tmp_path, document))
    reference, _ = by_pycocotools(read, PREDICTIONS)
    assert min(float(image.boxes[:, 0].min()) for image in read.images if len(image.boxes)) < 0
    found = evaluate(read, PREDICTIONS)
    for name, value in zip(FIGURES, reference.stats.tolist(), strict=True):
        assert (-1 if found[name] is None else found[name]) == pytest.approx(value, abs=1e-12)


def test_sizes_and_areas_may_be_missing_and_names_may_repeat(tmp_path: Path) -> None:
    document = DATA.to_coco()
    for image in document["images"]:
        del image["width"], image["height"]
    for annotation in document["annotations"]:
        del annotation["area"], annotation["difficult"], annotation["iscrowd"]
    document["categories"][1]["name"] = document["categories"][0]["name"]
    read = read_annotations(written(tmp_path, document))
    assert len(set(read.classes)) == len(DATA.classes)
    boxes = np.concatenate([image.boxes for image in read.images])
    areas = np.concatenate([image.area for image in read.images])
    assert np.array_equal(areas, (boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    # Images of unknown size hold no box outside of them.
    assert evaluate(read, PREDICTIONS)["AP"] is not None


def broken(change: Any) -> Any:
    document = copy.deepcopy(DATA.to_coco())
    change(document)
    return document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "holds a list"),
        ({}, "has no `images`"),
        (broken(lambda d: d.update(images=3)), "`images` is a number"),
        (broken(lambda d: d["images"].append(3)), "images[8] is a number"),
        (broken(lambda d: d.update(images=[])), "lists zero images"),
        (broken(lambda d: d.update(categories=[])), "lists zero categories"),
        (broken(lambda d: d["images"].append(d["images"][0])), "2 images have the id 11"),
        (broken(lambda d: d["images"][0].update(id=[3])), "images[0] (id [3]): `id` is [3]"),
        (
            broken(lambda d: d["annotations"][0].update(image_id=-5)),
            "annotations[0] (id 1) belongs to image -5",
        ),
        (
            broken(lambda d: d["annotations"][0].update(category_id=-5)),
            "annotations[0] (id 1) has category -5",
        ),
        (
            broken(lambda d: d["annotations"][0].update(bbox=[1, 2])),
            "annotations[0] (id 1): `bbox` is [1, 2]",
        ),
        (
            broken(lambda d: d["annotations"][0].update(bbox=[1, 2, 3, float("nan")])),
            "annotations[0]: `bbox`",
        ),
        (broken(lambda d: d["annotations"][0].update(area="x")), "annotations[0] (id 1): `area` is 'x'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, document: Any, message: str) -> None:
    path = written(tmp_path, document)
    with pytest.raises(DataError) as error:
        read_annotations(path)
    assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)
