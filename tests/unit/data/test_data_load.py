from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_makers import coco_document, save_image, voc_xml, write_coco, write_voc
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from msbal.data import ImageRecord, hold_out, load, read_coco, shared_images, subset
from msbal.data.images.image_check import look_at_images
from msbal.errors import DataError
from msbal.spec.data import DataSpec

SPEC: TypeAdapter[Any] = TypeAdapter(DataSpec)


def coco_section(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "format": "coco",
        "root": str(folder),
        "train": {"annotations": "train.json", "images": "images"},
        **more,
    }


VAL = {"annotations": "val.json", "images": "images"}


def test_paths_are_seen_from_the_specs_folder(tmp_path: Path) -> None:
    section = {"format": "coco", "root": "data", "train": {"annotations": "a.json"}}
    spec = SPEC.validate_python(section, context={"base": tmp_path})
    assert spec.root == tmp_path / "data"
    assert spec.train.images == Path() and spec.val is None and not spec.has_val
    # What is dumped is complete: it needs no base.
    assert SPEC.validate_python(spec.model_dump(mode="json"), context={"base": "/elsewhere"}) == spec
    section["root"] = str(tmp_path / "absolute")
    assert SPEC.validate_python(section, context={"base": "/x"}).root == tmp_path / "absolute"
    generated = SPEC.validate_python({"format": "generated", "root": "g"}, context={"base": tmp_path})
    assert generated.root == tmp_path / "g" and generated.has_val


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val": VAL, "holdout": 0.2}, "exclude each other"),
        ({"holdout": 1.0}, "less than 1"),
        ({"holdout": 0}, "greater than 0"),
        ({"classes": []}, "at least 1"),
        ({"classes": ["a", "a"]}, "names one class twice"),
        ({"classes": [""]}, "at least 1"),
        ({"clases": ["a"]}, "Extra inputs"),
        ({"format": "yolo"}, "format"),
        ({"train": {"annotations": 3}}, "path"),
        ({"root": "~nobody-of-this-name/x"}, "home folder"),
    ],
)
def test_sections_that_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SPEC.validate_python(coco_section(tmp_path, **change))


def test_voc_sets_are_folder_and_set() -> None:
    sets = ["VOC2007/trainval", "kit/VOC2012/train", "val", "x/*"]
    spec = SPEC.validate_python({"format": "voc", "root": "/r", "train": {"sets": sets}})
    assert spec.train.pairs == [("VOC2007", "trainval"), ("kit/VOC2012", "train"), (".", "val"), ("x", "*")]
    for bad in ([], ["VOC2007/"], [""]):
        with pytest.raises(ValidationError):
            SPEC.validate_python({"format": "voc", "root": "/r", "train": {"sets": bad}})


def test_every_field_is_described() -> None:
    for definition in SPEC.json_schema()["$defs"].values():
        for name, field in definition["properties"].items():
            assert field.get("description"), (definition["title"], name)


def test_val_is_labelled_as_train_is(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_document(), "train.json", "images")
    document = coco_document()
    document["categories"] = [{"id": 1, "name": "dog"}, {"id": 2, "name": "emu"}]
    for annotation, category in zip(document["annotations"], (1, 2), strict=True):
        annotation["category_id"] = category
    write_coco(tmp_path, document, "val.json", "images")
    spec = SPEC.validate_python(coco_section(tmp_path, val=VAL))
    for order in (("val", "train"), ("train", "val")):
        data = {split: load(spec, split) for split in order}
        assert data["train"].classes == data["val"].classes == ("cat", "dog")
        assert data["val"].images[0].labels.tolist() == [1]
        assert data["val"].category_ids == (3, 1) and data["val"].skipped == 1
    assert load(spec, "val", ["emu"]).classes == ("emu",)


def test_val_of_voc_is_labelled_as_train_is(tmp_path: Path) -> None:
    files = {"a": voc_xml(("cat", (1, 1, 9, 9)), ("dog", (1, 1, 9, 9))), "b": voc_xml(("dog", (1, 1, 9, 9)))}
    write_voc(tmp_path, files, {"train": "a", "val": "b"})
    section = {"format": "voc", "root": str(tmp_path), "train": {"sets": ["train"]}, "val": {"sets": ["val"]}}
    val = load(SPEC.validate_python(section), "val")
    assert val.classes == ("cat", "dog") and val.images[0].labels.tolist() == [1]


def test_without_val_there_is_none(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_document(), "train.json", "images")
    assert load(SPEC.validate_python(coco_section(tmp_path)), "val") is None


def test_holdout_parts_the_images(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(10)]
    document = coco_document(names)
    document["annotations"].append({"id": 1, "image_id": 4, "category_id": 3, "bbox": [1, 1, 0, 0]})
    path, _ = write_coco(tmp_path, document, "train.json", "images")
    document["images"][3]["file_name"] = "C:\\shop\\3.png"
    path.write_text(json.dumps(document))
    spec = SPEC.validate_python(coco_section(tmp_path, holdout=0.3))
    train, val = load(spec, "train"), load(spec, "val")
    parts = [[image.path.name for image in part.images] for part in (train, val)]
    assert [len(part) for part in parts] == [7, 3]
    assert sorted(parts[0] + parts[1]) == names
    assert all(part == sorted(part) for part in parts)  # the file's order
    assert len(train.dropped) + len(val.dropped) == 1
    assert bool(val.dropped) == ("3.png" in parts[1])
    assert train.classes == val.classes
    assert load(spec, "val").images[0].path == val.images[0].path


def test_holdout_moves_few_images_when_some_are_added(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(40)]
    path, images = write_coco(tmp_path, coco_document(names))
    whole = read_coco(path, images)
    before = {i.path for i in hold_out(subset(whole, range(36)), 0.25)[1].images}
    after = {i.path for i in hold_out(whole, 0.25)[1].images}
    assert (len(before), len(after)) == (9, 10) and len(before & after) >= 7
    for share, count in ((0.001, 1), (0.999, 39)):
        assert len(hold_out(whole, share)[1]) == count
    with pytest.raises(DataError, match="1 image; expected two or more"):
        hold_out(subset(whole, [0]), 0.5)


def test_a_split_without_boxes_is_refused(tmp_path: Path) -> None:
    document = coco_document()
    document["annotations"][0]["bbox"] = [1, 1, 0, 0]
    document["annotations"][1]["iscrowd"] = 1
    write_coco(tmp_path, document, "train.json", "images")
    with pytest.raises(DataError, match=r"data.train: train has no box that counts \(1 unusable, 1 crowds\)"):
        load(SPEC.validate_python(coco_section(tmp_path)), "train")


def test_images_that_are_in_both_splits_are_said(tmp_path: Path) -> None:
    document = coco_document(["a.png", "b.png", "c.png"])
    train = read_coco(*write_coco(tmp_path, document, "train.json", "images"))
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    write_coco(tmp_path, document, "copies.json", "copies")
    for file, images in (("train", "images"), ("train", "linked"), ("copies", "copies")):
        val = read_coco(tmp_path / f"{file}.json", tmp_path / images, name="val")
        (note,) = shared_images(train, val)
        assert note.startswith("3 of 3 images of val are trained on, too, the first a.png:")
    for annotation in document["annotations"]:
        annotation["bbox"][0] += 5
    # The same names with other boxes are other images: every camera counts from 1.
    others = read_coco(*write_coco(tmp_path, document, "others.json", "others"))
    assert shared_images(train, others) == shared_images(train, None) == []
    assert shared_images(*hold_out(train, 0.5)) == []
    (tmp_path / "copies/a.png").write_bytes((tmp_path / "copies/a.png").read_bytes() + b"end")
    (note,) = shared_images(train, read_coco(tmp_path / "copies.json", tmp_path / "copies", name="val"))
    assert note.startswith("2 of 3 images of val are trained on, too, the first b.png:")


def test_images_are_looked_at(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(5)]
    write_coco(tmp_path, coco_document(names), "train.json", "images")
    spec = SPEC.validate_python(coco_section(tmp_path))
    save_image(tmp_path / "images" / "1.png", 30, 40)
    (tmp_path / "images" / "3.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"1.png is 30 x 40 pixels, its annotation says 40 x 30 \(2 of 5 .* 3.png"
    ):
        load(spec, "train")
    save_image(tmp_path / "images" / "1.png")
    with pytest.raises(DataError, match=r"3.png is not an image"):
        load(spec, "train")
    (tmp_path / "images" / "3.png").write_bytes((tmp_path / "images" / "1.png").read_bytes()[:20])
    with pytest.raises(DataError, match=r"3.png is not an image"):
        load(spec, "train")
    data = read_coco(tmp_path / "train.json", tmp_path / "images")
    look_at_images(data, "x", limit=2)  # looks at images 0 and 2
    with pytest.raises(DataError, match="1 of 3 images looked at"):
        look_at_images(data, "x", limit=3)  # 0, 1 and 3


def test_an_image_on_its_side_fits_both_ways(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    document = coco_document(["a.jpg", "b.jpg"])
    document["images"][1].update(width=30, height=40)
    write_coco(tmp_path, document, "train.json", "images")
    for name in ("a.jpg", "b.jpg"):
        image.save(tmp_path / "images" / name, exif=exif)
    assert len(load(SPEC.validate_python(coco_section(tmp_path)), "train")) == 2


def test_generated_data_loads(tmp_path: Path) -> None:
    section = {"format": "generated", "root": str(tmp_path), "train_images": 3, "val_images": 2, "size": 64}
    spec = SPEC.validate_python(section)
    assert len(load(spec, "train")) == 3
    assert len(load(spec, "val")) == 2


def record(boxes: list[list[float]], labels: list[int], **flags: list[bool]) -> ImageRecord:
    count = len(boxes)
    return ImageRecord(
        id=1, path=Path("x.png"), width=640, height=480,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4), labels=np.array(labels, dtype=np.int64),
        area=np.ones(count, dtype=np.float32),
        crowd=np.array(flags.get("crowd", [False] * count), dtype=np.bool_),
        difficult=np.array(flags.get("difficult", [False] * count), dtype=np.bool_),
    )  # fmt: skip


def test_the_summary_counts(tmp_path: Path) -> None:
    document = coco_document(["a.png"])
    document["annotations"] += [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 0, 0]},
        {"id": 2, "image_id": 1, "category_id": 3, "bbox": [99, 1, 2, 2]},
        {"id": 3, "image_id": 1, "category_id": 3, "bbox": [98, 1, 2, 2]},
        {"id": 4, "image_id": 1, "category_id": 7, "bbox": [1, 1, 2, 2]},
    ]
    read = read_coco(*write_coco(tmp_path, document), classes=["cat"])
    reasons = Counter(box.reason.split(":", 1)[0] for box in read.dropped)
    assert reasons == {"no width or height": 1, "outside the image": 2}
    assert (read.box_count, read.skipped) == (1, 1)


def test_importing_data_imports_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, msbal.data, msbal.data.recognition.recognise; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
