from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msbal.data import DetectionData, ImageRecord, size_range, size_up


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


def with_boxes(sides: list[float], labels: list[int], crowds: int = 0) -> DetectionData:
    """One image without boxes, and one of 200 x 100 pixels with square boxes, the last ones crowds."""
    some = data(1, 200, 100)
    image = replace(
        some.images[0],
        boxes=np.array([[5, 5, 5 + side, 5 + side] for side in sides], np.float32),
        labels=np.array(labels, np.int64),
        crowd=np.arange(len(sides)) >= len(sides) - crowds,
    )
    return replace(some, classes=("a", "b"), images=(*some.images, image))


def test_the_range_of_boxes_is_that_of_the_resized_image_without_crowds() -> None:
    some = with_boxes([10, 40, 90], [0, 0, 0], crowds=1)
    assert size_range(some, 50, 1000) == (5, 20)
    assert size_range(some, 50, 50) == (2.5, 10)
    assert size_range(data(2, 20, 10), 50, 50) is None


def test_a_few_odd_boxes_do_not_widen_the_range_but_a_class_of_few_boxes_does() -> None:
    sides = [1.0, *[30.0] * 98, 95.0]
    assert size_range(with_boxes(sides, [0] * 100), 100, 200) == (30, 30)
    assert size_range(with_boxes(sides, [0] * 99 + [1]), 100, 200) == (30, 95)
