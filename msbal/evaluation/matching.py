"""Which detection finds which box, by COCO's rules and by VOC's, for all images and classes at once.

The metrics themselves come from a library (`msbal.evaluation.coco_metrics`). No library gives cheaply what is
matched here: the outcome of every single detection, from which the bootstrap recomputes the metrics for any
weighting of the images. Tests compare it with pycocotools, detection by detection.

Shapes: D detections, G boxes of ground truth, A groups of boxes (COCO's 4 areas: all, small, medium, large; or the
levels of a model), T = 10 IoU thresholds, a lane is one of the A x T combinations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msbal.evaluation.detections import Detections, GroundTruth

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = ("all", "small", "medium", "large")
AREA_RANGES = np.array([(0.0, 1e5**2), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e5**2)])
MAX_DETECTIONS = 100
VOC_IOU = 0.5


@dataclass(frozen=True)
class Matches:
    """The outcome of every detection that counts, ordered by class and, within it, by descending score.

    Attributes:
        image, label: ``[D]`` int64, as in `Detections`.
        rank: ``[D]`` int64, from 0, the place of the detection in its image and class.
        hit: ``[D, A, T]`` bool, it found a box that counts.
        ignored: ``[D, A, T]`` bool, it is neither right nor wrong: it found a box that does not count,
            or found none and its own area is outside the range.
        in_range: ``[D, A]`` bool, its own area is inside the range.
        truth: what was to be found.
        truth_counts: ``[G, A]`` bool, the box has to be found.
    """

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    rank: NDArray[np.int64]
    hit: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    in_range: NDArray[np.bool_]
    truth: GroundTruth
    truth_counts: NDArray[np.bool_]


def coco_matches(truth: GroundTruth, found: Detections) -> Matches:
    """Match as ``COCOeval.evaluateImg`` does, with at most 100 detections an image and class."""
    low, high = AREA_RANGES.T
    area, found_area = truth.area[:, None], found.box[:, 2:3] * found.box[:, 3:4]
    return matches_within(
        truth, found, (area >= low) & (area <= high), (found_area >= low) & (found_area <= high)
    )


def matches_within(
    truth: GroundTruth, found: Detections, wanted: NDArray[np.bool_], in_range: NDArray[np.bool_]
) -> Matches:
    """Match as `coco_matches` does, within A groups of boxes that need not be ranges of area.

    Args:
        wanted: ``[G, A]``, the box is of the group; a crowd is to be found in none.
        in_range: ``[D, A]``, in the order of `found`: where the detection finds nothing, it is wrong in this group.
    """
    kept = _ranked(truth, found, MAX_DETECTIONS)
    image, label, box, rank = (
        found.image[kept],
        found.label[kept],
        found.box[kept],
        _ranks(truth, found, kept),
    )
    in_range, counts = in_range[kept], wanted & ~truth.crowd[:, None]

    shape = (len(kept), in_range.shape[1], len(IOU_THRESHOLDS))
    hit = np.zeros(shape, dtype=np.bool_)
    ignored = np.repeat(~in_range[:, :, None], len(IOU_THRESHOLDS), axis=2)

    pairs = _candidate_pairs(truth, image, label, box, IOU_THRESHOLDS[0])
    taken = np.zeros((len(truth), *shape[1:]), dtype=np.bool_)
    for detection, candidate, iou in _rounds(truth, image, label, rank, pairs):
        valid = candidate >= 0
        open_ = valid[:, :, None, None] & ~(taken[candidate] & ~truth.crowd[candidate][:, :, None, None])
        open_ &= iou[:, :, None, None] >= np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
        # A box that counts is preferred to any that does not; between equals the last one wins.
        key = np.where(open_, iou[:, :, None, None] + 2.0 * counts[candidate][:, :, :, None], -1.0)
        best = key.shape[1] - 1 - key[:, ::-1].argmax(axis=1)
        matched = np.take_along_axis(key, best[:, None], axis=1)[:, 0] >= 0
        chosen = candidate[np.arange(len(detection))[:, None, None], best]
        areas = np.arange(shape[1])[None, :, None]
        right = matched & counts[chosen, areas]
        hit[detection] = right
        ignored[detection] = np.where(matched, ~right, ignored[detection])
        _, a, t = np.nonzero(matched)
        taken[chosen[matched], a, t] = True

    return Matches(image, label, rank, hit, ignored, in_range, truth, counts)


def voc_matches(truth: GroundTruth, found: Detections) -> Matches:
    """Match as the VOC devkit's ``VOCevaldet.m`` does, at IoU 0.5; A = T = 1 here, with no limit.

    Each detection looks at the one box that it overlaps most (the first of equals) and at no other. Where
    they overlap enough, it is ignored if the box is difficult, right if no better-scored one claimed the
    box before, and wrong if one did. COCO's crowds are taken as difficult. The devkit's boxes have inclusive
    corners and a width of ``xmax - xmin + 1``; with the exclusive corners used here that is ``x2 - x1``.
    """
    kept = _ranked(truth, found, None)
    claimed, ignored = voc_claims(truth, found, kept)
    in_range = np.ones((len(kept), 1), dtype=np.bool_)
    counts = ~(truth.difficult | truth.crowd)
    return Matches(
        found.image[kept], found.label[kept], _ranks(truth, found, kept),
        (claimed >= 0)[:, None, None], ignored[:, None, None], in_range, truth, counts[:, None],
    )  # fmt: skip


def voc_claims(
    truth: GroundTruth, found: Detections, order: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return which box each detection claims by VOC's rules.

    Args:
        order: the detections to look at, by class and descending score; all by default.

    Returns:
        ``[D]`` index of the box, -1 for none; ``[D]`` bool, ignored. In the order of `order`, and in that
        of `found` by default.
    """
    if order is None:
        order = _ranked(truth, found, None)
        claimed_by_score, ignored_by_score = voc_claims(truth, found, order)
        claimed, ignored = np.empty_like(claimed_by_score), np.empty_like(ignored_by_score)
        claimed[order], ignored[order] = claimed_by_score, ignored_by_score
        return claimed, ignored
    claimed = np.full(len(order), -1, dtype=np.int64)
    ignored = np.zeros(len(order), dtype=np.bool_)
    detection, candidate, iou = _candidate_pairs(
        truth, found.image[order], found.label[order], found.box[order], VOC_IOU, crowds_as_regions=False
    )
    if not len(detection):
        return claimed, ignored
    best = np.lexsort((candidate, -iou, detection))
    best = best[np.diff(detection[best], prepend=-1) > 0]
    detection, candidate = detection[best], candidate[best]
    difficult = (truth.difficult | truth.crowd)[candidate]
    ignored[detection[difficult]] = True
    detection, candidate = detection[~difficult], candidate[~difficult]
    # Detections of a class stand in descending score, so the first claim of a box is the best-scored.
    box, first = np.unique(candidate, return_index=True)
    claimed[detection[first]] = box
    return claimed, ignored


def overlaps(
    box: NDArray[np.float64], other: NDArray[np.float64], crowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the IoU of boxes one to one, ``[N, 4]`` each, in pycocotools' order of operations.

    Where the other box is a crowd, the share of the first box that lies in it.
    """
    reach = np.minimum(box[:, :2] + box[:, 2:], other[:, :2] + other[:, 2:])
    sides = reach - np.maximum(box[:, :2], other[:, :2])
    inter = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    own = box[:, 2] * box[:, 3]
    union = np.where(crowd, own, own + other[:, 2] * other[:, 3] - inter)
    ratio: NDArray[np.float64] = np.divide(inter, union, out=np.zeros_like(inter), where=inter > 0)
    return ratio


def _ranked(truth: GroundTruth, found: Detections, limit: int | None) -> NDArray[np.int64]:
    """Return the indices of the detections by class and descending score, at most `limit` per image and class."""
    order: NDArray[np.int64] = np.lexsort((truth.image_id[found.image], -found.score, found.label))
    if limit is None or not len(order):
        return order
    kept: NDArray[np.int64] = order[_ranks(truth, found, order) < limit]
    return kept


def _ranks(truth: GroundTruth, found: Detections, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each detection among those of its image and class, where `order` has them by score."""
    group = _group(truth, found.image[order], found.label[order])
    by_group = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[by_group], group[by_group], side="left")
    rank = np.empty(len(order), dtype=np.int64)
    rank[by_group] = np.arange(len(order)) - starts
    return rank


def _group(truth: GroundTruth, image: NDArray[np.int64], label: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one number per image and class."""
    return image * max(truth.class_count, 1) + label


def _candidate_pairs(
    truth: GroundTruth,
    image: NDArray[np.int64],
    label: NDArray[np.int64],
    box: NDArray[np.float64],
    threshold: float,
    crowds_as_regions: bool = True,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return all pairs of a detection and a box of its image and class that overlap enough.

    Returns:
        ``[P]`` index of the detection, ascending; ``[P]`` index of the box, ascending within a detection;
        ``[P]`` IoU.
    """
    group = _group(truth, image, label)
    truth_group = _group(truth, truth.image, truth.label)
    by_group = np.argsort(truth_group, kind="stable")
    start = np.searchsorted(truth_group[by_group], group, side="left")
    count = np.searchsorted(truth_group[by_group], group, side="right") - start
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    # In slices, for a class with thousands of boxes an image makes millions of pairs.
    for begin in range(0, len(group), 50_000):
        part = slice(begin, begin + 50_000)
        total = int(count[part].sum())
        detection = np.repeat(np.arange(len(group), dtype=np.int64)[part], count[part])
        first = np.repeat(np.cumsum(count[part]) - count[part], count[part])
        candidate = by_group[np.repeat(start[part], count[part]) + np.arange(total) - first]
        crowd = truth.crowd[candidate] & crowds_as_regions
        iou = overlaps(box[detection], truth.box[candidate], crowd)
        near = iou >= threshold
        found.append((detection[near], candidate[near], iou[near]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    detections, candidates, ious = zip(*found, strict=True)
    return np.concatenate(detections), np.concatenate(candidates), np.concatenate(ious)


def _rounds(
    truth: GroundTruth,
    image: NDArray[np.int64],
    label: NDArray[np.int64],
    rank: NDArray[np.int64],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Yield the detections that can be matched at once: one of each image and class a round, best first.

    Yields:
        ``[N]`` detections; ``[N, C]`` the boxes near each, -1 where there are fewer than C; ``[N, C]`` IoU.
    """
    detection, candidate, iou = pairs
    unique, first, count = np.unique(detection, return_index=True, return_counts=True)
    group = _group(truth, image[unique], label[unique])
    order = np.lexsort((rank[unique], group))
    starts = np.searchsorted(group[order], group[order], side="left")
    turn = np.empty(len(unique), dtype=np.int64)
    turn[order] = np.arange(len(unique)) - starts
    by_turn = np.argsort(turn, kind="stable")
    ends = np.flatnonzero(np.diff(turn[by_turn], append=-1)) + 1
    begin = 0
    for end in ends.tolist():
        for low in range(begin, end, 2048):
            chosen = by_turn[low : min(low + 2048, end)]
            column = np.arange(count[chosen].max())
            present = column < count[chosen][:, None]
            where = np.where(present, first[chosen][:, None] + column, 0)
            yield unique[chosen], np.where(present, candidate[where], -1), np.where(present, iou[where], 0.0)
        begin = end
