"""Images are opened before a run needs them; the backends' own reading of them is in their contract."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from msbal.data import DetectionData, ImageRecord
from msbal.data.pictures import read_pixels
from msbal.errors import DataError
from msbal.training.images import BesideTraining, ImageCheck

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


def test_what_a_sample_leaves_out_is_looked_into_beside_the_training(tmp_path: Path) -> None:
    one = data_set(tmp_path, 1)
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(one.images[0].path.read_bytes())
    cut(bad)
    many = list(one.images) * 1003
    looked_at = check(DetectionData("photos", ("thing",), (1,), tuple(many)))
    left = list(looked_at.rest())
    assert len(left) == 3

    # One that is left is bad: the sample passes, the rest does not.
    index = next(i for i in range(1003) if not _is_in_sample(i))
    many[index] = ImageRecord(
        9, bad, 80, 40, NONE, one.images[0].labels, NONE[:, 0], one.images[0].crowd, one.images[0].crowd
    )
    looked_at = check(DetectionData("photos", ("thing",), (1,), tuple(many)))
    looked_at.before_training()
    told = threading.Event()
    with BesideTraining(looked_at, told.set) as beside:
        assert told.wait(30)
    assert beside.error is not None and "bad.jpg" in str(beside.error) and "truncated" in str(beside.error)
    assert beside.error.exit_code == 2


def _is_in_sample(index: int) -> bool:
    from msbal.data.check import spread

    return index in spread(1003)
