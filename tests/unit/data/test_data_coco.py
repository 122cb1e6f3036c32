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

from msbal.data import read_coco
from msbal.data.coco import read_categories
from msbal.errors import DataError


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
    with pytest.raises(DataError, match="`owl` is no category"):
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
    from msbal.data.jsonfile import read_json

    assert "segmentation" not in read_json(path, "x")["annotations"][0]
    assert read_coco(path, images).box_count == 1


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path, images = write_coco(tmp_path, coco_document())
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert len(read_coco(path, images)) == 2
