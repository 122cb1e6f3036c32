from __future__ import annotations

import numpy as np
import pytest
from detection_scenes import make_scenes
from test_coco_metrics import SCENES, by_pycocotools

from msbal.evaluation.detections import ground_truth
from msbal.evaluation.matching import coco_matches, overlaps
from msbal.evaluation.predictions import sift


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"seed{scene['seed']}")
def test_every_detection_is_matched_as_pycocotools_matches_it(scene: dict) -> None:
    data, predictions = make_scenes(**scene)
    reference, _ = by_pycocotools(data, predictions)
    found, _, _ = sift(predictions, data)
    matches = coco_matches(ground_truth(data), found)
    ids = np.array([image.id for image in data.images])
    label_of = {id_: label for label, id_ in enumerate(data.category_ids)}
    area_of = {tuple(area): n for n, area in enumerate(reference.params.areaRng)}
    seen = 0
    for entry in reference.evalImgs:
        if entry is None:
            continue
        here = (ids[matches.image] == entry["image_id"]) & (matches.label == label_of[entry["category_id"]])
        rows = np.flatnonzero(here)
        rows = rows[np.argsort(matches.rank[rows])]
        area = area_of[tuple(entry["aRng"])]
        ignored = entry["dtIgnore"].astype(bool)
        assert len(rows) == len(entry["dtIds"])
        assert np.array_equal(matches.ignored[rows, area].T, ignored)
        assert np.array_equal(matches.hit[rows, area].T, (entry["dtMatches"] > 0) & ~ignored)
        seen += len(rows)
    assert seen == 4 * len(matches.image) > 0


def test_overlap_of_a_crowd_is_the_share_inside_it() -> None:
    box = np.array([[0.0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 5, 5], [0, 0, 0, 0]])
    other = np.array([[5.0, 0, 10, 10], [5, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    crowd = np.array([False, True, False, False])
    assert overlaps(box, other, crowd) == pytest.approx([50 / 150, 0.5, 0.0, 0.0])
