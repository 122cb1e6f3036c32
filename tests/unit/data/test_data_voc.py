from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_makers import save_image, voc_xml, write_voc

from msbal.data import VOC_CLASSES, read_voc
from msbal.data.voc import found_classes, read_set
from msbal.errors import DataError

TWO = {
    "one": voc_xml(("dog", (1, 1, 10, 20))),
    "two": voc_xml(("cat", (5, 6, 40, 30)), ("dog", (2, 2, 3, 3))),
}


def test_one_based_inclusive_corners_become_edges(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOC2007", TWO, {"train": "one\ntwo\n"})
    data = read_voc(tmp_path, [("VOC2007", "train")])
    assert data.name == "VOC2007/train"
    assert (data.classes, data.category_ids) == (("cat", "dog"), (1, 2))
    one, two = data.images
    assert (one.id, one.path, one.width, one.height) == (1, tmp_path / "VOC2007/JPEGImages/one.jpg", 40, 30)
    assert one.boxes.tolist() == [[0, 0, 10, 20]] and one.area.tolist() == [200]
    assert two.boxes.tolist() == [[4, 5, 40, 30], [1, 1, 3, 3]]
    assert two.labels.tolist() == [0, 1] and two.labels.dtype == np.int64


def test_difficult(tmp_path: Path) -> None:
    files = {"one": voc_xml(("dog", (1, 1, 9, 9)), difficult=1), "two": voc_xml(("dog", (1, 1, 9, 9)))}
    write_voc(tmp_path, files, {"all": "one\ntwo"})
    data = read_voc(tmp_path, [(".", "all")])
    assert [i.difficult.tolist() for i in data.images] == [[True], [False]]
    assert not any(i.crowd.any() for i in data.images)


def test_sets_are_joined_in_order(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOC2007", TWO, {"train": "two\n", "val": "one\n"})
    write_voc(tmp_path / "VOC2012", {"one": TWO["one"]}, {"train": "one"})
    data = read_voc(tmp_path, [("VOC2007", "train"), ("VOC2012", "train"), ("VOC2007", "val")], name="joined")
    assert data.name == "joined"
    assert [(i.id, i.path.parent.parent.name, i.path.stem) for i in data.images] == [
        (1, "VOC2007", "two"),
        (2, "VOC2012", "one"),
        (3, "VOC2007", "one"),
    ]
    with pytest.raises(DataError, match=r"`two` of .*VOC2007 is in two of the sets"):
        read_voc(tmp_path, [("VOC2007", "train"), ("VOC2007", "*")])
    with pytest.raises(DataError, match="empty list"):
        read_voc(tmp_path, [])


def test_degenerate_boxes_are_dropped_and_named(tmp_path: Path) -> None:
    text = voc_xml(
        ("dog", (5, 5, 5, 5)), ("dog", (9, 5, 3, 8)), ("dog", ("nan", 1, 2, 2)), ("dog", (60, 1, 70, 9)),
        ("dog", (0, 0, 99, 12)),
    )  # fmt: skip
    write_voc(tmp_path, {"one": text})
    data = read_voc(tmp_path, [(".", "*")])
    assert data.images[0].boxes.tolist() == [[0, 0, 40, 12]]
    assert [(d.image, d.annotation) for d in data.dropped] == [
        ("one.jpg", f"one.xml: object {n} (dog)") for n in (1, 2, 3, 4)
    ]
    assert [d.reason for d in data.dropped] == [
        "no width or height: 5, 5, 5, 5",
        "no width or height: 9, 5, 3, 8",
        "not finite: nan, 1, 2, 2",
        "outside the image: 60, 1, 70, 9",
    ]


def test_classes(tmp_path: Path) -> None:
    write_voc(tmp_path, TWO)
    sets = [(".", "*")]
    assert found_classes(tmp_path, sets) == ("cat", "dog")
    data = read_voc(tmp_path, sets, ["dog"])
    assert (data.classes, data.skipped) == (("dog",), 1)
    assert [i.labels.tolist() for i in data.images] == [[0], [0]]
    with pytest.raises(DataError, match=r"`dgo` occurs nowhere .*did you mean `dog`\? known: cat, dog"):
        read_voc(tmp_path, sets, ["dgo"])
    data = read_voc(tmp_path, sets, ["owl", "cat"], partial=True)
    assert data.classes == ("owl", "cat") and data.box_count == 1


def test_all_classes_of_voc_come_in_its_order(tmp_path: Path) -> None:
    things = [(name, (1, 1, 9, 9)) for name in reversed(VOC_CLASSES)]
    write_voc(tmp_path, {"one": voc_xml(*things)})
    assert read_voc(tmp_path, [(".", "*")]).classes == VOC_CLASSES


def test_a_missing_size_is_the_images_own(tmp_path: Path) -> None:
    zeros = "<size><width>0</width><height>0</height></size>"
    files = {
        "a": voc_xml(("x", (1, 1, 99, 99)), size=zeros),
        "b": voc_xml(("x", (1, 1, 9, 9)), size="<nothing/>"),
    }
    write_voc(tmp_path, files)
    assert [(i.width, i.height) for i in read_voc(tmp_path, [(".", "*")]).images] == [(40, 30)] * 2
    (tmp_path / "JPEGImages" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a.jpg: is not an image"):
        read_voc(tmp_path, [(".", "*")])


def test_set_files(tmp_path: Path) -> None:
    path = tmp_path / "set.txt"
    path.write_text("a  1\nb -1\r\nc  0\n\n  d e \nphoto 1\n")
    assert read_set(path) == ["a", "c", "d e", "photo"]
    assert read_set(path, {"photo 1"}) == ["a", "c", "d e", "photo 1"]
    for content, message in [
        (b"", "zero images"),
        (b"\n \n", "zero images"),
        (b"a -1\n", "zero images"),
        (b"a\nb\na\n", "`a` more than once"),
        (b"\xff\xff", "not text"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_set(path)
    with pytest.raises(DataError, match=r"does not exist; expected a VOC set file"):
        read_set(tmp_path / "other.txt")


def test_names_with_suffixes_spaces_and_other_image_formats(tmp_path: Path) -> None:
    write_voc(tmp_path, {"one": TWO["one"], "ein Bild 字": TWO["two"]}, {"s": "one.jpg\nein Bild 字\n"})
    (tmp_path / "JPEGImages" / "one.jpg").unlink()
    save_image(tmp_path / "JPEGImages" / "one.PNG")
    (tmp_path / "JPEGImages" / "._one.jpg").write_bytes(b"")
    data = read_voc(tmp_path, [(".", "s")])
    assert [i.path.name for i in data.images] == ["one.PNG", "ein Bild 字.jpg"]


def test_missing_files_are_counted(tmp_path: Path) -> None:
    write_voc(tmp_path, TWO, {"s": "one\ntwo\nthree\nfour\n"})
    with pytest.raises(DataError, match=r"2 of 4 listed images have no annotation: three, four"):
        read_voc(tmp_path, [(".", "s")])
    (tmp_path / "JPEGImages" / "two.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 2 listed images have no image: two"):
        read_voc(tmp_path, [(".", "*")])
    (tmp_path / "empty").mkdir()
    for folder, message in [("nowhere", "does not exist"), ("empty", "has no XML annotations")]:
        with pytest.raises(DataError, match=message):
            read_voc(tmp_path, [(folder, "*")])
    with pytest.raises(DataError, match="does not exist"):
        read_voc(tmp_path / "nowhere", [(".", "*")])


BILLION_LAUGHS = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>'
EXTERNAL = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("<annotation>", "is not XML: no element found at line 1, column 13"),
        ("<annotation>\n<a></b></annotation>", "is not XML: mismatched tag at line 2"),
        (BILLION_LAUGHS, "declares a document type"),
        (EXTERNAL, "declares a document type"),
        ("<?xml version='1.0' encoding='klingon'?><a/>", "is not XML"),
        ("<a>" * 90 + "</a>" * 90, "nested too deeply"),
        (voc_xml(("", (1, 1, 2, 2))), "object 1 has no name"),
        ("<a><object><name>x</name></object></a>", r"object 1 \(x\) has no bndbox"),
        (voc_xml(("x", (1, 1, "two", 2))), r"object 1 \(x\): bndbox: xmax is `two`; expected a number"),
        (voc_xml(("x", (1, 1, 2, 2)), size="<size><width>40</width></size>"), "size is 40 x 0"),
        (voc_xml(("x", (1, 1, 2, 2)), size="<size><width>inf</width></size>"), "width is inf"),
        (voc_xml(("x", (1, 1, 2, 2)), difficult=7), "difficult is `7`; expected 0 or 1"),
        ("<annotation/>", "name zero objects"),
    ],
)
def test_damaged_xml_is_named(tmp_path: Path, text: str, message: str) -> None:
    write_voc(tmp_path, {"one": text})
    with pytest.raises(DataError, match=message) as caught:
        read_voc(tmp_path, [(".", "*")])
    assert "\n" not in str(caught.value)
    if text != "<annotation/>":
        assert "one.xml" in str(caught.value)


def test_a_part_inside_an_object_is_not_an_object(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></part>"
    text = voc_xml(("person", (1, 1, 10, 10))).replace("</object>", f"{part}</object>")
    write_voc(tmp_path, {"one": text})
    data = read_voc(tmp_path, [(".", "*")])
    assert data.classes == ("person",) and data.images[0].boxes.tolist() == [[0, 0, 10, 10]]
