"""Images are opened before a run needs them; the backends' own reading of them is in their contract."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from msbal.data import DetectionData, ImageRecord, read_pixels
from msbal.errors import DataError
from msbal.spec import parse_spec
from msbal.training import claim, execute, prepare
from msbal.training.images import BesideTraining, ImageCheck
from msbal.ui.monitor import make_monitor
from msbal.ui.state import RunHeader

NONE = np.zeros((0, 4), np.float32)


def data_set(folder: Path, count: int, orientation: int = 1) -> DetectionData:
    records = []
    exif = Image.Exif()
    exif[0x0112] = orientation
    for n in range(count):
        path = folder / f"{n}.jpg"
        pixels = np.random.default_rng(n).integers(0, 256, (4, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((80, 40)).save(path, exif=exif)
        flags = np.zeros(0, np.bool_)
        records.append(ImageRecord(n, path, 80, 40, NONE, flags.astype(np.int64), NONE[:, 0], flags, flags))
    return DetectionData("photos", ("thing",), (1,), tuple(records))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 8])


class Reader:
    """A detector whose framework reads images in its own way."""

    def __init__(self, read: Callable[[NDArray[np.uint8]], Any]) -> None:
        self._read = read

    def read_images(self, record: ImageRecord) -> Sequence[NDArray[np.uint8]]:
        return [self._read(read_pixels(record.path, record.width, record.height))]


def check(data: DetectionData, detector: Any = None) -> ImageCheck:
    return ImageCheck({"data.val": data}, detector, "hoops")


def test_half_an_image_is_named_and_counted(tmp_path: Path) -> None:
    data = data_set(tmp_path, 5)
    seen: list[tuple[int, int]] = []
    check(data).before_training(lambda done, total: seen.append((done, total)))
    assert seen == [(n, 5) for n in range(1, 6)]
    for n in (1, 3):
        cut(data.images[n].path)
    with pytest.raises(DataError, match=r"data.val: .*1.jpg .*truncated.* \(2 of 5 images .* also 3.jpg\)"):
        check(data).before_training()


def failing(pixels: NDArray[np.uint8]) -> Any:
    raise RuntimeError("no such decoder")


@pytest.mark.parametrize(
    ("read", "orientation", "problem"),
    [
        (lambda p: p[::-1, ::-1], 3, "0.jpg is annotated as shown, but hoops does not turn it as .* 3 says"),
        (lambda p: p[:, :, ::-1], 1, "0.jpg .JPEG, RGB. is read wrongly by hoops"),
        (lambda p: p[:20], 1, "0.jpg .JPEG, RGB. is read wrongly by hoops"),
        (lambda p: p // 2, 1, "is read wrongly by hoops"),
        (failing, 1, "0.jpg cannot be read by hoops: no such decoder"),
    ],
)
def test_what_a_framework_reads_otherwise_is_refused(
    tmp_path: Path, read: Callable[[NDArray[np.uint8]], Any], orientation: int, problem: str
) -> None:
    data = data_set(tmp_path, 2, orientation)
    check(data, Reader(lambda pixels: pixels + (pixels < 255))).before_training()  # decoders round
    with pytest.raises(DataError, match=problem):
        check(data, Reader(read)).before_training()


def xmp(path: Path) -> None:
    tag = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="3"/>'
    with Image.open(path) as image:
        image.copy().save(path, exif=b"", xmp=b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + tag + b"</x:xmpmeta>")


def white(path: Path) -> None:
    with Image.open(path) as image:
        Image.new("RGB", image.size, "white").save(path, exif=image.info["exif"])


@pytest.mark.parametrize("proven_by", ["exif", "white"])
def test_an_image_is_not_proven_by_those_that_say_nothing_of_it(tmp_path: Path, proven_by: str) -> None:
    """An orientation in XMP is not read by each that reads EXIF's; a white image looks the same either way."""
    data = data_set(tmp_path, 40, orientation=3)
    last = data.images[-1].path
    for image in data.images[:-1]:
        if proven_by == "white":
            white(image.path)
    if proven_by == "exif":
        check(data, Reader(lambda pixels: pixels)).before_training()
        xmp(last)

    class Half(Reader):
        def read_images(self, record: ImageRecord) -> Sequence[NDArray[np.uint8]]:
            pixels = read_pixels(record.path, record.width, record.height)
            return [pixels[::-1, ::-1] if record.path == last else pixels]

    with pytest.raises(DataError, match=r"39.jpg is annotated as shown, but hoops does not turn it"):
        check(data, Half(lambda pixels: pixels)).before_training()


def test_size_and_depth_of_what_is_left_are_looked_at_too(tmp_path: Path) -> None:
    data = data_set(tmp_path, 2)
    other = replace(data.images[0], width=81)
    deep = tmp_path / "deep.png"
    Image.fromarray(np.zeros((40, 80), np.uint16)).save(deep)
    looked_at = check(data)
    assert looked_at.problem(data.images[0]) is None
    assert "its annotation says 81 x 40" in str(looked_at.problem(other))
    assert "16 bits" in str(looked_at.problem(replace(data.images[1], path=deep)))


def test_what_a_sample_leaves_out_is_looked_into_beside_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msbal.training.images.spread", lambda count, limit=0: range(0, count, 2))
    data = data_set(tmp_path, 6)
    told = threading.Event()
    with BesideTraining(check(data), told.set) as beside:
        pass
    assert beside.error is None and not told.is_set()
    cut(data.images[3].path)
    looked_at = check(data)
    assert [image.id for image in looked_at.rest()] == [1, 3, 5]
    looked_at.before_training()
    with BesideTraining(looked_at, told.set) as beside:
        assert told.wait(30)
    assert beside.error is not None and "3.jpg" in str(beside.error) and "truncated" in str(beside.error)
    assert beside.error.exit_code == 2


def test_a_run_ends_where_an_image_that_is_left_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")
    monkeypatch.setattr("msbal.training.images.spread", lambda count, limit=0: range(0, count, 2))
    data = data_set(tmp_path, 4)
    documents = data.to_coco()
    documents["annotations"] = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [5, 5, 30, 30]} for n in range(4)
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(documents), encoding="utf-8")
    spec = parse_spec(
        {
            "backend": "torchvision",
            "model": {"name": "retinanet", "min_size": 64, "max_size": 64, "backbone": "resnet18", "fpn_channels": 8},
            "data": {"format": "coco", "train": {"annotations": "boxes.json"}, "val": {"annotations": "boxes.json"}},
            "schedule": {"iterations": 100_000, "batch_size": 2, "optimizer": {"lr": 1e-6}},
            "balance": {"strategy": "equal", "interval": 10},
            "evaluate": {"every": 100_000},
            "device": "cpu",
            "output": str(tmp_path / "run"),
        },
        base=tmp_path,
    )  # fmt: skip
    plan = prepare(spec)
    # Of the images that nobody has looked at yet, the last is read by the training, too: it stays whole for it.
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(data.images[3].path.read_bytes())
    cut(broken)
    assert plan.val is not None
    val = replace(plan.val, images=(*plan.val.images[:3], replace(plan.val.images[3], path=broken)))
    plan.val, plan.images = val, ImageCheck({"data.val": val}, plan.detector, "torchvision")
    run = claim(spec, resume=False, force=False)
    with pytest.raises(DataError, match=r"broken.jpg.*truncated"):
        execute(plan, run, make_monitor("quiet", Console(), RunHeader("", "", "", "", 1, "")))
    assert list(run.checkpoints.iterdir()), "what was trained is kept"
