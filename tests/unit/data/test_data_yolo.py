from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_makers import save_image
from pydantic import TypeAdapter, ValidationError

from msbal.data import load, read_yolo, recognise, remarks
from msbal.data.yolo.class_names import read_names
from msbal.errors import DataError
from msbal.spec.data import DataSpec

IMAGES = [Path("images")]


def write(folder: Path, labels: dict[str, str | None], names: str = "cat\ndog\n") -> Path:
    """Images of 40 x 30, a label file for each that has a text, and ``classes.txt``."""
    for stem, text in labels.items():
        save_image(folder / "images" / f"{stem}.jpg")
        if text is not None:
            (folder / "labels").mkdir(exist_ok=True)
            (folder / "labels" / f"{stem}.txt").write_text(text)
    (folder / "classes.txt").write_text(names)
    return folder


def test_fractions_become_pixels(tmp_path: Path) -> None:
    write(tmp_path, {"a": "1 0.5 0.5 0.5 0.2\n\n 0\t0.1 0.1 0.1 0.1 \r\n", "b": "", "c": "0.0 0.5 0.5 1 1"})
    data = read_yolo(tmp_path, Path("classes.txt"), IMAGES)
    assert (data.name, data.classes, data.category_ids) == ("images", ("cat", "dog"), (1, 2))
    a, b, c = data.images
    assert (a.id, a.path, a.width, a.height) == (1, tmp_path / "images/a.jpg", 40, 30)
    assert a.boxes == pytest.approx(np.array([[10, 12, 30, 18], [2, 1.5, 6, 4.5]]))
    assert a.labels.tolist() == [1, 0] and a.area == pytest.approx(np.array([120, 12]))
    assert b.boxes.shape == (0, 4)
    assert c.boxes.tolist() == [[0, 0, 40, 30]]
    assert not (data.notes or data.dropped or a.difficult.any() or a.crowd.any())


def test_the_size_is_that_of_the_image_as_shown(tmp_path: Path) -> None:
    from PIL import Image

    write(tmp_path, {"a": "0 0.5 0.5 0.5 0.5"})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "images/a.jpg", exif=exif)
    (image,) = read_yolo(tmp_path, Path("classes.txt"), IMAGES).images
    assert (image.width, image.height) == (30, 40)
    assert image.boxes.tolist() == [[7.5, 10, 22.5, 30]]


def test_outlines_and_key_points(tmp_path: Path) -> None:
    write(tmp_path, {"a": "0 0.25 0.1 0.5 0.2 0.3 0.6\n1 0.1 0.1 0.3 0.1 0.3 0.2 0.1 0.2\n"})
    (image,) = read_yolo(tmp_path, Path("classes.txt"), IMAGES).images
    assert image.boxes == pytest.approx(np.array([[10, 3, 20, 18], [4, 3, 12, 6]]))
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.5 0.2 0.9 0.9 0.1 0.1\n")
    (tmp_path / "data.yaml").write_text("kpt_shape: [2, 2]\nnames: [cat]\n")
    (image,) = read_yolo(tmp_path, Path("data.yaml"), IMAGES).images
    assert image.boxes == pytest.approx(np.array([[10, 12, 30, 18]]))


def test_what_is_odd_is_said(tmp_path: Path) -> None:
    labels = {
        "a": "0 0.5 0.5 0.5 0.5 0.9\n0 0.5 0.5 0.5 0.5\n0  0.5 0.5 0.5 0.5\n",
        "b": None,
        "c": "0 0.5 0.5 0 0.2\n1 0.5 0.5 nan 0.2\n1 1.5 0.5 0.2 0.2\n0 0.9 0.5 0.4 0.4",
    }
    write(tmp_path, labels, "cat\nCat")
    save_image(tmp_path / "images/a.png")
    (tmp_path / "labels/gone.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "labels/classes.txt").write_text("cat")
    data = read_yolo(tmp_path, Path("classes.txt"), IMAGES)
    assert data.notes == (
        "1 of 4 images have no label file, and count as images without boxes: b.jpg",
        "no image is there for 1 of the label files: gone.txt",
        "1 of 2 label files are those of several images, e.g. of a.jpg and a.png",
        "2 of 10 lines repeat one before them and are left out: a.txt: line 3 and 1 more",
        "2 of 10 lines have a sixth column, which is not used: a.txt: line 1 and 1 more",
        "`cat` and `Cat` are different classes here",
    )
    assert [(d.image, d.annotation, d.reason) for d in data.dropped] == [
        ("c.jpg", "c.txt: line 1", "no width or height: 20, 12, 20, 18"),
        ("c.jpg", "c.txt: line 2", "not finite: nan, 12, nan, 18"),
        ("c.jpg", "c.txt: line 3", "outside the image: 56, 12, 64, 18"),
    ]
    assert data.images[-1].boxes == pytest.approx(np.array([[28, 9, 40, 21]]))


def test_boxes_beyond_the_edge(tmp_path: Path) -> None:
    write(tmp_path, {"a": "\n".join(f"0 0.9 0.{n} 0.5 0.1" for n in (2, 4, 6))})
    data = read_yolo(tmp_path, Path("classes.txt"), IMAGES)
    assert data.notes == (
        "3 of 3 boxes reach beyond their image, the first a.txt: line 1: they are cut at its edge",
    )
    assert data.images[0].boxes[:, 2].tolist() == [40, 40, 40]


def test_corners_for_centres_are_said(tmp_path: Path) -> None:
    write(tmp_path, {"a": "0 0.1 0.2 0.9 0.8\n0 0.3 0.1 0.7 0.9\n0 0 0 0.5 0.5"})
    data = read_yolo(tmp_path, Path("classes.txt"), IMAGES)
    assert data.notes == (
        "3 of 3 boxes reach beyond their image, the first a.txt: line 1: they are cut at its edge",
    )


def test_classes(tmp_path: Path) -> None:
    write(tmp_path, {"a": "0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n2 0.5 0.5 0.5 0.5"}, "cat\ndog\nowl")
    data = read_yolo(tmp_path, Path("classes.txt"), IMAGES, ["owl", "cat"])
    assert data.images[0].labels.tolist() == [1, 0] and data.other_classes == {"dog": 1}
    assert "1 of 3 boxes is left out, of classes that are not" in remarks(data)[0]
    with pytest.raises(DataError, match=r"classes: `owls` is no class of .*did you mean `owl`\?"):
        read_yolo(tmp_path, Path("classes.txt"), IMAGES, ["owls"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.5", r"line 2 is `0 0.5 0.5 0.5`; expected `class cx cy w h`"),
        ("0 0.5 0.5 0.5 0.5 0.5 0.5 0.5", "line 2 .* expected `class cx cy w h`, or `class x1 y1"),
        ("cat 0.5 0.5 0.5 0.5", r"line 2 is `cat 0.5"),
        ("0,0.5,0.5,0.5,0.5", r"line 2 is `0,0.5"),
        ("2 0.5 0.5 0.5 0.5", r"line 2 has class 2; expected one of 0 \(cat\), 1 \(dog\)"),
        ("-1 0.5 0.5 0.5 0.5", "line 2 has class -1"),
        ("0.5 0.5 0.5 0.5 0.5", "line 2 has class 0.5"),
        ("nan 0.5 0.5 0.5 0.5", "line 2 is `nan"),
        ("1e999 0.5 0.5 0.5 0.5", "line 2 is `1e999"),
        ("0 20 12 10 6", r"line 2 is `0 20 12 10 6`; expected fractions .* are these pixels\?"),
        ("0 0.5 0.5 inf 0.5", "line 2 is .* expected fractions"),
        ("\udcff\x00", "line 2 is"),
    ],
)
def test_damaged_labels_are_named(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path, {"a": None, "b": "0 0.5 0.5 0.5 0.5\n"})
    (tmp_path / "labels/a.txt").write_bytes(b"0 0.5 0.5 0.5 0.5\n" + line.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=rf"labels.a.txt: {message}") as caught:
        read_yolo(tmp_path, Path("classes.txt"), IMAGES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "text", "names"),
    [
        ("data.yaml", "names: [cat, 'no', 007]", ["cat", "no", "007"]),
        ("data.yaml", "names:\n  0: on\n  2: big  dog", ["on", "big dog"]),
        ("data.yaml", "nc: 2", ["class_0", "class_1"]),
        ("data.yaml", "\ufeffnames: [茶壺]", ["茶壺"]),
        ("obj.names", "cat\r\n dog \n\n", ["cat", "dog"]),
        ("classes.txt", "\ufeffcat", ["cat"]),
    ],
)
def test_names(tmp_path: Path, file: str, text: str, names: list[str]) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert list(read_names(tmp_path / file).names.values()) == names


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("data.yaml", b"train: x", "has no `names`; expected a list of names"),
        ("data.yaml", b"names: 3", "`names` is '3'"),
        ("data.yaml", b"names: {a: cat}", "`names` is {'a': 'cat'}"),
        ("data.yaml", b"names: [[cat]]", "`names` is"),
        ("data.yaml", b"names: [cat, cat]", "names `cat` twice"),
        ("data.yaml", b"names: [", "is not YAML: "),
        ("data.yaml", b"- names", "has no keys"),
        ("data.yaml", b"\xff\xff", "is not YAML"),
        ("data.yaml", b"a: &a [x]\nnames: [*a, *a]", "`names` is"),
        ("classes.txt", b"", "names zero classes"),
        ("classes.txt", b"cat\n\ndog", "class 1 has an empty name"),
        ("classes.txt", b"\xff", "is not UTF-8"),
    ],
)
def test_damaged_names(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_names(tmp_path / file)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images", "labels"),
        ("images/train", "labels/train"),
        ("train/images", "train/labels"),
        ("Images", "Labels"),
        ("JPEGImages", "labels"),
        ("photos", "photos"),
        ("images", "images"),
        ("photos", "labels"),
        ("images/of images/deep/er", "images/of images/deep/er"),
        ("images/a/images/b", "images/a/labels/b"),
    ],
)
def test_where_labels_lie(tmp_path: Path, images: str, labels: str) -> None:
    save_image(tmp_path / images / "a.b.jpg")
    (tmp_path / labels).mkdir(parents=True, exist_ok=True)
    (tmp_path / labels / "a.b.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "classes.txt").write_text("cat")
    for place in (images, images.partition("/")[0]):  # with all below
        assert read_yolo(tmp_path, Path("classes.txt"), [Path(place)]).box_count == 1


@pytest.mark.parametrize(
    "line",
    ["images/{}", "./images/{}", "/home/me/things/images/{}", "C:\\things\\images\\{}", "data/images/{}"],
)
def test_lists_of_images(tmp_path: Path, line: str) -> None:
    write(tmp_path, {"a": "0 0.5 0.5 0.5 0.5", "b": "", "c": ""})
    (tmp_path / "some.txt").write_text("\r\n".join(line.format(name) for name in ("b.jpg", "a.jpg")))
    data = read_yolo(tmp_path, Path("classes.txt"), [Path("some.txt")])
    assert [image.path.name for image in data.images] == ["b.jpg", "a.jpg"] and data.box_count == 1


def test_missing_files(tmp_path: Path) -> None:
    write(tmp_path, {"a": None})
    names = Path("classes.txt")
    with pytest.raises(
        DataError, match=r"none of its 1 images has a label file; expected labels/a.txt in place"
    ):
        read_yolo(tmp_path, names, IMAGES)
    with pytest.raises(DataError, match=r"nowhere: does not exist; expected a folder of images"):
        read_yolo(tmp_path, names, [Path("nowhere")])
    with pytest.raises(DataError, match=r"other.txt: does not exist; expected the names of the classes"):
        read_yolo(tmp_path, Path("other.txt"), IMAGES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: has no images"):
        read_yolo(tmp_path, names, [Path("empty")])
    (tmp_path / "list.txt").write_text("images/a.jpg\nimages/b.jpg\n../valid/images/a.jpg\n")
    with pytest.raises(
        DataError, match=r"2 of the 3 images that it lists are missing: images/b.jpg, ../valid"
    ):
        read_yolo(tmp_path, names, [Path("list.txt")])
    with pytest.raises(DataError, match=r"images/a.jpg is named more than once"):
        read_yolo(tmp_path, names, [*IMAGES, *IMAGES])


def test_the_spec(tmp_path: Path) -> None:
    write(tmp_path, {"a": "0 0.5 0.5 0.5 0.5", "b": "1 0.5 0.5 0.5 0.5"})
    section = {"format": "yolo", "root": tmp_path, "names": "classes.txt", "train": {"images": ["images"]}}
    spec: DataSpec = TypeAdapter(DataSpec).validate_python(section)
    assert load(spec, "train").box_count == 2 and load(spec, "val") is None
    held: DataSpec = TypeAdapter(DataSpec).validate_python({**section, "holdout": 0.5})
    val = load(held, "val")
    assert val is not None and len(val) == 1 and val.classes == ("cat", "dog")
    with pytest.raises(ValidationError, match="exclude each other"):
        TypeAdapter(DataSpec).validate_python({**section, "holdout": 0.5, "val": section["train"]})
    with pytest.raises(ValidationError, match="images"):
        TypeAdapter(DataSpec).validate_python({**section, "train": {"images": []}})


def splits(folder: Path, *names: str) -> None:
    for name in names:
        write(folder / name, {name: "0 0.5 0.5 0.5 0.5"})
        (folder / name / "classes.txt").unlink()


def test_a_config_names_what_is_where(tmp_path: Path) -> None:
    splits(tmp_path, "train", "train2", "valid", "test")
    (tmp_path / "data.yaml").write_text(
        "path: /nowhere\ntrain: [../train/images, train2]\nval: /home/x/valid/images\ntest: test/images\nnames: [cat]"
    )
    found = recognise(tmp_path)
    assert found.data == {
        "format": "yolo",
        "root": str(tmp_path),
        "names": "data.yaml",
        "train": {"images": ["train/images", "train2"]},
        "val": {"images": ["valid/images"]},
    }
    assert found.notes == ("there, and not used: test/images",)


def test_a_config_names_what_is_not_there(tmp_path: Path) -> None:
    splits(tmp_path, "train")
    (tmp_path / "images").mkdir()
    save_image(tmp_path / "images" / "other.jpg")
    config = tmp_path / "data.yaml"
    config.write_text("train: ../train/images\nval: ../valid/images\nnames: [cat]")
    found = recognise(tmp_path)
    assert found.data["train"] == {"images": ["train/images"]} and found.data["holdout"] == 0.2
    assert found.notes == ("val of data.yaml (`../valid/images`) is not there, or without images",)
    config.write_text("train: ../first/images2\nval: ../train/images\nnames: [cat]")
    with pytest.raises(DataError, match=r"data.yaml: train: `../first/images2` is not there"):
        recognise(tmp_path)
    config.write_text("val: ../train/images\nnames: [cat]")
    with pytest.raises(DataError, match=r"names no images to train on"):
        recognise(tmp_path)


def test_labels_without_names(tmp_path: Path) -> None:
    write(tmp_path, {"a": "0 0.5 0.5 0.5 0.5"})
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"nothing that names the classes; expected classes.txt"):
        recognise(tmp_path)


def test_lists_of_names_that_disagree(tmp_path: Path) -> None:
    write(tmp_path / "train", {"a": "0 0.5 0.5 0.5 0.5"}, "cat\n")
    write(tmp_path / "val", {"b": "1 0.5 0.5 0.5 0.5"}, "cat\ndog\n")
    assert recognise(tmp_path).data["names"] == "val/classes.txt"
    (tmp_path / "train/classes.txt").write_text("dog")
    with pytest.raises(
        DataError, match=r"train/classes.txt: names other classes \(dog\) than .*\(cat, dog\)"
    ):
        recognise(tmp_path)


def test_labels_without_images(tmp_path: Path) -> None:
    write(tmp_path, {"a": "0 0.5 0.5 0.5 0.5"})
    (tmp_path / "images" / "a.jpg").unlink()
    with pytest.raises(
        DataError, match=r"has YOLO labels \(labels/\) and none of their images; expected images/a.jpg"
    ):
        recognise(tmp_path)


def test_text_files_beside_images_need_not_be_labels(tmp_path: Path) -> None:
    write(tmp_path, {"a": "a photo of a cat"})
    with pytest.raises(DataError, match="no data set that msbal knows"):
        recognise(tmp_path)
