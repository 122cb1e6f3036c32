from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_makers import coco_document, save_image, write_coco
from PIL import Image

from msbal.data import DetectionData, hold_out, read_coco
from msbal.data.coco.read_coco import read_categories
from msbal.errors import DataError
from msbal.evaluation.annotations import read_annotations


def test_reads_what_is_there(tmp_path: Path) -> None:
    data = read_coco(*write_coco(tmp_path, coco_document()))
    assert data.name == "instances"
    assert (data.classes, data.category_ids) == (("cat", "dog"), (3, 7))
    first, second = data.images
    assert (first.id, first.path, first.width, first.height) == (1, tmp_path / "images/a.png", 40, 30)
    np.testing.assert_array_equal(first.boxes, np.array([[2, 3, 12, 23]], dtype=np.float32))
    assert first.boxes.dtype == np.float32 and first.labels.dtype == np.int64
    assert (first.labels.tolist(), second.labels.tolist()) == ([0], [1])
    assert first.area.tolist() == [150.0]
    assert data.dropped == () and data.skipped == 0


def test_to_coco_is_read_back_the_same(tmp_path: Path) -> None:
    document = coco_document()
    document["annotations"][0]["iscrowd"] = 1
    document["annotations"][1]["difficult"] = 1
    data = read_coco(*write_coco(tmp_path, document))
    again = tmp_path / "again.json"
    again.write_text(json.dumps(data.to_coco()))
    copy = read_coco(again, tmp_path, name=data.name)
    assert [i.crowd.tolist() for i in copy.images] == [[True], [False]]
    assert [i.difficult.tolist() for i in copy.images] == [[False], [True]]
    assert copy.to_coco() == data.to_coco()


def test_annotations_in_any_order_stay_with_their_images_in_file_order(tmp_path: Path) -> None:
    document = coco_document(["a.png", "b.png", "empty.png"])
    document["annotations"] = [
        {"id": n, "image_id": image, "category_id": 3, "bbox": [n, 0, 5, 5]}
        for n, image in enumerate([2, 1, 2, 1, 1])
    ]
    data = read_coco(*write_coco(tmp_path, document))
    assert [image.boxes[:, 0].tolist() for image in data.images] == [[1, 3, 4], [0, 2], []]
    assert data.images[2].boxes.shape == (0, 4)


@pytest.mark.parametrize("area", [None, 0, -4, math.nan, 1e300])
def test_an_area_that_says_nothing_is_the_boxs(tmp_path: Path, area: float | None) -> None:
    document = coco_document(["a.png"])
    document["annotations"][0]["area"] = area
    assert read_coco(*write_coco(tmp_path, document)).images[0].area.tolist() == [200.0]


def test_boxes_over_the_edge_are_clipped(tmp_path: Path) -> None:
    document = coco_document(["a.png"])
    document["annotations"][0]["bbox"] = [-5, 20, 100, 10.5]
    data = read_coco(*write_coco(tmp_path, document))
    assert data.images[0].boxes.tolist() == [[0, 20, 40, 30]]
    assert data.dropped == ()


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([5, 5, 0, 4], "no width or height"),
        ([5, 5, 4, -1], "no width or height"),
        ([5, math.nan, 4, 4], "not finite"),
        ([5, 5, math.inf, 4], "not finite"),
        ([40, 5, 4, 4], "outside the image"),
        ([5, -9, 4, 9], "outside the image"),
        ([30, 5, 1e-12, 4], "thinner than a thousandth of a pixel"),
        ([0, 0, 1e-38, 1e-38], "thinner than a thousandth of a pixel"),
        ([39.9999, 5, 4, 4], "thinner than a thousandth of a pixel"),
    ],
)
def test_degenerate_boxes_are_dropped_and_named(tmp_path: Path, box: list[float], reason: str) -> None:
    document = coco_document(["a.png"])
    bad = {"id": 9, "image_id": 1, "category_id": 7, "bbox": box, "area": 3}
    document["annotations"].insert(0, bad)
    data = read_coco(*write_coco(tmp_path, document))
    assert data.box_count == 1 and data.images[0].labels.tolist() == [0]
    (dropped,) = data.dropped
    assert (dropped.image, dropped.annotation) == ("a.png", "9")
    assert dropped.reason.startswith(f"{reason}: ")


def test_classes_select_and_order(tmp_path: Path) -> None:
    paths = write_coco(tmp_path, coco_document(["a.png", "b.png", "c.png"]))
    data = read_coco(*paths, classes=["dog"])
    assert (data.classes, data.category_ids, data.skipped) == (("dog",), (7,), 2)
    assert [i.labels.tolist() for i in data.images] == [[], [0], []]
    assert [i.labels.tolist() for i in read_coco(*paths, classes=["dog", "cat"]).images] == [[1], [0], [1]]


def test_classes_that_match_nothing_name_what_exists(tmp_path: Path) -> None:
    paths = write_coco(tmp_path, coco_document())
    with pytest.raises(DataError, match=r"`Dogs` is no category.*did you mean `dog`\? known: cat, dog"):
        read_coco(*paths, classes=["Dogs"])
    with pytest.raises(DataError, match=r"`owl` is no category"):
        read_coco(*paths, classes=["dog", "owl"])
    with pytest.raises(DataError, match="`dog` is listed twice"):
        read_coco(*paths, classes=["dog", "dog"])
    with pytest.raises(DataError, match="empty list"):
        read_coco(*paths, classes=[])


def test_partial_gives_absent_classes_an_id_of_their_own(tmp_path: Path) -> None:
    paths = write_coco(tmp_path, coco_document())
    data = read_coco(*paths, classes=["owl", "dog", "emu"], partial=True)
    assert data.classes == ("owl", "dog", "emu")
    assert data.category_ids == (8, 7, 9)
    assert data.images[1].labels.tolist() == [1]
    with pytest.raises(
        DataError, match=r"its categories \(cat, dog\) are none of those trained; expected owl, emu"
    ):
        read_coco(*paths, classes=["owl", "emu"], partial=True)


def test_of_two_categories_of_one_name_the_used_one_counts(tmp_path: Path) -> None:
    document = coco_document(["a.png", "b.png"])
    document["categories"].insert(0, {"id": 0, "name": "cat", "supercategory": "none"})
    path, images = write_coco(tmp_path, document)
    data = read_coco(path, images)
    assert (data.classes, data.category_ids) == (("cat", "dog"), (3, 7))
    assert read_categories(path) == ("cat", "dog")
    document["annotations"][1]["category_id"] = 0
    with pytest.raises(DataError, match="categories 0 and 3 are both named `cat`"):
        read_coco(*write_coco(tmp_path, document))


def test_whole_floats_are_ids(tmp_path: Path) -> None:
    document = coco_document(["a.png"])
    document["annotations"][0].update(image_id=1.0, category_id=3.0)
    assert read_coco(*write_coco(tmp_path, document)).box_count == 1


def test_images_in_subfolders_with_spaces_and_other_scripts(tmp_path: Path) -> None:
    names = ["été/ein Bild.png", "写真.png", "sub/deep/x y.png"]
    document = coco_document(names)
    path, images = write_coco(tmp_path / "mit Leerzeichen", document)
    assert [i.path for i in read_coco(path, images).images] == [images / name for name in names]


def test_other_spellings_of_a_file_name_are_found(tmp_path: Path) -> None:
    document = coco_document(["cafe\u0301.png", "sub\\b.png"])
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    save_image(tmp_path / "images" / "caf\u00e9.png")
    save_image(tmp_path / "images" / "sub" / "b.png")
    data = read_coco(path, tmp_path / "images")
    assert [i.path.name for i in data.images] == ["caf\u00e9.png", "b.png"]


def test_links_are_followed_and_broken_ones_are_missing(tmp_path: Path) -> None:
    path, images = write_coco(tmp_path / "real", coco_document())
    links = tmp_path / "links"
    links.mkdir()
    (links / "a.png").symlink_to(images / "a.png")
    (links / "b.png").symlink_to(images / "b.png")
    (tmp_path / "linked.json").symlink_to(path)
    assert len(read_coco(tmp_path / "linked.json", links)) == 2
    (images / "b.png").unlink()
    with pytest.raises(DataError, match=r"1 of the 2 images .* missing: b.png"):
        read_coco(tmp_path / "linked.json", links)


def test_missing_images_are_counted_and_the_first_named(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(9)]
    path, images = write_coco(tmp_path, coco_document(names))
    for name in names[2:]:
        (images / name).unlink()
    with pytest.raises(DataError, match=r"7 of the 9 images .*: 2.png, 3.png, 4.png and 4 more"):
        read_coco(path, images)
    (images / "2.png").mkdir()
    with pytest.raises(DataError, match=r"7 of the 9 images"):
        read_coco(path, images)
    with pytest.raises(DataError, match=r"does not exist.*exists up to"):
        read_coco(path, tmp_path / "nowhere" / "images")
    with pytest.raises(DataError, match="is not a folder"):
        read_coco(path, path)


def test_a_file_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; expected a COCO annotation file"):
        read_coco(tmp_path / "no.json", tmp_path)
    with pytest.raises(DataError, match="is a folder"):
        read_coco(tmp_path, tmp_path)
    with pytest.raises(DataError, match="cannot be looked at"):
        read_coco(tmp_path / "nul\0.json", tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
        with pytest.raises(DataError, match="not a regular file"):
            read_coco(tmp_path / "pipe", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'{"images": [],\n "annotations" []}', r"is not JSON: .* line 2, column 16"),
        (b"\xff\xfe\x00", "is not "),
        (b'{"images": "\xe9"}', "is not text"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", r"holds a (value that cannot be read|list)"),
        (b"[]", "holds a list"),
        (b"3", "holds a number"),
        (b"null", "holds null"),
        (b"{}", "has no `images`"),
        (b'{"images": 3}', "`images` is a number"),
        (b'{"images": []}', "lists zero images"),
        (b'{"images": [7]}', r"images\[0\] is a number: 7"),
    ],
)
def test_a_file_of_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "instances.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_coco(path, tmp_path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def _set(group: str, index: int, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document[group][index].update({key: value})


def _delete(group: str, index: int, key: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document[group][index].pop(key)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_delete("images", 1, "file_name"), r"images\[1\] \(id 2\) has no `file_name`"),
        (_delete("images", 0, "id"), r"images\[0\] has no `id`"),
        (_set("images", 1, "width", "4O"), r"images\[1\] \(id 2\): `width` is '4O'; expected a number"),
        (_set("images", 1, "height", -30), r"`height` is -30; expected a whole number from 1 to 1048576"),
        (_set("images", 1, "height", 30.5), r"`height` is 30.5; expected a whole number"),
        (_set("images", 1, "width", 10**30), r"`width` is 1000"),
        (_set("images", 1, "id", 1), r"2 images have the id 1"),
        (_set("images", 1, "id", True), r"`id` is True"),
        (_set("images", 1, "file_name", ""), r"`file_name` is ''"),
        (_set("images", 1, "file_name", ["b"]), r"`file_name` is \['b'\]"),
        (_set("images", 1, "file_name", "\ud800"), r"`file_name` is .*valid Unicode"),
        (_set("annotations", 1, "image_id", 44), r"annotations\[1\] \(id 101\) belongs to image 44"),
        (_set("annotations", 1, "image_id", [1]), r"annotations\[1\] \(id 101\): `image_id` is \[1\]"),
        (_set("annotations", 1, "category_id", 4), r"has category 4; expected one of .*3, 7"),
        (_delete("annotations", 1, "bbox"), r"\(id 101\) has no `bbox`"),
        (_set("annotations", 1, "bbox", [1, 2, 3]), r"\(id 101\): `bbox` is \[1, 2, 3\]"),
        (_set("annotations", 1, "bbox", [1, 2, 3, "4 px"]), r"\(id 101\): `bbox` is \[1, 2, 3, '4 px'\]"),
        (_set("annotations", 1, "bbox", [1, 2, 3, None]), r"`bbox`"),
        (_set("annotations", 1, "bbox", [1, 2, 3, 10**400]), r"`bbox`"),
        (_set("annotations", 1, "bbox", {"x": 1}), r"`bbox`"),
        (_set("annotations", 1, "iscrowd", "no"), r"`iscrowd` is 'no'; expected 0 or 1"),
        (_set("annotations", 1, "area", "big"), r"`area` is 'big'"),
        (_set("categories", 1, "id", 3), r"2 categories have the id 3"),
        (_set("categories", 1, "name", [5]), r"categories\[1\] \(id 7\): `name` is \[5\]"),
        (lambda d: d.pop("annotations"), r"has no `annotations` \(it has images, categories\)"),
        (lambda d: d.update(categories=[]), r"lists zero categories"),
        (lambda d: d.update(annotations={"0": 1}), r"`annotations` is an object"),
    ],
)
def test_damage_deep_inside_is_named(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], message: str
) -> None:
    document = coco_document()
    path, images = write_coco(tmp_path, document)
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=message) as caught:
        read_coco(path, images)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_masks_are_let_go_while_parsing(tmp_path: Path) -> None:
    document = coco_document(["a.png"])
    document["annotations"][0]["segmentation"] = [[1.0, 2.0] * 10]
    path, images = write_coco(tmp_path, document)
    from msbal.data.coco.coco_json import read_json

    assert "segmentation" not in read_json(path, "x")["annotations"][0]
    assert read_coco(path, images).box_count == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_every_encoding_of_json_is_read(tmp_path: Path, encoding: str) -> None:
    document = coco_document()
    document["categories"][0]["name"] = "café"
    path, images = write_coco(tmp_path, document)
    path.write_text(json.dumps(document, ensure_ascii=False), encoding=encoding)
    data = read_coco(path, images)
    assert data.classes == read_annotations(path).classes == ("café", "dog") and len(data) == 2


# -- what exporters write otherwise ----------------------------------------------------------------


def each(group: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    """Give every entry of a group these values; a function makes one from the entry."""

    def change(document: dict[str, Any]) -> None:
        for entry in document[group]:
            entry.update({k: v(entry) if callable(v) else v for k, v in values.items()})

    return change


def read_changed(folder: Path, *changes: Callable[[dict[str, Any]], None]) -> DetectionData:
    document = coco_document()
    path, images = write_coco(folder, document)
    for change in changes:
        change(document)
    path.write_text(json.dumps(document))
    return read_coco(path, images)


NUMBERS = "numbers that are written as texts are read as numbers: "


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (each("annotations", bbox=lambda a: [str(v) for v in a["bbox"]]), f"{NUMBERS}`bbox` of 2 annotations"),
        (each("annotations", area=" 150 "), f"{NUMBERS}`area` of 2 annotations"),
        (each("annotations", iscrowd="0", ignore="false"), f"{NUMBERS}`iscrowd` of 2 annotations, `ignore` of 2 ann"),
        (each("annotations", iscrowd=None, ignore=None, difficult=None), None),
        (each("annotations", iscrowd=False, ignore=math.nan, difficult=0.0), None),
        (each("images", width="40", height="30.0"), f"{NUMBERS}`width` of 2 images, `height` of 2 images"),
        (each("annotations", image_id=lambda a: str(a["image_id"])), f"{NUMBERS}`image_id` of 2 annotations"),
        (each("images", id=lambda i: f"00{i['id']}"), f"{NUMBERS}`id` of 2 images"),
        (each("categories", id=lambda c: f"{c['id']}.0"), f"{NUMBERS}`id` of 2 categories"),
    ],
)  # fmt: skip
def test_texts_null_and_missing_say_the_same_as_numbers(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], note: str | None
) -> None:
    data = read_changed(tmp_path, change)
    assert data.to_coco() == read_changed(tmp_path).to_coco()
    if note is None:
        assert data.notes == ()
    else:
        assert len(data.notes) == 1 and data.notes[0].startswith(note)


def test_what_is_ignored_is_a_crowd(tmp_path: Path) -> None:
    def ignore(document: dict[str, Any]) -> None:
        document["annotations"][0]["ignore"] = 1
        document["annotations"][1].update(ignore=True, iscrowd=1)

    data = read_changed(tmp_path, ignore)
    assert [image.crowd.tolist() for image in data.images] == [[True], [True]]
    (note,) = data.notes
    assert note.startswith("1 of 2 boxes are marked `ignore` and treated as crowds")


def test_an_area_of_nothing_is_said(tmp_path: Path) -> None:
    (note,) = read_changed(tmp_path, each("annotations", area=0)).notes
    assert note.startswith("2 of 2 boxes have an `area` of 0 or less: that of the box is taken")


def test_annotations_need_no_ids_of_their_own(tmp_path: Path) -> None:
    data = read_changed(tmp_path, each("annotations", id=0))
    assert data.box_count == 2
    assert [note.split(":")[0] for note in data.notes] == [
        "1 of 2 annotations repeat the id of another (2 have the id 0)",
        "an annotation has the id 0",
    ]
    for id_ in ("a7", None, [1], {"x": 1}):
        assert read_changed(tmp_path, each("annotations", id=id_)).box_count == 2


@pytest.mark.parametrize(
    "ids", [("p00", "p01"), ("7", "x"), ("3f2a-11", "99999999999999999999999"), ("1e5", "ü")]
)
def test_ids_that_are_texts_give_way_to_numbers_in_their_order(tmp_path: Path, ids: tuple[str, str]) -> None:
    def rename(document: dict[str, Any]) -> None:
        for entry, annotation, id_ in zip(document["images"], document["annotations"], ids, strict=True):
            entry["id"] = annotation["image_id"] = id_
        document["images"].reverse()

    data = read_changed(tmp_path, rename)
    assert [image.id for image in data.images] == [2, 1]
    assert [image.labels.tolist() for image in data.images] == [[1], [0]]
    assert dict(data.image_numbers) == {ids[0]: 1, ids[1]: 2}
    assert any(note.startswith("the ids of images are texts (`") for note in data.notes)
    for part in hold_out(data, 0.5):
        assert part.image_numbers == data.image_numbers
    with pytest.raises(DataError, match=r"annotations\[0\] \(id 100\) belongs to image 'nobody'"):
        read_changed(tmp_path, rename, lambda d: d["annotations"][0].update(image_id="nobody"))


def test_category_ids_that_are_texts(tmp_path: Path) -> None:
    change = each("categories", id=lambda c: c["name"].upper())
    of_annotations = each("annotations", category_id=lambda a: {3: "CAT", 7: "DOG"}[a["category_id"]])
    data = read_changed(tmp_path, change, of_annotations)
    assert (data.classes, data.category_ids) == (("cat", "dog"), (1, 2))
    assert dict(data.category_numbers) == {"CAT": 1, "DOG": 2}
    assert [image.labels.tolist() for image in data.images] == [[0], [1]]


def test_large_ids_keep_every_digit(tmp_path: Path) -> None:
    large = 2**62 + 1
    data = read_changed(
        tmp_path,
        each("images", id=lambda i: large + i["id"]),
        each("annotations", image_id=lambda a: large + a["image_id"]),
    )
    assert [image.id for image in data.images] == [large + 1, large + 2]


@pytest.mark.parametrize(
    ("name", "read", "note"),
    [
        (5, "5", None),
        (5.0, "5", None),
        (None, "3", "1 of 2 categories have no `name`, and are called by their id: 3"),
        (" ", "3", "1 of 2 categories have no `name`"),
        (" big\n cat\t", "big cat", "names of classes are read without line breaks and blanks around them: ` big"),
        ("big\x00cat", "big cat", "names of classes are read without"),
        ("\ufeffcat", "cat", "names of classes are read without"),
    ],
)  # fmt: skip
def test_names_of_classes(tmp_path: Path, name: Any, read: str, note: str | None) -> None:
    data = read_changed(tmp_path, lambda d: d["categories"][0].update(name=name))
    assert data.classes == (read, "dog")
    assert [said for said in data.notes if note is None or not said.startswith(note)] == []


def test_a_blank_does_not_part_val_from_train(tmp_path: Path) -> None:
    document = coco_document()
    path, images = write_coco(tmp_path, document)
    document["categories"][0]["name"] = "cat "
    path.write_text(json.dumps(document))
    for classes in (("cat", "dog"), ("cat ", "dog")):
        data = read_coco(path, images, classes, partial=True)
        assert data.classes == ("cat", "dog") and data.box_count == 2
    with pytest.raises(DataError, match="`cat` is listed twice"):
        read_coco(path, images, ["cat", "cat "])
    document["categories"][1]["name"] = "cat"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="categories 3 and 7 are both named `cat`"):
        read_coco(path, images)


def test_names_that_differ_in_case_alone_are_said(tmp_path: Path) -> None:
    data = read_changed(tmp_path, lambda d: d["categories"][1].update(name="Cat"))
    assert data.notes == ("`cat` and `Cat` are different classes here",)


@pytest.mark.parametrize("size", [None, 0, "", "missing"])
def test_sizes_that_are_not_given_are_those_of_the_images(tmp_path: Path, size: Any) -> None:
    def change(document: dict[str, Any]) -> None:
        document["images"][1]["width"] = size
        if size == "missing":
            del document["images"][1]["width"]

    data = read_changed(tmp_path, change)
    assert [(image.width, image.height) for image in data.images] == [(40, 30)] * 2
    assert data.notes == ("1 of 2 images have no `width` and `height`: read from the files",)


def test_a_size_is_that_of_the_image_as_shown(tmp_path: Path) -> None:
    document = coco_document(["a.jpg"])
    path, images = write_coco(tmp_path, document)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(images / "a.jpg", exif=exif)
    del document["images"][0]["width"]
    path.write_text(json.dumps(document))
    (image,) = read_coco(path, images).images
    assert (image.width, image.height) == (30, 40)


def test_the_box_around_an_outline_stands_in_for_none(tmp_path: Path) -> None:
    outline = [[4, 6, 14, 6, 14.5, 11], [2, 8, 3, 8, 3, 20]]

    def change(document: dict[str, Any]) -> None:
        first, second = document["annotations"]
        first.update(bbox=[], segmentation=outline)
        del second["bbox"]
        second["segmentation"] = outline[0]

    data = read_changed(tmp_path, change)
    assert [image.boxes.tolist() for image in data.images] == [[[2, 6, 14.5, 20]], [[4, 6, 14.5, 11]]]
    assert data.notes[0].startswith("2 of 2 annotations have no `bbox`: the box around their `segmentation`")
    for unclear in ([], [[]], "abc", {"size": [30, 40], "counts": "x"}, [["a", "b"]], [5]):
        with pytest.raises(DataError, match=r"annotations\[0\].*`bbox`.*or polygons as `segmentation`"):
            read_changed(
                tmp_path,
                lambda d: d["annotations"][0].pop("bbox"),
                lambda d, unclear=unclear: d["annotations"][0].update(segmentation=unclear),  # type: ignore[misc]
            )


# -- names of files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "there"),
    [
        ("C:\\things\\a.png", "a.png"),
        ("C:\\things\\sub\\a.png", "sub/a.png"),
        ("/home/me/things/a.png", "a.png"),
        ("\\\\server\\share\\a.png", "a.png"),
        ("../../media/upload/1/a.png", "a.png"),
        ("http://images.example.org/train2017/a.png", "train2017/a.png"),
        ("https://images.example.org/x%20y/a%20b.png?key=5", "a b.png"),
        ("s3://bucket/a.png", "a.png"),
        ("nr%20%C2%B01.png", "nr °1.png"),
        ("a", "a.png"),
        ("a.v2", "a.v2.png"),
        ("a.png", "a.PNG"),
        ("/home/me/a", "a.JPG"),
    ],
)
def test_names_of_elsewhere_are_found_and_said(tmp_path: Path, written: str, there: str) -> None:
    document = coco_document([written])
    (tmp_path / "instances.json").write_text(json.dumps(document))
    save_image(tmp_path / "images" / "other.png")
    save_image(tmp_path / "images" / there)
    data = read_coco(tmp_path / "instances.json", tmp_path / "images")
    assert data.images[0].path == tmp_path / "images" / there
    (note,) = data.notes
    assert note.startswith("1 of 1 names of images ") and note.endswith(str(tmp_path / "images" / there))


def test_lvis_has_addresses_alone(tmp_path: Path) -> None:
    document = coco_document()
    path, images = write_coco(tmp_path, document)
    for entry in document["images"]:
        entry["coco_url"] = f"http://images.example.org/train2017/{entry.pop('file_name')}"
    path.write_text(json.dumps(document))
    assert [image.path for image in read_coco(path, images).images] == [images / "a.png", images / "b.png"]


@pytest.mark.parametrize("names", [("/x/1/a.png", "/x/2/a.png"), ("/x/a.png", "a.png"), ("a", "a.PNG")])
def test_a_file_that_two_names_lead_to_is_not_guessed(tmp_path: Path, names: tuple[str, str]) -> None:
    (tmp_path / "instances.json").write_text(json.dumps(coco_document(names)))
    save_image(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match=r"missing: .*a.png is there, and more than one name leads to it"):
        read_coco(tmp_path / "instances.json", tmp_path / "images")


@pytest.mark.parametrize(
    ("names", "files", "hint"),
    [
        (
            ["a.png"],
            ["train/a.png"],
            "a file named a.png lies in {0}/train: set the split's `images` to {0}/train",
        ),
        (
            ["x/a.png", "x/b.png"],
            ["all/x/a.png", "all/x/b.png"],
            "files of all these names lie in {0}/all/x: set the split's `images` to {0}/all",
        ),
        (["a.png", "b.png"], ["images/a.png", "train/b.png"], "a file named b.png lies in {0}/train"),
        (["a.png"], ["images/a.jpg"], "a.jpg is there: are the names meant with the suffix .jpg?"),
        (["a.png"], ["images/z.jpg"], "is this the folder that the `file_name` entries are relative to?"),
    ],
)
def test_where_images_lie_instead_is_said(
    tmp_path: Path, names: list[str], files: list[str], hint: str
) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    path = tmp_path / "annotations" / "instances.json"
    path.write_text(json.dumps(coco_document(names)))
    for file in files:
        save_image(tmp_path / file)
    with pytest.raises(DataError) as caught:
        read_coco(path, tmp_path / "images")
    assert str(caught.value).endswith(f"; {hint.format(tmp_path)}")


def test_an_image_that_is_listed_twice_is_said(tmp_path: Path) -> None:
    data = read_changed(tmp_path, lambda d: d["images"][1].update(file_name="./a.png"))
    assert data.notes == (f"1 of 2 images are listed again, the first {tmp_path / 'images' / 'a.png'}",)


# -- boxes that look odd ---------------------------------------------------------------------------


def boxes_of(*boxes: list[float]) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["annotations"] = [
            {"id": n, "image_id": 1, "category_id": 3, "bbox": box} for n, box in enumerate(boxes, 1)
        ]

    return change


GOOD = [2.0, 3.0, 10.0, 20.0]


@pytest.mark.parametrize(
    ("boxes", "note"),
    [
        ([[20, 10, 39, 30], [5, 18, 30, 29], [22, 3, 38, 20]], "3 of 3 boxes reach beyond their image, the first 1 of "
         "a.png: are they x1 y1 x2 y2 instead of x y width height?"),
        ([[33, 20, 14, 16], [30, 15, 20, 12], [35, 6, 10, 12]], "3 of 3 boxes reach beyond their image, the first 1 of "
         "a.png: are they centre x, centre y, width, height instead of x y width height?"),
        ([[20, 10, 60, 9], [0, 10, 70, 9], [20, 10, 60, 9], GOOD], "3 of 4 boxes reach beyond their image, the first 1 "
         "of a.png: they are cut at its edge"),
        ([[-9, 4, 30, 9], [-9, -9, 30, 20], [5, -2, 10, 20], GOOD], "3 of 4 boxes reach beyond their image, the first "
         "1 of a.png: they are cut at its edge"),
        ([[20, 10, 60, 9], [20, 10, 60, 9], GOOD], None),
        ([[20, 10, 60, 9]] * 3 + [GOOD] * 13, None),
        ([[20, 10, 20.9, 20.9]] * 5, None),
    ],
)  # fmt: skip
def test_many_boxes_beyond_the_edge_are_asked_about(
    tmp_path: Path, boxes: list[list[float]], note: str | None
) -> None:
    data = read_changed(tmp_path, boxes_of(*boxes))
    assert data.notes == (() if note is None else (note,)) and data.box_count == len(boxes)


def test_fractions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no box reaches beyond the first pixel.*are these fractions of the image"
    ):
        read_changed(tmp_path, boxes_of([0.1, 0.2, 0.5, 0.8], [0, 0, 1, 1]))
    assert read_changed(tmp_path, boxes_of([0.1, 0.2, 0.5, 0.8], [0, 0, 1, 2])).box_count == 2
