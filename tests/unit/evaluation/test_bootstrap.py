from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from detection_scenes import make_scenes
from hypothesis import given, settings
from hypothesis import strategies as st

from msbal.data import DetectionData
from msbal.evaluation import evaluate
from msbal.evaluation.bootstrap import (
    ALL_METRICS,
    MIN_IMAGES,
    Difference,
    Reweighted,
    images_with_boxes,
    interval,
    resampled,
)
from msbal.evaluation.coco_metrics import METRICS
from msbal.evaluation.detections import Detections, ground_truth
from msbal.evaluation.predictions import sift


def all_metrics(data: DetectionData, found: Detections) -> np.ndarray:
    """[F + K] by the evaluators themselves; NaN where undefined."""
    metrics = evaluate(data, found)
    values = [metrics[name] for name in METRICS] + [metrics["voc"]["mAP"], metrics["voc"]["mAP_11"]]
    values += [metrics["per_class"][name]["AP"] for name in data.classes]
    return np.array([np.nan if value is None else value for value in values])


def repeated(data: DetectionData, found: Detections, weight: np.ndarray) -> tuple[DetectionData, Detections]:
    """The slow way: every image as often as its weight says, under a new id."""
    images, parts = [], []
    for index in np.argsort([image.id for image in data.images]).tolist():
        for _ in range(int(weight[index])):
            mine = np.flatnonzero(found.image == index)
            parts.append((np.full(len(mine), len(images)), mine))
            images.append(replace(data.images[index], id=len(images) + 1))
    where = np.concatenate([np.zeros(0, np.int64), *(p[0] for p in parts)])
    which = np.concatenate([np.zeros(0, np.int64), *(p[1] for p in parts)])
    return replace(data, images=tuple(images)), Detections(
        where, found.label[which], found.box[which], found.score[which]
    )


def scene(seed: int, images: int = 20) -> tuple[DetectionData, Detections]:
    # No ties: between equal scores the order of two copies of an image is anybody's choice.
    data, predictions = make_scenes(seed, images=images, ties=False)
    return data, sift(predictions, data)[0]


SMALL = scene(21, images=8)
SMALL_RUN = Reweighted(ground_truth(SMALL[0]), SMALL[1])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=8, max_size=8))
def test_reweighting_images_is_repeating_them(weights: list[int]) -> None:
    weight = np.array(weights)
    expected = all_metrics(*repeated(*SMALL, weight))
    np.testing.assert_allclose(SMALL_RUN.metrics(weight), expected, atol=1e-12)


@pytest.mark.parametrize("seed", [22, 23])
def test_draws_of_images_are_evaluated_as_if_they_were_the_data(seed: int) -> None:
    data, found = scene(seed, images=40)
    run = Reweighted(ground_truth(data), found)
    rng = np.random.default_rng(seed)
    for _ in range(4):
        weight = np.bincount(rng.integers(0, 40, 40), minlength=40)
        np.testing.assert_allclose(
            run.metrics(weight), all_metrics(*repeated(data, found, weight)), atol=1e-12
        )


def test_weights_of_one_give_the_metrics_even_with_ties() -> None:
    data, predictions = make_scenes(24)
    found = sift(predictions, data)[0]
    run = Reweighted(ground_truth(data), found)
    np.testing.assert_allclose(
        run.metrics(np.ones(len(data), np.int64)), all_metrics(data, found), atol=1e-12
    )


def test_the_draw_depends_on_seed_and_images_alone() -> None:
    data, found = SMALL
    truth = ground_truth(data)
    first = resampled(truth, found, 20, seed=1)
    assert np.array_equal(first, resampled(truth, found, 20, seed=1), equal_nan=True)
    assert np.array_equal(first[:5], resampled(truth, found, 5, seed=1), equal_nan=True)
    assert not np.array_equal(first, resampled(truth, found, 20, seed=2), equal_nan=True)
    assert first.shape == (20, len(ALL_METRICS) + len(data.classes))


def test_draws_are_with_replacement_and_as_many_as_there_are_images() -> None:
    """The recall of a class that every image has once, found in image 0 only, is the share of image 0."""
    data, _ = make_scenes(25, images=4, boxes=3)
    one = data.images[1]
    images = tuple(replace(one, id=n + 1) for n in range(10))
    label = int(one.labels[0])
    wide = replace(
        data,
        images=tuple(
            replace(
                image,
                boxes=one.boxes[:1], labels=one.labels[:1], area=one.area[:1],
                crowd=np.zeros(1, np.bool_), difficult=np.zeros(1, np.bool_),
            )
            for image in images
        ),
    )  # fmt: skip
    x1, y1, x2, y2 = one.boxes[0].astype(float).tolist()
    found = Detections(
        np.array([0]), np.array([label]), np.array([[x1, y1, x2 - x1, y2 - y1]]), np.array([0.5])
    )
    column = ALL_METRICS.index("AR100")
    shares = resampled(ground_truth(wide), found, 500)[:, column]
    assert set((shares * 10).round(6).tolist()) <= set(range(11))
    # Binomial(10, 1/10) / 10: mean 0.1, standard deviation 0.095; 500 draws
    assert shares.mean() == pytest.approx(0.1, abs=0.02)
    assert shares.std() == pytest.approx(0.095, abs=0.015)


def test_a_run_against_itself_is_zero_with_even_odds() -> None:
    data, found = SMALL
    draws = resampled(ground_truth(data), found, 30)
    assert interval(0.0, draws[:, 0], draws[:, 0], 8) == Difference(0.0, 0.0, 0.0, 0.5)


def test_pairing_sees_a_small_but_steady_gain() -> None:
    """The same detections with every score of a wrong one halved: better on any draw."""
    data, predictions = make_scenes(26, images=40, detections=10)
    found = sift(predictions, data)[0]
    truth = ground_truth(data)
    from msbal.evaluation.matching import voc_claims

    wrong = voc_claims(truth, found)[0] < 0
    better = replace(found, score=np.where(wrong, found.score / 2, found.score))
    one, two = resampled(truth, found, 200), resampled(truth, better, 200)
    column = ALL_METRICS.index("mAP")
    gain = all_metrics(data, better)[column] - all_metrics(data, found)[column]
    difference = interval(gain, one[:, column], two[:, column], 40)
    assert difference is not None and difference.low is not None and difference.high is not None
    assert 0 < difference.low < gain < difference.high
    assert difference.above_zero == 1.0
    # Unpaired, the noise of the images would drown it.
    unpaired = resampled(truth, better, 200, seed=9)[:, column] - one[:, column]
    assert np.quantile(unpaired, 0.025) < difference.low


def test_interval_by_hand() -> None:
    first = np.zeros(100)
    second = np.arange(100) - 9.0  # -9 .. 90
    # The draws' variance is 841.67; t with 8 degrees of freedom leaves 10 % beyond 1.3968.
    reach = 1.3968 * (841.67 * 9 / 8) ** 0.5
    assert interval(5.0, first, second, images=9, confidence=0.8) == Difference(
        5.0,
        pytest.approx(5 - reach, abs=0.01),
        pytest.approx(5 + reach, abs=0.01),
        pytest.approx(0.9 + 0.005),
    )


def test_intervals_of_few_images_hold_the_truth_where_percentiles_do_not() -> None:
    """Seven images drawn from many with boxes, whose own difference in AP is the truth."""
    data, predictions = make_scenes(28, images=60, boxes=4, detections=6, classes=2, flood=0)
    truth = ground_truth(data)
    runs = [Reweighted(truth, sift(found, data)[0]) for found in (predictions[::2], predictions)]
    with_boxes, rng, column = np.unique(truth.image[~truth.crowd]), np.random.default_rng(28), 0

    def metrics(images: np.ndarray) -> list[float]:
        weight = np.bincount(images, minlength=len(data))
        return [run.metrics(weight)[column] for run in runs]

    one, two = metrics(with_boxes)
    held = by_percentiles = 0
    for _ in range(70):
        images = rng.choice(with_boxes, 7)
        draws = np.array([metrics(rng.choice(images, 7)) for _ in range(50)]).T
        first, second = metrics(images)
        found = interval(second - first, *draws, 7)
        assert found is not None and found.low is not None and found.high is not None
        held += found.low <= two - one <= found.high
        low, high = np.quantile(draws[1] - draws[0], [0.025, 0.975])
        by_percentiles += low <= two - one <= high
    assert by_percentiles < 63 < 65 < held


def test_an_undefined_metric_has_no_interval() -> None:
    nan = np.full(100, np.nan)
    assert interval(None, nan, nan, 50) is None
    assert interval(0.1, nan, nan, 50) == Difference(0.1)
    some = np.where(np.arange(100) < 10, np.nan, 0.5)
    assert interval(0.1, some, some, 50) == Difference(0.1)
    assert interval(0.1, np.zeros(0), np.zeros(0), 50) == Difference(0.1)
    steady = np.zeros(100)
    assert interval(0.1, steady, steady, MIN_IMAGES) == Difference(0.1, 0.1, 0.1, 0.5)
    assert interval(0.1, steady, steady, MIN_IMAGES - 1) == Difference(0.1)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"`confidence` should be between 0 and 1. Found 95"):
        interval(0.1, np.zeros(3), np.zeros(3), 50, confidence=95)
    with pytest.raises(ValueError, match=r"`resamples` should be at least 1. Found 0"):
        resampled(ground_truth(SMALL[0]), SMALL[1], 0)


def test_images_are_counted_where_they_have_boxes_of_the_metric() -> None:
    data, _ = make_scenes(27, images=30, boxes=1)
    truth = ground_truth(data)
    found = images_with_boxes(truth)
    of = dict(zip((*ALL_METRICS, *data.classes), found.tolist(), strict=True))
    counted = ~truth.crowd
    assert of["AP"] == of["AR10"] == of["mAP_11"] == len(set(truth.image[counted].tolist())) < 30
    small = counted & (truth.area <= 32**2)
    assert of["AP_S"] == of["AR_S"] == len(set(truth.image[small].tolist())) < of["AP"]
    assert of["class 0"] == len(set(truth.image[counted & (truth.label == 0)].tolist()))
    assert of["class 4"] == 0


def test_ids_beyond_float64_change_no_draw() -> None:
    data, predictions = make_scenes(75, images=8)
    large = replace(data, images=tuple(replace(i, id=i.id + 2**60) for i in data.images))
    moved = [{**entry, "image_id": entry["image_id"] + 2**60} for entry in predictions]
    draws = [resampled(ground_truth(d), sift(p, d)[0], 20) for d, p in ((data, predictions), (large, moved))]
    assert np.array_equal(draws[0], draws[1], equal_nan=True)
