from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from detection_scenes import make_scenes
from hypothesis import given
from hypothesis import strategies as st

from msbal.evaluation.detections import Detections, GroundTruth, ground_truth
from msbal.evaluation.matching import voc_claims
from msbal.evaluation.operating_point import DEFAULT_THRESHOLD, best_f1_threshold
from msbal.evaluation.predictions import sift


def above(found: Detections, threshold: float) -> Detections:
    keep = found.score >= threshold
    return Detections(found.image[keep], found.label[keep], found.box[keep], found.score[keep])


def slow_f1(truth: GroundTruth, found: Detections, threshold: float) -> float:
    """F1 of the detections that reach the threshold, matched anew."""
    claimed, ignored = voc_claims(truth, above(found, threshold))
    right, wrong = int((claimed >= 0).sum()), int(((claimed < 0) & ~ignored).sum())
    missed = int((~(truth.crowd | truth.difficult)).sum()) - right
    return 2 * right / max(2 * right + wrong + missed, 1)


@given(
    st.integers(0, 10_000),
    st.sampled_from([1.0, 0.01, 1e-5, 300.0]),
    st.booleans(),
    st.sampled_from([0.0, 3.0]),
)
def test_no_threshold_of_two_digits_has_a_better_f1(
    seed: int, scale: float, ties: bool, boxes: float
) -> None:
    data, entries = make_scenes(seed, images=6, boxes=boxes, detections=8, ties=ties, flood=0)
    truth, (found, _, _) = ground_truth(data), sift(entries, data)
    found = Detections(found.image, found.label, found.box, found.score * scale)
    point = best_f1_threshold(truth, found)
    if not len(found):
        assert point.threshold == DEFAULT_THRESHOLD
        return
    assert point.threshold == float(f"{point.threshold:.2g}")
    assert point.f1 == pytest.approx(slow_f1(truth, found, point.threshold))
    # F1 changes only where a score is crossed: it is tried from each to the next, at numbers of two digits.
    scores = np.unique(found.score)
    tried = {
        float(f"{value:.2g}") for low, high in pairwise([0.0, *scores]) for value in np.linspace(low, high, 5)
    }
    assert point.f1 >= max(slow_f1(truth, found, value) for value in tried) - 1e-12


def test_a_detector_that_finds_nothing_shows_about_as_many_boxes_as_there_are() -> None:
    data, _ = make_scenes(3, images=8, boxes=4, detections=0, flood=0)
    truth = ground_truth(data)
    boxes = int((~(truth.crowd | truth.difficult)).sum())
    count = 10 * boxes
    rng = np.random.default_rng(0)
    nowhere = np.tile([-500.0, -500.0, 5.0, 5.0], (count, 1))
    found = Detections(np.zeros(count, np.int64), np.zeros(count, np.int64), nowhere, rng.random(count) * 0.1)
    point = best_f1_threshold(truth, found)
    assert point.f1 == 0.0
    assert len(above(found, point.threshold)) == pytest.approx(boxes, rel=0.2)


def test_scores_that_are_no_probabilities_do_not_matter() -> None:
    data, entries = make_scenes(5, images=6, detections=10)
    truth, (found, _, _) = ground_truth(data), sift(entries, data)
    logits = Detections(found.image, found.label, found.box, found.score * 8 - 8)
    point = best_f1_threshold(truth, logits)
    assert point.f1 == pytest.approx(slow_f1(truth, logits, point.threshold))
    assert point.threshold < 0
