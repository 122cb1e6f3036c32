from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from msbal.data import DetectionData, ImageRecord, box_sides, fit_levels, size_up


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


def with_boxes(*sides: float) -> DetectionData:
    some = data(1, 200, 100)
    boxes = np.array([[5, 5, 5 + side, 5 + side] for side in sides], np.float32)
    crowd = np.zeros(len(sides), np.bool_)
    crowd[-1] = True
    image = replace(some.images[0], boxes=boxes, crowd=crowd)
    return replace(some, images=(*some.images, image))


def test_sides_of_boxes_are_those_of_the_resized_image() -> None:
    some = with_boxes(10, 40, 90)  # the last one a crowd
    assert box_sides(some, 50, 1000).tolist() == [5, 20]
    assert box_sides(some, 50, 50).tolist() == [2.5, 10]
    assert box_sides(data(2, 20, 10), 50, 50).tolist() == []


def test_levels_get_typical_boxes_from_small_to_large() -> None:
    assert fit_levels(np.arange(101.0), 5) == pytest.approx([6, 27.5, 50, 72.5, 95])
    assert fit_levels(np.array([30.0] * 50 + [1000.0]), 3) == pytest.approx([30, 33, 36.3])
    assert fit_levels(np.full(9, 0.5), 2) == pytest.approx([6, 6.6])
    assert fit_levels(np.full(2, 30.0), 3) is None
