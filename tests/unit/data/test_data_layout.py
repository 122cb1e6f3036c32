from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from data_makers import coco_document, save_image, voc_xml, write_coco, write_voc
from pydantic import TypeAdapter

from msbal.data import load
from msbal.data.layout import recognise
from msbal.errors import DataError
from msbal.spec.data import DataSpec

XML = voc_xml(("dog", (1, 1, 9, 9)))


def sizes(section: dict[str, Any]) -> tuple[int, int | None]:
    """Load what was recognised, as a spec would."""
    spec = TypeAdapter(DataSpec).validate_python(section)
    val = load(spec, "val")
    return len(load(spec, "train")), None if val is None else len(val)


def split(annotations: str, images: str) -> dict[str, str]:
    return {"annotations": annotations, "images": images}


def test_cocos_own_layout(tmp_path: Path) -> None:
    for year in ("2014", "2017"):
        for name, count in (("train", 3), ("val", 2)):
            document = coco_document([f"{year}{name}{n}.png" for n in range(count)])
            write_coco(tmp_path, document, f"annotations/instances_{name}{year}.json", f"{name}{year}")
            captions = {**document, "annotations": [{"id": 1, "image_id": 1, "caption": "x"}]}
            (tmp_path / f"annotations/captions_{name}{year}.json").write_text(json.dumps(captions))
    found = recognise(tmp_path)
    assert found.data == {
        "format": "coco",
        "root": str(tmp_path),
        "train": split("annotations/instances_train2017.json", "train2017"),
        "val": split("annotations/instances_val2017.json", "val2017"),
    }
    assert "instances_train2017.json with images in train2017/" in found.summary
    assert sizes(found.data) == (3, 2)


def test_one_folder_of_images_for_all_splits(tmp_path: Path) -> None:
    for name, names in (("train", ["a.png", "b.png"]), ("test", ["c.png"])):
        write_coco(tmp_path, coco_document(names), f"{name}.json", "pictures/all")
    found = recognise(tmp_path)
    assert found.data["train"] == split("train.json", "pictures/all")
    assert found.data["val"] == split("test.json", "pictures/all")
    assert sizes(found.data) == (2, 1)


def test_the_same_names_in_every_split_are_told_apart_by_the_folder(tmp_path: Path) -> None:
    for name in ("val", "train"):
        write_coco(tmp_path, coco_document(), f"annotations/{name}.json", f"images/{name}")
    data = recognise(tmp_path).data
    assert (data["train"]["images"], data["val"]["images"]) == ("images/train", "images/val")


def test_roboflow(tmp_path: Path) -> None:
    for name, count in (("train", 3), ("valid", 2), ("test", 1)):
        document = coco_document([f"{name}{n}.png" for n in range(count)])
        above = {"id": 0, "name": "pets", "supercategory": "none"}
        document["categories"] = [above] + [{**c, "supercategory": "pets"} for c in document["categories"]]
        write_coco(tmp_path, document, f"{name}/_annotations.coco.json", name)
    found = recognise(tmp_path)
    assert found.data["train"] == split("train/_annotations.coco.json", "train")
    assert found.data["val"] == split("valid/_annotations.coco.json", "valid")
    assert found.data["classes"] == ["cat", "dog"]
    assert sizes(found.data) == (3, 2)


def test_a_single_file_is_split(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(10)]
    write_coco(tmp_path, coco_document(names), "labels.json", "images")
    found = recognise(tmp_path)
    assert found.data["train"] == split("labels.json", "images")
    assert "val" not in found.data and found.data["holdout"] == 0.2
    assert "held out" in found.summary
    assert sizes(found.data) == (8, 2)


def test_images_beside_the_file(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_document(), "annotations.json", ".")
    assert recognise(tmp_path).data["train"] == split("annotations.json", ".")


def test_files_that_are_not_annotations_are_passed_over(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_document(), "annotations/instances_train.json", "train")
    (tmp_path / "package.json").write_text('{"name": "images annotations categories"}')
    (tmp_path / "empty_train.json").write_text("")
    (tmp_path / "folder_train.json").mkdir()
    (tmp_path / "broken_train.json").symlink_to(tmp_path / "nowhere")
    assert recognise(tmp_path).data["train"]["annotations"] == "annotations/instances_train.json"


def test_it_is_unclear_which_file_is_which(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_document(), "first.json", "images")
    write_coco(tmp_path, coco_document(), "second.json", "images")
    with pytest.raises(DataError, match=r"holds 2 annotation files, none .*: first.json, second.json"):
        recognise(tmp_path)


def test_images_that_are_nowhere(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_document(), "train.json", "images")
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(DataError, match=r"no folder in it holds a.png, .* train.json lists"):
        recognise(tmp_path)


def test_voc(tmp_path: Path) -> None:
    kit = tmp_path / "VOCdevkit"
    files = dict.fromkeys(("a", "b", "c"), XML)
    write_voc(
        kit / "VOC2007",
        files,
        {"train": "a", "val": "b", "trainval": "a\nb", "test": "c", "dog_train": "a 1\nb -1"},
    )
    # The annotations of 2012's test set are not public.
    write_voc(kit / "VOC2012", {"d": XML}, {"trainval": "d", "test": "hidden"})
    for root, prefix in ((kit, ""), (tmp_path, "VOCdevkit/")):
        data = recognise(root).data
        assert data == {
            "format": "voc",
            "root": str(root),
            "train": {"sets": [f"{prefix}VOC2007/trainval", f"{prefix}VOC2012/trainval"]},
            "val": {"sets": [f"{prefix}VOC2007/test"]},
        }
        assert sizes(data) == (3, 1)
    data = recognise(kit / "VOC2007").data
    assert (data["train"], data["val"]) == ({"sets": ["trainval"]}, {"sets": ["test"]})
    assert sizes(data) == (2, 1)


@pytest.mark.parametrize(
    ("sets", "train", "val"),
    [
        ({"train": "a\nb", "val": "c"}, ["train"], ["val"]),
        ({"train": "a\nb", "test": "c"}, ["train"], ["test"]),
        ({"trainval": "a\nb\nc"}, ["trainval"], None),
        ({"default": "a\nb\nc"}, ["*"], None),
        ({}, ["*"], None),
    ],
)
def test_voc_sets(tmp_path: Path, sets: dict[str, str], train: list[str], val: list[str] | None) -> None:
    write_voc(tmp_path, dict.fromkeys(("a", "b", "c"), XML), sets)
    data = recognise(tmp_path).data
    assert data["train"] == {"sets": train}
    assert data.get("val") == (None if val is None else {"sets": val})
    assert ("holdout" in data) == (val is None)
    assert sizes(data) == (2, 1)


def test_xml_beside_the_images(tmp_path: Path) -> None:
    for name in ("train", "valid"):
        save_image(tmp_path / name / "a.jpg")
        (tmp_path / name / "a.xml").write_text(XML)
    data = recognise(tmp_path).data
    assert (data["train"], data["val"]) == ({"sets": ["train/*"]}, {"sets": ["valid/*"]})
    assert sizes(data) == (1, 1)


def test_both_layouts_at_once(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": XML, "b": XML})
    write_coco(tmp_path, coco_document(["a.jpg", "b.jpg"]), "annotations.json", "JPEGImages")
    found = recognise(tmp_path)
    assert found.data["format"] == "coco" and "Pascal VOC" in found.notes[0]
    assert recognise(tmp_path, "voc").data["format"] == "voc"


def test_nothing_known(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no data set that msbal knows \(it is empty\); expected COCO .* VOC"
    ):
        recognise(tmp_path)
    (tmp_path / "labels").mkdir()
    (tmp_path / "data.yaml").write_text("")
    with pytest.raises(DataError, match=r"it holds data.yaml, labels/.* looks like YOLO"):
        recognise(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        recognise(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is not a folder"):
        recognise(tmp_path / "data.yaml")


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    with pytest.raises(DataError, match="no data set"):
        recognise(tmp_path)
    write_voc(tmp_path / "VOC2007", {"a": XML, "b": XML})
    assert recognise(tmp_path).data["train"] == {"sets": ["VOC2007/*"]}
