from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msbal.data import DetectionData, ImageRecord, size_up


def data(count: int, width: int, height: int) -> DetectionData:
    nothing = np.zeros(0)
    records = [
        ImageRecord(
            i, Path(f"{i}.png"), width, height, np.zeros((0, 4), np.float32), nothing.astype(np.int64),
            nothing.astype(np.float32), nothing.astype(bool), nothing.astype(bool),
        )
        for i in range(count)
    ]  # fmt: skip
    return DetectionData("some", ("a",), (1,), tuple(records))


@pytest.mark.parametrize(
    ("width", "height", "side", "longest"),
    [
        (640, 480, 480, 800),
        (480, 640, 480, 800),
        (4000, 3000, 800, 1333),
        (50, 40, 128, 213),
        (100, 300, 128, 213),
    ],
)
def test_images_keep_about_their_own_size(width: int, height: int, side: int, longest: int) -> None:
    size = size_up(data(9, width, height))
    assert (size.side, size.longest) == (side, longest)


def test_a_small_data_set_gets_more_epochs() -> None:
    few, many = size_up(data(10, 64, 64)), size_up(data(100_000, 64, 64))
    assert (few.batch, few.epochs, few.iterations, few.warmup) == (4, 500, 1500, 300)
    assert (many.batch, many.epochs, many.iterations, many.warmup) == (4, 12, 300_000, 500)


def test_a_batch_is_no_larger_than_the_data_set() -> None:
    assert size_up(data(3, 64, 64)).batch == 3
