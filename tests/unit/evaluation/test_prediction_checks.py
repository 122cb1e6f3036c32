from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from detection_scenes import HEIGHT, WIDTH, make_scenes

from msbal.errors import DataError
from msbal.evaluation import evaluate
from msbal.evaluation.prediction_checks import oddities
from msbal.evaluation.predictions import read_predictions, sift

DATA, _MADE = make_scenes(seed=12, images=12)
PREDICTIONS: list[dict[str, Any]] = [json.loads(text) for text in dict.fromkeys(map(json.dumps, _MADE))]
K = len(DATA.classes)
FROM_ONE = replace(DATA, category_ids=tuple(range(1, K + 1)))
FROM_ZERO = replace(DATA, category_ids=tuple(range(K)))
LABEL = {id_: label for label, id_ in enumerate(DATA.category_ids)}


def boxes(change: Callable[[float, float, float, float], list[float]]) -> list[dict[str, Any]]:
    return [{**entry, "bbox": change(*entry["bbox"])} for entry in PREDICTIONS]


def remarks_on(entries: list[dict[str, Any]]) -> list[str]:
    return oddities(DATA, sift(entries, DATA)[0])


def test_good_predictions_are_not_odd() -> None:
    assert remarks_on(PREDICTIONS) == []


@pytest.mark.parametrize(
    ("entries", "remark"),
    [
        (boxes(lambda x, y, w, h: [x, y, x + w, y + h]), "x1, y1, x2, y2 instead of x, y, width, height?"),
        (boxes(lambda x, y, w, h: [2 * x, 2 * y, 2 * w, 2 * h]), "pixels of an image of another size?"),
        (
            boxes(lambda x, y, w, h: [x / WIDTH / 2, y / HEIGHT / 2, w / WIDTH / 2, h / HEIGHT / 2]),
            "all coordinates are at most 1: are they shares of the image instead of pixels?",
        ),
        ([{**entry, "score": 0.5} for entry in PREDICTIONS], "have the score 0.5"),
        (
            [{**entry, "score": 97.5} for entry in PREDICTIONS[:1]] + PREDICTIONS[1:],
            "scores reach 97.5, not 1",
        ),
        ([], "12 of 12 images have no prediction"),
        (
            [entry for entry in PREDICTIONS if entry["image_id"] == DATA.images[0].id],
            "11 of 12 images have no prediction",
        ),
    ],
    ids=["corners", "other size", "shares", "one score", "per cent", "none", "one image"],
)
def test_what_looks_odd_is_said_once(entries: list[dict[str, Any]], remark: str) -> None:
    found = remarks_on(entries)
    assert sum(remark in line for line in found) == 1, found


def test_exact_copies_are_counted_and_stay() -> None:
    near = {**PREDICTIONS[0], "bbox": [*PREDICTIONS[0]["bbox"][:3], 1234.5]}
    entries = [*PREDICTIONS, near, PREDICTIONS[0], PREDICTIONS[0], PREDICTIONS[7]]
    alone, _, _ = sift(PREDICTIONS, DATA)
    detections, _, odd = sift(entries, DATA)
    assert not odd.lines() and len(detections) == len(alone) + 4
    lines = oddities(DATA, detections)
    assert lines[0].startswith(f"3 of {len(entries)} predictions repeat another")


def test_nothing_is_said_of_boxes_in_images_of_unknown_size() -> None:
    unknown = replace(DATA, images=tuple(replace(image, width=0, height=0) for image in DATA.images))
    entries = boxes(lambda x, y, w, h: [2 * x, 2 * y, 2 * w, 2 * h])
    assert oddities(unknown, sift(entries, unknown)[0]) == []


@pytest.mark.parametrize(
    ("data", "first", "question"),
    [
        (FROM_ONE, 0, f"0 to {K - 1}, those of `made up` from 1 to {K}: are they numbers of classes, counted from 0?"),
        (FROM_ZERO, 1, f"1 to {K}, those of `made up` from 0 to {K - 1}: are they numbers of classes, counted from 1?"),
        (FROM_ONE, 1, None),
        (FROM_ZERO, 0, None),
        (DATA, 0, "counted from 0?"),
    ],
    ids=["0 for 1", "1 for 0", "1 for 1", "0 for 0", "0 for gaps"],
)  # fmt: skip
def test_category_ids_shifted_by_one(data: Any, first: int, question: str | None) -> None:
    entries = [{**entry, "category_id": LABEL[entry["category_id"]] + first} for entry in PREDICTIONS]
    _, _, odd = sift(entries, data)
    if question is None:
        assert odd.lines() == []
    else:
        assert odd.lines()[-1].endswith(question)


def test_a_file_with_only_the_class_zero_asks_the_same(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps([{**entry, "category_id": 0} for entry in PREDICTIONS]))
    with pytest.raises(DataError, match="counted from 0"):
        read_predictions(path, FROM_ONE)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_encoding_of_json_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "found.json"
    path.write_bytes(json.dumps(PREDICTIONS).encode(encoding))
    kept, _, odd = read_predictions(path, DATA)
    assert kept == PREDICTIONS and not odd.lines()


STAMP = 1_717_171_717_171_717_171  # more digits than a float64 has


def test_ids_of_63_bits_are_told_apart_unless_they_were_floats() -> None:
    data = replace(DATA, images=tuple(replace(i, id=STAMP + n) for n, i in enumerate(DATA.images)))
    new = {image.id: STAMP + n for n, image in enumerate(DATA.images)}
    entries = [{**entry, "image_id": new[entry["image_id"]]} for entry in PREDICTIONS]
    assert evaluate(data, entries) == evaluate(FROM_ONE_ORDER, FROM_ONE_ORDER_ENTRIES)
    odd_ones = [
        {**entries[0], "image_id": float(entries[0]["image_id"])},
        {**entries[0], "image_id": entries[0]["image_id"] + 2**63},
    ]
    detections, keep, odd = sift([*odd_ones, *entries], data)
    assert keep.tolist() == list(range(2, len(entries) + 2))
    assert [data.images[i].id for i in detections.image.tolist()] == [entry["image_id"] for entry in entries]
    assert odd.dropped == {
        "`image_id` is written as a float and beyond 2^53, where digits are lost": 1,
        "the image is unknown": 1,
    }


# The same images with small ids in the same order, which ranks equal scores.
FROM_ONE_ORDER = replace(DATA, images=tuple(replace(i, id=n) for n, i in enumerate(DATA.images)))
_NUMBER = {image.id: n for n, image in enumerate(DATA.images)}
FROM_ONE_ORDER_ENTRIES = [{**entry, "image_id": _NUMBER[entry["image_id"]]} for entry in PREDICTIONS]
