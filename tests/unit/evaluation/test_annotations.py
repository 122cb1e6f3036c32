from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detection_scenes import make_scenes
from PIL import Image
from test_coco_metrics import by_pycocotools

from msbal.data import read_coco
from msbal.errors import DataError
from msbal.evaluation import evaluate
from msbal.evaluation.annotations import read_annotations
from msbal.evaluation.coco_metrics import METRICS
from msbal.evaluation.predictions import sift

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
    for name, value in zip(METRICS, reference.stats.tolist(), strict=True):
        assert (-1 if found[name] is None else found[name]) == pytest.approx(value, abs=1e-12)


def raw_metrics(document: dict[str, Any], predictions: list[dict[str, Any]]) -> list[float]:
    """pycocotools' for a file as it is written."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(document)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(predictions)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def metrics_of(path: Path, predictions: list[dict[str, Any]]) -> list[float]:
    data = read_annotations(path)
    detections, _, _ = sift(predictions, data)
    found = evaluate(data, detections)
    return [-1 if found[name] is None else found[name] for name in METRICS]


def changed(**values: Any) -> dict[str, Any]:
    """The ground truth with other values in every third annotation."""
    document = copy.deepcopy(DATA.to_coco())
    for number, annotation in enumerate(document["annotations"]):
        if number % 3 == 0:
            annotation.update({k: v(annotation) if callable(v) else v for k, v in values.items()})
    return document


@pytest.mark.parametrize(
    ("written_so", "meant"),
    [
        (changed(iscrowd="1"), changed(iscrowd=1)),
        (changed(iscrowd=True), changed(iscrowd=1)),
        (changed(iscrowd=None), changed(iscrowd=0)),
        (changed(ignore=1), changed(iscrowd=1)),
        (changed(ignore=0), changed()),
        (changed(area=lambda a: str(a["area"])), changed()),
        (changed(area=0), changed(area=lambda a: a["bbox"][2] * a["bbox"][3])),
        (changed(area=None), changed(area=lambda a: a["bbox"][2] * a["bbox"][3])),
        (changed(bbox=lambda a: [str(v) for v in a["bbox"]]), changed()),
        (changed(id=0), changed()),
        (changed(image_id=lambda a: str(a["image_id"])), changed()),
        (changed(category_id=lambda a: float(a["category_id"])), changed()),
    ],
)
def test_the_metrics_are_pycocotools_of_what_is_meant(
    tmp_path: Path, written_so: dict[str, Any], meant: dict[str, Any]
) -> None:
    reference = raw_metrics(meant, PREDICTIONS)
    found = metrics_of(written(tmp_path, written_so), PREDICTIONS)
    assert found == pytest.approx(reference, abs=1e-12)


def test_ids_that_are_texts_are_found_in_predictions(tmp_path: Path) -> None:
    document, predictions = copy.deepcopy(DATA.to_coco()), copy.deepcopy(PREDICTIONS)
    for image in document["images"]:
        image["id"] = f"shelf-{image['id']}"
    for category in document["categories"]:
        category["id"] = f"c{category['id']}"
    for entry in (*document["annotations"], *predictions):
        entry.update(image_id=f"shelf-{entry['image_id']}", category_id=f"c{entry['category_id']}")
    reference = raw_metrics(document, predictions)  # pycocotools can do with texts
    path = written(tmp_path, document)
    assert metrics_of(path, predictions) == pytest.approx(reference, abs=1e-12)
    _, _, odd = sift([*predictions, {**predictions[0], "image_id": "shelf-0"}], read_annotations(path))
    assert odd.dropped == {"the image is unknown": 1}


def test_both_readers_read_one_file_alike(tmp_path: Path) -> None:
    document = changed(ignore="true", area=0, bbox=lambda a: [str(v) for v in a["bbox"]])
    for image in document["images"]:
        image["id"] = f"i{image['id']}"
        Image.new("RGB", (image["width"], image["height"])).save(tmp_path / image["file_name"])
    for annotation in document["annotations"]:
        annotation["image_id"] = f"i{annotation['image_id']}"
    path = written(tmp_path, document)
    trained, evaluated = read_coco(path, tmp_path), read_annotations(path)
    assert trained.to_coco() == evaluated.to_coco() and trained.notes == evaluated.notes
    assert len(trained.notes) == 4


def test_of_two_categories_of_one_name_the_one_without_boxes_is_told_apart(tmp_path: Path) -> None:
    document = DATA.to_coco()
    document["categories"].append({"id": 99, "name": DATA.classes[0]})
    assert read_annotations(written(tmp_path, document)).classes == (
        *DATA.classes,
        f"{DATA.classes[0]} (99)",
    )


def test_fractions_are_asked_about(tmp_path: Path) -> None:
    document = DATA.to_coco()
    for annotation in document["annotations"]:
        annotation["bbox"] = [value / 400 for value in annotation["bbox"]]
    (note,) = read_annotations(written(tmp_path, document)).notes
    assert note == "no box reaches beyond the first pixel of its image: are they fractions of the image?"


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


def test_images_named_by_another_machine_are_found_where_a_folder_is_given(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a b.png").write_bytes(b"")
    document = {
        "images": [{"id": 1, "file_name": "C:\\ana\\a%20b.png"}, {"id": 2, "file_name": "gone.png"}],
        "annotations": [],
        "categories": [{"id": 1, "name": "kettle"}],
    }
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    read = read_annotations(file, tmp_path / "pictures")
    assert [image.path.name for image in read.images] == ["a b.png", "gone.png"]
