"""Damaged input of every kind: one line, never a traceback.

``MSBAL_FUZZ_EXAMPLES=10000`` runs each of these as often.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_makers import coco_document, save_image, voc_xml, write_coco, write_voc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msbal.data import DetectionData, read_coco, read_voc, read_yolo, recognise
from msbal.data.coco.outlines import Outlines
from msbal.data.images.image_check import look_at_images
from msbal.errors import DataError
from msbal.evaluation.annotations import read_annotations

often = settings(
    max_examples=int(os.environ.get("MSBAL_FUZZ_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 8),
    st.floats(),
    st.text(st.characters(codec=None), max_size=6),
    st.sampled_from(
        [
            10**400,
            -(10**25),
            1e308,
            -0.0,
            "a.png",
            "../a.png",
            "/",
            "\0",
            "\ud800",
            ".",
            "1",
            " 2.0",
            "-1e3",
            "b",
            "C:\\a.png",
            "http://[",
            "x://h/b.png?c",
            "%61.png",
            "%00",
        ]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "name", "bbox", "images", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@contextmanager
def one_line() -> Iterator[None]:
    """Let a DataError of one printable line pass, and nothing else."""
    try:
        yield
    except DataError as error:
        message = str(error)
        assert "\n" not in message and len(message) < 3000
        message.encode("utf-8")


def assert_sound(data: DetectionData) -> None:
    for image in data.images:
        assert image.boxes.shape == (len(image.labels), 4) and image.boxes.dtype == np.float32
        assert np.isfinite(image.boxes).all() and np.isfinite(image.area).all()
        assert (image.boxes[:, 2:] > image.boxes[:, :2]).all()
        assert (image.boxes >= 0).all() and (image.area > 0).all()
        assert (image.boxes[:, 2:] <= [image.width, image.height]).all()
        assert ((image.labels >= 0) & (image.labels < len(data.classes))).all()
        assert image.path.is_file()
    assert len(set(data.category_ids)) == len(data.classes) == len(set(data.classes))
    json.dumps(data.to_coco())


@pytest.fixture(scope="module")
def coco_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    write_coco(folder, coco_document())
    return folder


@st.composite
def damaged_documents(draw: st.DrawFn) -> Any:
    """A good document with a few values replaced, removed or added at any depth."""
    document: Any = copy.deepcopy(coco_document())
    for _ in range(draw(st.integers(1, 4))):
        at, steps = document, draw(st.integers(0, 3))
        for _ in range(steps):
            if isinstance(at, dict) and at:
                following = at[draw(st.sampled_from(sorted(at, key=str)))]
            elif isinstance(at, list) and at:
                following = at[draw(st.integers(0, len(at) - 1))]
            else:
                break
            if not isinstance(following, (dict, list)):
                break
            at = following
        if isinstance(at, dict):
            keys = [*sorted(at, key=str), "area", "iscrowd", "ignore", "segmentation", "coco_url"]
            key = draw(st.sampled_from(keys))
            if draw(st.booleans()):
                at[key] = draw(values)
            else:
                at.pop(key, None)
        else:
            at.insert(draw(st.integers(0, len(at))), draw(values))
    return document


@often
@given(document=damaged_documents(), classes=st.none() | st.lists(st.text(max_size=4), max_size=3))
def test_damaged_coco_documents(coco_folder: Path, document: Any, classes: list[str] | None) -> None:
    path = coco_folder / "damaged.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with one_line():
        assert_sound(read_coco(path, coco_folder / "images", classes))
    with one_line():
        json.dumps(read_annotations(path).to_coco())
    with one_line():
        Outlines(path, (3, 7))
    with one_line():
        recognise(coco_folder)


@often
@given(document=values)
def test_any_json(coco_folder: Path, document: Any) -> None:
    path = coco_folder / "any.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with one_line():
        assert_sound(read_coco(path, coco_folder / "images"))


@st.composite
def damaged_bytes(draw: st.DrawFn, text: bytes) -> bytes:
    """A good file cut, with bytes changed, doubled or put in."""
    data = bytearray(text)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 12)))
        kind = draw(st.sampled_from(["cut", "remove", "put in", "double"]))
        if kind == "cut":
            del data[start:]
        elif kind == "remove":
            del data[start:stop]
        elif kind == "put in":
            data[start:stop] = draw(st.binary(max_size=6))
        else:
            data[start:start] = data[start:stop]
    return bytes(data)


@often
@given(content=damaged_bytes(json.dumps(coco_document()).encode()))
def test_damaged_json_bytes(coco_folder: Path, content: bytes) -> None:
    path = coco_folder / "bytes.json"
    path.write_bytes(content)
    with one_line():
        assert_sound(read_coco(path, coco_folder / "images"))


@pytest.fixture(scope="module")
def voc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("voc"), {"one": GOOD_XML}, {"s": "one\n"})


GOOD_XML = voc_xml(("dog", (1, 1, 10, 20)), ("cat", (5.5, 6, 40, 30)))


@often
@given(content=damaged_bytes(GOOD_XML.encode()))
def test_damaged_xml_bytes(voc_folder: Path, content: bytes) -> None:
    (voc_folder / "Annotations" / "one.xml").write_bytes(content)
    with one_line():
        assert_sound(read_voc(voc_folder, [(".", "*")]))


numbers = st.one_of(
    st.floats().map(str),
    st.integers().map(str),
    st.sampled_from(["", " ", "1e999", "-inf", "0x10", "1_0", "١", "NaN"]),
)


@often
@given(box=st.tuples(numbers, numbers, numbers, numbers), size=st.tuples(numbers, numbers))
def test_any_numbers_in_xml(voc_folder: Path, box: tuple[str, ...], size: tuple[str, str]) -> None:
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    for text in (voc_xml(("dog", box)), voc_xml(("dog", (1, 1, 2, 2)), size=sides)):  # type: ignore[arg-type]
        (voc_folder / "Annotations" / "one.xml").write_text(text, encoding="utf-8")
        with one_line():
            assert_sound(read_voc(voc_folder, [(".", "*")]))


@often
@given(content=st.binary(max_size=30) | damaged_bytes(b"one\ntwo -1\nthree  1\n"), names=st.text(max_size=5))
def test_any_set_file(content: bytes, names: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = write_voc(Path(folder), {"one": GOOD_XML}, {"s": ""})
        (root / "ImageSets" / "Main" / "s.txt").write_bytes(content)
        with one_line():
            assert_sound(read_voc(root, [(".", "s")]))
        with one_line():
            read_voc(root, [(names, names)])


@pytest.fixture(scope="module")
def yolo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("yolo")
    save_image(root / "images" / "one.jpg")
    (root / "labels").mkdir()
    return root


GOOD_YAML = b"path: .\ntrain: images\nval: [images]\nnc: 2\nnames:\n  0: cat\n  1: dog\n"


@often
@given(
    labels=st.binary(max_size=30) | damaged_bytes(b"0 0.5 0.5 0.25 1\n1 0.1 0.1 0.3 0.1 0.3 0.2\n"),
    config=st.just(GOOD_YAML) | damaged_bytes(GOOD_YAML),
    listed=st.none() | st.binary(max_size=20) | damaged_bytes(b"./images/one.jpg\n"),
)
def test_damaged_yolo(yolo_folder: Path, labels: bytes, config: bytes, listed: bytes | None) -> None:
    (yolo_folder / "labels" / "one.txt").write_bytes(labels)
    (yolo_folder / "data.yaml").write_bytes(config)
    (yolo_folder / "train.txt").write_bytes(listed or b"")
    with one_line():
        assert_sound(read_yolo(yolo_folder, Path("data.yaml"), [Path("train.txt" if listed else "images")]))
    with one_line():
        recognise(yolo_folder)


# -- hostile on purpose ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../../../../../../etc/passwd", "/etc/passwd", "/dev/zero", "images/../../secret.txt", "a.png/../../x"],
)
def test_a_file_name_that_leaves_the_folder_reads_no_secret(tmp_path: Path, name: str) -> None:
    """It may be an image elsewhere, as in many a data set; what is none is refused and not shown."""
    (tmp_path / "secret.txt").write_text("root:x:0:0")
    document = coco_document()
    folder = tmp_path / "data"
    write_coco(folder, document)
    document["images"][0]["file_name"] = name
    (folder / "instances.json").write_text(json.dumps(document))
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(DataError) as caught:
        data = read_coco(folder / "instances.json", folder / "images")
        look_at_images(data, "data")
    assert "\n" not in str(caught.value) and "root:" not in str(caught.value)
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><object><name>&x;</name></object></annotation>',
        "<!DOCTYPE a [<!ENTITY a0 'x'>"
        + "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 12))
        + "]><annotation><object><name>&a11;</name></object></annotation>",
    ],
    ids=["outside", "bomb"],
)
def test_hostile_xml(tmp_path: Path, text: str) -> None:
    root = write_voc(tmp_path, {"one": text}, {"s": "one\n"})
    with pytest.raises(DataError) as caught:
        read_voc(root, [(".", "s")])
    assert "\n" not in str(caught.value) and "root:" not in str(caught.value)
