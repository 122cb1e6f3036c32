from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_makers import save_image, voc_xml, write_voc

from msbal.data import VOC_CLASSES, read_voc
from msbal.data.voc.image_sets import read_set
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
        ("dog", (5, 5, 5, 5)), ("dog", (9, 5, 9, 8)), ("dog", ("nan", 1, 2, 2)), ("dog", (60, 1, 70, 9)),
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
        "no width or height: 9, 5, 9, 8",
        "not finite: nan, 1, 2, 2",
        "outside the image: 60, 1, 70, 9",
    ]


def test_classes(tmp_path: Path) -> None:
    write_voc(tmp_path, TWO)
    sets = [(".", "*")]
    data = read_voc(tmp_path, sets, ["dog"])
    assert (data.classes, data.skipped) == (("dog",), 1)
    assert [i.labels.tolist() for i in data.images] == [[0], [0]]
    with pytest.raises(DataError, match=r"`dgo` is no class of .*did you mean `dog`\? known: cat, dog"):
        read_voc(tmp_path, sets, ["dgo"])
    data = read_voc(tmp_path, sets, ["owl", "cat"], partial=True)
    assert data.classes == ("owl", "cat") and data.box_count == 1
    with pytest.raises(
        DataError, match=r"its classes \(cat, dog\) are none of those trained; expected Cat, Dog"
    ):
        read_voc(tmp_path, sets, ["Cat", "Dog"], partial=True)
    write_voc(tmp_path, {"one": voc_xml(), "two": voc_xml()})
    data = read_voc(tmp_path, sets, ["cat"], partial=True)
    assert data.classes == ("cat",) and data.box_count == 0


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
    assert read_set(path).names == ["a", "c", "d e", "photo"]
    assert read_set(path, {"photo 1": "photo 1"}.get).names == ["a", "c", "d e", "photo 1"]
    for content, message in [
        (b"", "zero images"),
        (b"\n \n", "zero images"),
        (b"a\nb\na\n", "`a` more than once"),
        (b"\xff\xff", "is not UTF-8"),
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


@pytest.mark.parametrize("line", ["{}.jpg", "JPEGImages/{}.jpg", "./{}", "VOC\\JPEGImages\\{}.jpg", "{}", "{} 1 2 1",
                                  "VOC/JPEGImages/{0}.jpg VOC/Annotations/{0}.xml", "Annotations/{}.xml"])  # fmt: skip
def test_how_lists_name_images(tmp_path: Path, line: str) -> None:
    names = ("one", "ein Bild") if " " not in line else ("one", "two")
    files = dict(zip(names, TWO.values(), strict=True))
    lines = "\r\n".join(line.format(name) for name in reversed(names))
    write_voc(tmp_path, files, {"s": f"\ufeff{lines}\r\n"})
    data = read_voc(tmp_path, [(".", "s")])
    assert [i.path.stem for i in data.images] == list(reversed(names))


def test_where_lists_lie_and_what_they_are_called(tmp_path: Path) -> None:
    write_voc(tmp_path, TWO)
    for place in ("ImageSets/Main", "ImageSets", "Main"):
        path = tmp_path / place / "Train.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("two.jpg")
        assert [i.path.stem for i in read_voc(tmp_path, [(".", "Train")]).images] == ["two"]
        with pytest.raises(DataError, match=r"has no set `train`; expected one of its sets: Train"):
            read_voc(tmp_path, [(".", "train")])
        path.unlink()
    with pytest.raises(DataError, match=r"has no set `train`; expected `\*`"):
        read_voc(tmp_path, [(".", "train")])


def test_the_lists_of_all_classes_make_a_set(tmp_path: Path) -> None:
    write_voc(tmp_path, TWO, {"cat_train": "one -1\n", "dog_train": "one 1\n", "dog_val": "two 1"})
    names = {
        set_: [i.path.stem for i in read_voc(tmp_path, [(".", set_)]).images] for set_ in ("*_train", "*_val")
    }
    assert names == {"*_train": ["one"], "*_val": ["two"]}
    with pytest.raises(DataError, match=r"cat_train.txt: lists zero images"):
        read_voc(tmp_path, [(".", "cat_train")])


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("Annotations", "JPEGImages"),
        ("annotations", "images"),
        ("annotations/xmls", "images"),
        ("labels", "data"),
        ("xml", "img"),
        ("marks/by hand", "photos"),
        (".", "."),
    ],
)
def test_xml_and_images_anywhere(tmp_path: Path, annotations: str, images: str) -> None:
    for folder in (annotations, images, "annotations/trimaps", "SegmentationClass"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for stem, text in TWO.items():
        (tmp_path / annotations / f"{stem}.xml").write_text(text)
        for folder, suffix in ((images, "jpg"), ("annotations/trimaps", "png"), ("SegmentationClass", "png")):
            save_image(tmp_path / folder / f"{stem}.{suffix}")
    data = read_voc(tmp_path, [(".", "*")])
    assert [i.path for i in data.images] == [tmp_path / images / "one.jpg", tmp_path / images / "two.jpg"]
    assert data.notes == ()


def test_xml_in_folders_of_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):  # the same names in both
        (tmp_path / "annotations" / split).mkdir(parents=True)
        (tmp_path / "annotations" / split / "one.xml").write_text(TWO["one"])
        save_image(tmp_path / "images" / split / "one.jpg")
    for split in ("train", "val"):
        data = read_voc(tmp_path, [(f"annotations/{split}", "*")])
        assert [i.path for i in data.images] == [tmp_path / "images" / split / "one.jpg"]
    data = read_voc(tmp_path, [(".", "*")])
    assert [i.path.relative_to(tmp_path).as_posix() for i in data.images] == [
        "images/train/one.jpg",
        "images/val/one.jpg",
    ]
    for split in ("train", "val"):
        (tmp_path / "images" / split / "one.jpg").rename(tmp_path / "images" / f"{split}.jpg")
        (tmp_path / "annotations" / split / "one.xml").rename(
            tmp_path / "annotations" / split / f"{split}.xml"
        )
        assert (
            read_voc(tmp_path, [(f"annotations/{split}", "*")]).images[0].path
            == tmp_path / f"images/{split}.jpg"
        )
    with pytest.raises(
        DataError, match=r"has XML annotations in 2 folders: .* a set for each folder, such as `ann"
    ):
        read_voc(tmp_path, [(".", "*")])


def test_accents_taken_apart(tmp_path: Path) -> None:
    write_voc(tmp_path, {"cafe\u0301": TWO["one"]}, {"s": "caf\u00e9.jpg"})
    (tmp_path / "Annotations" / "cafe\u0301.xml").rename(tmp_path / "Annotations" / "caf\u00e9.xml")
    for set_ in ("s", "*"):
        assert len(read_voc(tmp_path, [(".", set_)])) == 1


def test_names_with_folders(tmp_path: Path) -> None:
    (tmp_path / "SegmentationClass").mkdir(parents=True)
    for folder in ("garden", "hall"):  # the same names in both
        for stem, text in TWO.items():
            save_image(tmp_path / "JPEGImages" / folder / f"{stem}.jpg")
            save_image(tmp_path / "SegmentationClass" / folder / f"{stem}.png")
            (tmp_path / "Annotations" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "Annotations" / folder / f"{stem}.xml").write_text(text)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "s.txt").write_text("hall/two\nJPEGImages/garden/one.jpg\n")
    images = tmp_path / "JPEGImages"
    data = read_voc(tmp_path, [(".", "s")])
    assert [i.path for i in data.images] == [images / "hall/two.jpg", images / "garden/one.jpg"]
    assert len(read_voc(tmp_path, [(".", "*")])) == 4 and not data.notes


def test_images_in_folders_of_splits(tmp_path: Path) -> None:
    write_voc(tmp_path, TWO)
    (tmp_path / "JPEGImages" / "one.jpg").unlink()
    (tmp_path / "JPEGImages" / "two.jpg").unlink()
    save_image(tmp_path / "JPEGImages/train/two.jpg")
    save_image(tmp_path / "JPEGImages/train/three.jpg")
    save_image(tmp_path / "JPEGImages/val/one.jpg")
    assert [i.path.stem for i in read_voc(tmp_path, [(".", "*")]).images] == ["one", "two"]
    data = read_voc(tmp_path, [("JPEGImages/train", "*")])
    assert [i.path.stem for i in data.images] == ["two"]
    assert data.notes == ("1 of 2 images have no XML file and are left out: three.jpg",)


def test_other_xml_does_not_count(tmp_path: Path) -> None:
    write_voc(tmp_path, TWO)
    (tmp_path / "annotations.xml").write_text("<annotations><image/></annotations>")
    assert len(read_voc(tmp_path, [(".", "*")])) == 2


def test_xml_named_after_the_whole_image(tmp_path: Path) -> None:
    write_voc(tmp_path, TWO, {"s": "two"})
    for stem in TWO:
        (tmp_path / "Annotations" / f"{stem}.xml").rename(tmp_path / "Annotations" / f"{stem}.jpg.xml")
    assert [i.path.name for i in read_voc(tmp_path, [(".", "*")]).images] == ["one.jpg", "two.jpg"]
    assert [i.path.name for i in read_voc(tmp_path, [(".", "s")]).images] == ["two.jpg"]
    save_image(tmp_path / "JPEGImages" / "one.bmp")
    (tmp_path / "Annotations" / "one.bmp.xml").write_text(TWO["one"])
    assert [i.path.name for i in read_voc(tmp_path, [(".", "*")]).images] == ["one.bmp", "one.jpg", "two.jpg"]


def test_what_is_odd_is_said(tmp_path: Path) -> None:
    files = {
        "a": voc_xml(("Dog", (30, 2, 12, 20)), ("dog", (1, 1, 9, 9))),
        "b": voc_xml((" big\n dog ", (1, 1, 9, 9)), difficult="Unspecified"),
        "c": voc_xml(("dog", (1, 1, 9, 9)), difficult="True"),
    }
    write_voc(tmp_path, files)
    save_image(tmp_path / "JPEGImages" / "a.png")
    save_image(tmp_path / "JPEGImages" / "left over.jpg")
    data = read_voc(tmp_path, [(".", "*")])
    assert data.classes == ("Dog", "big dog", "dog")
    assert data.images[0].boxes.tolist() == [[11, 1, 30, 20], [0, 0, 9, 9]]
    assert [i.difficult.any() for i in data.images] == [False, False, True]
    assert data.notes == (
        "1 of 4 images have no XML file and are left out: left over.jpg",
        "1 of 3 XML files fit two images each, e.g. a.jpg and a.png: the first is taken",
        "1 of 4 boxes have xmax below xmin, or ymax below ymin, which are taken for each other, "
        "first a.xml: object 1 (Dog)",
        "`Dog` and `dog` are different classes here",
    )


def test_fractions_and_boxes_beyond_the_edge(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": voc_xml(("dog", (0.1, 0.2, 0.5, 0.9)), ("dog", (0, 0, 1, 1)))})
    with pytest.raises(DataError, match=r"a.xml: object 1 \(dog\): .* are these fractions of the image\?"):
        read_voc(tmp_path, [(".", "*")])
    write_voc(tmp_path, {"a": voc_xml(*[("dog", (5, 5, 60, 20))] * 3, ("dog", (1, 1, 9, 9)))})
    assert read_voc(tmp_path, [(".", "*")]).notes == (
        "3 of 4 boxes reach beyond their image, the first a.xml: object 1 (dog): they are cut at its edge",
    )


def test_sizes_in_place_of_corners_are_refused(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": voc_xml(("dog", (20, 10, 8, 9)), ("dog", (2, 3, 30, 20)))})
    with pytest.raises(
        DataError, match=r"a.xml: object 1 \(dog\): bndbox is 20, 10, 8, 9, .* width and height"
    ):
        read_voc(tmp_path, [(".", "*")])


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ('<?xml version="1.0" encoding="gb2312"?>', "gbk"),
        ("<?xml version='1.0' encoding='GBK' ?>\n", "gbk"),
        ('<?xml version="1.0" encoding="Big5"?>', "big5"),
        ('<?xml version="1.0" encoding="utf-16"?>', "utf-16"),
        ('<?xml version="1.0" encoding="utf-16"?>', "utf-8"),
        ("", "utf-8-sig"),
        ('<?xml version="1.0"?><!DOCTYPE annotation SYSTEM "voc.dtd">', "utf-8"),
    ],
)
def test_encodings(tmp_path: Path, head: str, encoding: str) -> None:
    write_voc(tmp_path, {"a": ""})
    text = head + voc_xml(("茶壺", (1, 1, 9, 9)))
    (tmp_path / "Annotations" / "a.xml").write_bytes(text.encode(encoding))
    assert read_voc(tmp_path, [(".", "*")]).classes == ("茶壺",)
    if encoding == "gbk":
        (tmp_path / "Annotations" / "a.xml").write_bytes(text.removeprefix(head).encode(encoding))
        with pytest.raises(DataError, match=r"line 1, column \d+ that are no UTF-8; .* save it as UTF-8"):
            read_voc(tmp_path, [(".", "*")])


def test_prefixes_of_namespaces(tmp_path: Path) -> None:
    text = TWO["one"].replace("</", "</v:").replace("<", "<v:").replace("<v:/v:", "</v:")
    declared = text.replace("<v:annotation>", '<v:annotation xmlns:v="http://example.org/voc">')
    of_all = TWO["one"].replace("<annotation>", '<annotation xmlns="http://example.org/voc">')
    write_voc(tmp_path, {"a": declared, "b": text, "c": of_all})
    data = read_voc(tmp_path, [(".", "*")])
    assert [image.boxes.tolist() for image in data.images] == [[[0, 0, 10, 20]]] * 3


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
        (BILLION_LAUGHS, "declares or uses entities"),
        (EXTERNAL, "declares or uses entities"),
        (
            '<!DOCTYPE a SYSTEM "voc.dtd"><a><object><name>th&eacute;</name></object></a>',
            "declares or uses entities",
        ),
        ("<?xml version='1.0' encoding='klingon'?><a/>", "is not XML"),
        ('<?xml version="1.0" encoding="UTF-16"?>' + BILLION_LAUGHS, "declares or uses entities"),
        ("<a>" * 100_000, "is not XML: no element found"),
        (voc_xml(("", (1, 1, 2, 2))), "object 1 has no name"),
        ("<a><object><name>x</name></object></a>", r"object 1 \(x\) has no bndbox"),
        (
            "<a><object><name>x</name><robndbox/></object></a>",
            r"object 1 \(x\) is a rotated box .* export upright",
        ),
        (voc_xml(("x", (1, 1, "two", 2))), r"object 1 \(x\): bndbox: xmax is `two`; expected a number"),
        (voc_xml(("x", (1, 1, 2, 2)), size="<size><width>40</width></size>"), "size is 40 x 0"),
        (voc_xml(("x", (1, 1, 2, 2)), size="<size><width>inf</width></size>"), "width is inf"),
        (voc_xml(("x", (1, 1, 2, 2)), difficult=7), "difficult is `7`; expected 0 or 1"),
        ("<annotation/>", "name zero objects"),
        ("<a>" * 100_000 + "</a>" * 100_000, "name zero objects"),
    ],
)
def test_damaged_xml_is_named(tmp_path: Path, text: str, message: str) -> None:
    write_voc(tmp_path, {"one": text})
    with pytest.raises(DataError, match=message) as caught:
        read_voc(tmp_path, [(".", "*")])
    assert "\n" not in str(caught.value)
    if "zero" not in message:
        assert "one.xml" in str(caught.value)


def test_a_part_inside_an_object_is_not_an_object(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></part>"
    text = voc_xml(("person", (1, 1, 10, 10))).replace("</object>", f"{part}</object>")
    write_voc(tmp_path, {"one": text})
    data = read_voc(tmp_path, [(".", "*")])
    assert data.classes == ("person",) and data.images[0].boxes.tolist() == [[0, 0, 10, 10]]
