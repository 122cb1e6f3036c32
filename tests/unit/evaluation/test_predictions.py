from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from detection_scenes import make_scenes
from hypothesis import given, settings
from hypothesis import strategies as st

from msbal.errors import DataError
from msbal.evaluation import evaluate
from msbal.evaluation.predictions import read_predictions, sift

DATA, PREDICTIONS = make_scenes(seed=1, images=6)
GOOD = PREDICTIONS[0]


def with_(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in GOOD.items() if k != key}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (with_(score=math.nan), "the score is NaN or infinite"),
        (with_(score=math.inf), "the score is NaN or infinite"),
        (with_(score="0.5"), "`score` is not a number"),
        (with_(score=None), "`score` is not a number"),
        (with_(score=True), "`score` is not a number"),
        (with_(score=10**400), "`score` is not a number"),
        (with_(bbox=[0, 0, math.nan, 1]), "the box is NaN or infinite"),
        (with_(bbox=[0, 0, -1, 1]), "the box has a negative width or height"),
        (with_(bbox=[0, 0, 1]), "`bbox` is not a list of four numbers"),
        (with_(bbox=5), "`bbox` is not a list of four numbers"),
        (with_(bbox=[True, 0, 1, 1]), "`bbox` is not a list of four numbers"),
        (with_(bbox=None), "`bbox` is not a list of four numbers"),
        (with_(bbox=[0, 0, "a", 1]), "`bbox` is not a list of four numbers"),
        (with_(bbox=[[0], [0], [1], [1]]), "`bbox` is not a list of four numbers"),
        (with_(image_id=999), "the image is unknown"),
        (with_(image_id=10**30), "the image is unknown"),
        (with_(image_id="eleven"), "`image_id` is not a whole number"),
        (with_(image_id=1.5), "`image_id` is not a whole number"),
        (with_(category_id=0), "the category is unknown"),
        (with_(category_id=[3]), "`category_id` is not a whole number"),
        (without("score"), "`score` is missing"),
        (without("bbox"), "`bbox` is missing"),
        ([], "the entry is not an object"),
        (None, "the entry is not an object"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_detection_is_left_out_and_counted(bad: Any, reason: str) -> None:
    detections, keep, remarks = sift([GOOD, bad, GOOD], DATA)
    assert keep.tolist() == [0, 2] and len(detections) == 2
    assert remarks.dropped == {reason: 1}
    assert f"1 of 3 predictions left out: {reason}" in remarks.lines()
    alone, _, remarks = sift([bad, bad], DATA)
    assert len(alone) == 0 and remarks.dropped == {reason: 2}


def test_a_box_outside_its_image_counts_as_wrong() -> None:
    """pycocotools counts it; leaving it out would raise the precision."""
    outside = with_(bbox=[5000, 5000, 10, 10], score=2.0)
    detections, _, remarks = sift([*PREDICTIONS, outside], DATA)
    assert len(detections) == len(PREDICTIONS) + 1
    assert remarks.lines()[-1].endswith("lie outside their image: they count as false positives")
    assert evaluate(DATA, [*PREDICTIONS, outside])["voc"]["mAP"] < evaluate(DATA, PREDICTIONS)["voc"]["mAP"]


def test_odd_entries_change_nothing_for_the_others(caplog: pytest.LogCaptureFixture) -> None:
    odd = [with_(score=math.nan), with_(image_id=999), "text", *PREDICTIONS]
    with caplog.at_level(logging.WARNING):
        assert evaluate(DATA, odd) == evaluate(DATA, PREDICTIONS)
    assert "1 of" in caplog.text and "the image is unknown" in caplog.text


def test_whole_floats_are_whole_numbers() -> None:
    detections, _, remarks = sift([with_(image_id=float(GOOD["image_id"])), GOOD], DATA)
    assert not remarks.dropped
    assert detections.image[0] == detections.image[1]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=6,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "image_id": st.sampled_from([image.id for image in DATA.images]) | anything,
        "category_id": st.sampled_from(DATA.category_ids) | anything,
        "bbox": st.lists(st.floats(-1e9, 1e9) | anything, min_size=3, max_size=5) | anything,
        "score": st.floats() | anything,
    },
)


@settings(max_examples=200, deadline=None)
@given(st.lists(entries | anything, max_size=5))
def test_nothing_in_a_list_raises(found: list[Any]) -> None:
    detections, keep, remarks = sift(found, DATA)
    assert len(keep) == len(detections) == len(found) - sum(remarks.dropped.values())
    metrics = evaluate(DATA, detections)
    assert metrics["AP"] is not None and 0 <= metrics["AP"] <= 1


def written(folder: Path, text: str) -> Path:
    path = folder / "predictions.json"
    path.write_text(text)
    return path


def test_reads_a_whole_file(tmp_path: Path) -> None:
    kept, detections, remarks = read_predictions(written(tmp_path, json.dumps(PREDICTIONS)), DATA)
    assert kept == PREDICTIONS and len(detections) == len(PREDICTIONS)
    assert remarks.lines() == []


def test_an_empty_list_finds_nothing(tmp_path: Path) -> None:
    _, detections, remarks = read_predictions(written(tmp_path, "[]"), DATA)
    assert len(detections) == 0 and not remarks.lines()


def test_a_file_that_breaks_off_gives_what_is_whole(tmp_path: Path) -> None:
    text = json.dumps(PREDICTIONS)
    kept, _, remarks = read_predictions(written(tmp_path, text[: len(text) // 2]), DATA)
    assert 0 < len(kept) < len(PREDICTIONS) and kept == PREDICTIONS[: len(kept)]
    assert f"read up to entry {len(kept):,}, the rest is lost" in remarks.lines()[0]
    comma = text.index("}, {") + 2
    kept, _, remarks = read_predictions(written(tmp_path, text[:comma]), DATA)
    assert len(kept) == 1 and remarks.damage


def test_reads_one_object_a_line(tmp_path: Path) -> None:
    for some in (PREDICTIONS[:3], PREDICTIONS[:1]):
        text = "\n".join(json.dumps(p) for p in some)
        kept, _, remarks = read_predictions(written(tmp_path, text), DATA)
        assert kept == some and not remarks.lines()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("not json", "is not JSON"),
        ("{}", "holds a JSON object"),
        ('"text"', "holds a JSON string"),
        ("3", "holds a JSON number"),
        ("[" * 100_000, "is not JSON"),
        (json.dumps([with_(image_id=999)]), "none of its 1 predictions can be used (the image is unknown)"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_an_unusable_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as error:
        read_predictions(path, DATA)
    assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(DataError, match="expected a predictions file"):
            read_predictions(path, DATA)
