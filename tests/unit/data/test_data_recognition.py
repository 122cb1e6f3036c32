from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from data_makers import coco_document, save_image, voc_xml, write_coco, write_voc
from pydantic import TypeAdapter

from msbal.data import load, recognise
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
    assert found.notes == (
        "`pets` is no class: it is the name of the project or of the background",
        "there, and not used: test/_annotations.coco.json",
    )


def test_labelmes_background(tmp_path: Path) -> None:
    document = coco_document()
    document["categories"].insert(0, {"id": 0, "name": "_background_", "supercategory": None})
    write_coco(tmp_path, document, "annotations.json", "JPEGImages")
    found = recognise(tmp_path)
    assert found.data["classes"] == ["cat", "dog"] and "`_background_` is no class" in found.notes[0]
    document["annotations"][0]["category_id"] = 0  # somebody's own
    write_coco(tmp_path, document, "annotations.json", "JPEGImages")
    assert "classes" not in recognise(tmp_path).data


def test_coco_in_utf_16_and_lvis_addresses(tmp_path: Path) -> None:
    path, _ = write_coco(tmp_path, coco_document(["a.png", "b.png"]), "lvis_train.json", "train2017")
    path.write_bytes(json.dumps(coco_document(["a.png", "b.png"])).encode("utf-16"))
    assert recognise(tmp_path).data["train"] == split("lvis_train.json", "train2017")
    text = json.dumps(
        coco_document(["http://example.org/train2017/a.png", "http://example.org/train2017/b.png"])
    )
    path.write_text(text.replace("file_name", "coco_url"))
    assert recognise(tmp_path).data["train"] == split("lvis_train.json", ".")


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


def test_a_validation_file_that_is_cut_off_is_no_reason_to_hold_out(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_document(), "annotations/train.json", "images")
    (tmp_path / "annotations/test.json").write_text('{"images": []}')
    found = recognise(tmp_path)
    assert "holdout" in found.data and found.notes == ("there, and not used: annotations/test.json",)
    (tmp_path / "annotations/val.json").write_text('{"images": [{"id": 1')
    with pytest.raises(DataError, match=r"val.json: is not JSON"):
        recognise(tmp_path)


def test_images_of_the_same_names_elsewhere_are_said(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_document(), "all.json", "images")
    for name in ("a.png", "b.png"):
        save_image(tmp_path / "val" / name)
    assert recognise(tmp_path).notes == ()
    shutil.copytree(tmp_path / "val", tmp_path / "images_small")
    assert recognise(tmp_path).notes == ("images of the same names are in images_small/, too, and not used",)


def test_coco_without_categories(tmp_path: Path) -> None:
    document = coco_document()
    del document["categories"]
    write_coco(tmp_path, document, "annotations.json")
    with pytest.raises(DataError, match=r"annotations.json: has no `categories`"):
        sizes(recognise(tmp_path).data)


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
    save_image(tmp_path / "other/a.png")
    (tmp_path / "train.json").write_text(json.dumps(coco_document(["some/a.png", "some/b.png"])))
    with pytest.raises(DataError, match=r"no folder in it holds some/a.png, .*; a.png lies in other"):
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
        ({"default": "a\nb\nc"}, ["default"], None),
        ({"Train": "JPEGImages/a.jpg\nb.jpg", "Validation": "c"}, ["Train"], ["Validation"]),
        ({"default": "a\nb\nc", "my_training2": "a\nb", "my_valid2": "c"}, ["my_training2"], ["my_valid2"]),
        ({"train": "a\nb", "val": "c", "cat_train": "a 1\nb 1", "cat_val": "c 1"}, ["train"], ["val"]),
        ({"a_train": "a 1\nb -1", "b_train": "a -1\nb 1", "a_val": "c -1"}, ["*_train"], ["*_val"]),
        ({"first": "a\nb\nc", "second": "a"}, ["*"], None),
        ({}, ["*"], None),
    ],
)
def test_voc_sets(tmp_path: Path, sets: dict[str, str], train: list[str], val: list[str] | None) -> None:
    write_voc(tmp_path, dict.fromkeys(("a", "b", "c"), XML), sets)
    data = recognise(tmp_path).data
    assert data["train"] == {"sets": train}
    assert data.get("val") == (None if val is None else {"sets": val})
    assert ("holdout" in data) == (val is None)
    assert all("*" not in note for note in recognise(tmp_path).notes)
    assert sizes(data) == (2, 1)


@pytest.mark.parametrize("place", ["splits", "ImageSets/Segmentation"])
def test_voc_sets_in_other_folders(tmp_path: Path, place: str) -> None:
    write_voc(tmp_path, dict.fromkeys(("a", "b", "c"), XML))
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "train.txt").write_text("a\nb\n")
    (tmp_path / place / "val.txt").write_text("c\n", encoding="utf-16")
    data = recognise(tmp_path).data
    assert (data["train"], data["val"]) == ({"sets": ["train"]}, {"sets": ["val"]})
    assert sizes(data) == (2, 1)


def test_a_list_with_a_mistake_is_still_the_split(tmp_path: Path) -> None:
    write_voc(tmp_path, dict.fromkeys(("a", "b", "c"), XML), {"train": "a\nb\na", "val": "c"})
    with pytest.raises(DataError, match=r"train.txt: lists `a` more than once"):
        sizes(recognise(tmp_path).data)


def test_other_names_of_splits(tmp_path: Path) -> None:
    sets = {"trainset": "a\nb", "testset": "c"}
    write_voc(tmp_path / "voc", dict.fromkeys(("a", "b", "c"), XML), sets)
    assert sizes(recognise(tmp_path / "voc").data) == (2, 1)
    for name in ("shop_train", "shop_eval"):
        write_coco(tmp_path / "coco", coco_document(), f"{name}.json")
    assert recognise(tmp_path / "coco").data["val"]["annotations"] == "shop_eval.json"


def test_a_data_yaml_that_cannot_be_read(tmp_path: Path) -> None:
    save_image(tmp_path / "images/a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.1 0.1")
    (tmp_path / "data.yaml").write_text("train: images\n\tnames: [cat]\n")
    with pytest.raises(DataError, match=r"data.yaml: is not YAML"):
        recognise(tmp_path)


def test_xml_beside_the_images(tmp_path: Path) -> None:
    for name in ("train", "valid"):
        save_image(tmp_path / name / "a.jpg")
        (tmp_path / name / "a.xml").write_text(XML)
    data = recognise(tmp_path).data
    assert (data["train"], data["val"]) == ({"sets": ["train/*"]}, {"sets": ["valid/*"]})
    assert sizes(data) == (1, 1)


def test_voc_splits_by_folder_of_images(tmp_path: Path) -> None:
    write_voc(tmp_path, dict.fromkeys(("a", "b", "c"), XML))
    for name, split in (("a", "train"), ("b", "train"), ("c", "val")):
        (tmp_path / "JPEGImages" / split).mkdir(exist_ok=True)
        (tmp_path / "JPEGImages" / f"{name}.jpg").rename(tmp_path / "JPEGImages" / split / f"{name}.jpg")
    data = recognise(tmp_path).data
    assert (data["train"], data["val"]) == ({"sets": ["JPEGImages/train/*"]}, {"sets": ["JPEGImages/val/*"]})
    assert sizes(data) == (2, 1)


def test_voc_sets_of_names_with_folders(tmp_path: Path) -> None:
    for name in ("hall/a", "hall/b", "garden/a"):
        save_image(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "Annotations" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "Annotations" / f"{name}.xml").write_text(XML)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/Train.txt").write_text("hall/a\nhall/b\n")
    (tmp_path / "ImageSets/Main/Validation.txt").write_text("garden/a\n")
    data = recognise(tmp_path).data
    assert (data["train"], data["val"]) == ({"sets": ["Train"]}, {"sets": ["Validation"]})
    assert sizes(data) == (2, 1)


def test_pets(tmp_path: Path) -> None:
    (tmp_path / "annotations" / "xmls").mkdir(parents=True)
    for stem in ("cat_1", "cat_2", "dog_1"):
        save_image(tmp_path / "images" / f"{stem}.jpg")
        save_image(tmp_path / "annotations/trimaps" / f"{stem}.png")
        if stem != "dog_1":
            (tmp_path / "annotations/xmls" / f"{stem}.xml").write_text(XML)
    (tmp_path / "annotations/trainval.txt").write_text(
        "#Image CLASS-ID SPECIES BREED ID\ncat_1 1 1 1\ncat_2 1 1 1\n"[33:]
    )
    (tmp_path / "annotations/test.txt").write_text("dog_1 1 1 1\n")
    found = recognise(tmp_path)
    assert found.data["train"] == {"sets": ["annotations/trainval"]} and "val" not in found.data
    assert found.notes == ("there, and not used: annotations/test",)
    spec: DataSpec = TypeAdapter(DataSpec).validate_python(found.data)
    assert {image.path.parent.name for image in load(spec, "train").images} == {"images"}


def test_voc_without_images(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": XML})
    shutil.rmtree(tmp_path / "JPEGImages")
    with pytest.raises(
        DataError, match=r"has Pascal VOC annotations in Annotations, and none of their images"
    ):
        recognise(tmp_path)


def test_lists_that_are_not_used_are_named(tmp_path: Path) -> None:
    sets = {"train": "a\nb", "val": "c", "test": "hidden", "dog_train": "a 1\nb -1"}
    write_voc(tmp_path, dict.fromkeys(("a", "b", "c"), XML), sets)
    assert recognise(tmp_path).notes == ("there, and not used: dog_train, test",)


@pytest.mark.parametrize("annotations", ["annotations/{}", "{}/xml", "{}"])
def test_voc_splits_by_folder(tmp_path: Path, annotations: str) -> None:
    for name, count in (("train", 2), ("valid", 1), ("test", 1)):
        for n in range(count):
            save_image(tmp_path / (f"images/{name}" if "annotations" in annotations else name) / f"{n}.jpg")
            path = tmp_path / annotations.format(name) / f"{n}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(XML)
    found = recognise(tmp_path)
    places = [
        f"annotations/{name}" if "annotations" in annotations else name for name in ("train", "valid", "test")
    ]
    assert (found.data["train"], found.data["val"]) == (
        {"sets": [f"{places[0]}/*"]},
        {"sets": [f"{places[1]}/*"]},
    )
    assert found.notes == (f"there, and not used: {places[2]}/*",)
    assert sizes(found.data) == (2, 1)


@pytest.mark.parametrize(
    ("file", "content", "what", "remedy"),
    [
        ("annotations.xml", '<?xml version="1.0"?><annotations><image id="0"/></annotations>', "CVAT's own XML",
         "COCO 1.0 or Pascal VOC 1.1"),
        ("p00.json", '{"version": "5.0", "shapes": [], "imagePath": "p00.jpg"}', "labelme's own JSON", "labelme2coco"),
        ("via.json", '{"_via_settings": {}, "_via_img_metadata": {}}', "VIA's own JSON", "export as COCO"),
        ("project-1.json", '[{"data": {}, "annotations": [{"completed_by": 1, "result": []}]}]', "Label Studio's",
         "export as COCO with images"),
        ("min.json", '[{"image": "a.jpg", "label": [{"rectanglelabels": ["cat"]}]}]', "Label Studio's", "COCO"),
        ("_annotations.createml.json", '[{"image": "a.jpg", "annotations": [{"label": "x", "coordinates": {}}]}]',
         "CreateML's", "COCO"),
        ("train.tfrecord", "x", "TFRecord", "COCO"),
        ("_annotations.csv", "filename,width,height,class,xmin,ymin,xmax,ymax", "a table of boxes", "COCO"),
    ],
)  # fmt: skip
def test_formats_known_by_sight(tmp_path: Path, file: str, content: str, what: str, remedy: str) -> None:
    (tmp_path / file).write_text(content)
    save_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=rf"{what}.*, {file}; expected COCO .*; .*{remedy}"):
        recognise(tmp_path)


def test_both_layouts_at_once(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": XML, "b": XML})
    write_coco(tmp_path, coco_document(["a.jpg", "b.jpg"]), "annotations.json", "JPEGImages")
    found = recognise(tmp_path)
    assert found.data["format"] == "coco" and "Pascal VOC" in found.notes[0]
    (tmp_path / "annotations.json").write_text(json.dumps(coco_document(["gone.jpg"])))
    found = recognise(tmp_path)
    assert found.data["format"] == "voc" and "no folder in it holds gone.jpg" in found.notes[0]


def test_nothing_known(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no data set that msbal knows \(it is empty\); expected COCO .* VOC"
    ):
        recognise(tmp_path)
    (tmp_path / "labels").mkdir()
    (tmp_path / "notes.yaml").write_text("")
    with pytest.raises(DataError, match=r"it holds labels/, notes.yaml"):
        recognise(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        recognise(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is not a folder"):
        recognise(tmp_path / "notes.yaml")


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    with pytest.raises(DataError, match="no data set"):
        recognise(tmp_path)
    write_voc(tmp_path / "VOC2007", {"a": XML, "b": XML})
    assert recognise(tmp_path).data["train"] == {"sets": ["VOC2007/*"]}
