"""From matches to metrics, for any weighting of the images.

A resample of the images is a weight per image (how often it was drawn). Repeating an image n times repeats
its detections n times next to each other in the ranking, so every count becomes a sum of weights and the
precision-recall curve needs no new sort. Only the points of the curve where recall rises matter: the hits.
So the curve is kept as a flat list of hits over all classes and lanes, and one resample costs a handful of
passes over it.

Shapes: I images, K classes, L lanes (area x IoU threshold), H hits over all lanes, S segments (a lane and a
class that has a hit), B detections inside an area range, C corrections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msbal.evaluation.matching import Matches

COCO_RECALLS: NDArray[np.float64] = np.linspace(0.0, 1.0, 101, dtype=np.float64)
VOC_RECALLS = np.arange(11) / 10


@dataclass(frozen=True)
class _Ranked:
    """A running sum over detections in ranking order, read at given places."""

    image: NDArray[np.int64]
    sign: NDArray[np.int64] | None
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    def counts(self, weight: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the weight between the start of its segment and each hit, ``[H]``."""
        sums = np.zeros(len(self.image) + 1, dtype=np.int64)
        gained = weight[self.image] if self.sign is None else weight[self.image] * self.sign
        np.cumsum(gained, out=sums[1:])
        result: NDArray[np.int64] = sums[self.stop] - sums[self.start]
        return result


@dataclass(frozen=True)
class Points:
    """The precision-recall curves of one weighting, at the hits.

    Attributes:
        found: ``[H]`` int64, true positives up to and with this hit.
        precision: ``[H]`` float64, the best precision at this recall or a higher one.
        total: ``[H]`` int64, boxes to be found.
    """

    found: NDArray[np.int64]
    precision: NDArray[np.float64]
    total: NDArray[np.int64]


class Curves:
    """The precision-recall curves of every class and lane, ready to be reweighted.

    Args:
        matches: the outcome of every detection, ``[D, A, T]``.
    """

    def __init__(self, matches: Matches) -> None:
        self.matches = matches
        self.areas, self.thresholds = matches.hit.shape[1:]
        self.classes = matches.truth.class_count
        lanes = self.areas * self.thresholds
        detections = len(matches.label)
        # Axis order (lane, detection): the hits of a segment stand together, in ranking order.
        hit = matches.hit.reshape(detections, lanes).T
        lane, place = np.nonzero(hit)
        self.image = matches.image[place]
        segment = lane * self.classes + matches.label[place]
        opens = np.flatnonzero(np.diff(segment, prepend=-1))
        self.segment = segment[opens]
        self._opens = opens
        self._closes = np.append(opens[1:], len(segment))[: len(opens)] - 1
        self._segment_of_hit = np.repeat(np.arange(len(opens)), np.diff(opens, append=len(segment)))
        # Lifts every segment above those that follow it, so that one running maximum from the right serves all.
        self._lift = 2.0 * (len(opens) - 1 - self._segment_of_hit)
        self._rank = matches.rank[place]
        self._lane = lane
        self._ranked = self._tally(matches, lane, place)

        area, box = np.nonzero(matches.truth_counts.T)
        self._truth_image = matches.truth.image[box]
        self._truth_slot = area * self.classes + matches.truth.label[box]
        # [S] the slot (area and class) of each segment, for the number of boxes to be found.
        self._slot = (self.segment // self.classes) // self.thresholds * self.classes + (
            self.segment % self.classes
        )

    def _tally(self, matches: Matches, lane: NDArray[np.int64], place: NDArray[np.int64]) -> list[_Ranked]:
        """Return what counts at a hit: the detections in range, and the few whose match says otherwise."""
        ignored = matches.ignored.reshape(len(matches.label), self.areas * self.thresholds).T
        first = np.searchsorted(matches.label, np.arange(self.classes))
        area = lane // self.thresholds
        label = matches.label[place]
        in_range = matches.in_range.T
        _, base_place = np.nonzero(in_range)
        # [A, D+1] how many detections in range stand before a place, plus those of the areas before.
        before = np.zeros((self.areas, in_range.shape[1] + 1), dtype=np.int64)
        np.cumsum(in_range, axis=1, out=before[:, 1:])
        before += np.concatenate([[0], np.cumsum(before[:, -1])[:-1]])[:, None]
        base = _Ranked(matches.image[base_place], None, before[area, first[label]], before[area, place + 1])
        # Detections that count although out of range (they found a box that counts), and the reverse.
        expected = np.repeat(in_range, self.thresholds, axis=0)
        odd_lane, odd_place = np.nonzero(expected == ignored)
        sign = np.where(expected[odd_lane, odd_place], -1, 1)
        stride = len(matches.label) + 1
        odd_key = odd_lane * stride + odd_place
        start = np.searchsorted(odd_key, lane * stride + first[label], side="left")
        stop = np.searchsorted(odd_key, lane * stride + place, side="right")
        return [base, _Ranked(matches.image[odd_place], sign, start, stop)]

    def totals(self, weight: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of boxes to be found, ``[A, K]``."""
        slots = self.areas * self.classes
        counted = np.bincount(self._truth_slot, weights=weight[self._truth_image], minlength=slots)
        return counted.astype(np.int64).reshape(self.areas, self.classes)

    def points(self, weight: NDArray[np.int64], totals: NDArray[np.int64]) -> Points:
        """Return the curves at the hits, where image i counts ``weight[i]`` times (``[I]`` int64, not negative)."""
        found = np.cumsum(weight[self.image])
        if len(found):
            found -= (found[self._opens] - weight[self.image[self._opens]])[self._segment_of_hit]
        reported = sum(part.counts(weight) for part in self._ranked)
        # The spacing is pycocotools': it keeps 0 / 0 at 0 and moves a precision of 1 to just below it.
        precision = found / (reported + np.spacing(1))
        precision += self._lift
        best = np.maximum.accumulate(precision[::-1])[::-1] - self._lift
        return Points(found, best, totals.reshape(-1)[self._slot][self._segment_of_hit])

    def interpolated(self, points: Points, recalls: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean precision at `recalls` (0, 1/n, ..., 1), ``[A, T, K]``; 0 where nothing is hit."""
        steps = len(recalls) - 1
        recall = points.found / np.maximum(points.total, 1)
        # Whole steps below this recall. The 1e-9 undoes the rounding of the product, no more: two recalls
        # of different hits are at least 1 / total apart. Whether the step itself is met is asked of the
        # same two floats that pycocotools compares.
        reached = np.floor(recall * steps + 1e-9).astype(np.int64)
        reached += recalls[reached] <= recall
        # A hit of weight 0 before every other has reached nothing, not even recall 0.
        reached[points.found == 0] = 0
        return self._gathered(self._gain(reached) * points.precision) / len(recalls)

    def under(self, points: Points) -> NDArray[np.float64]:
        """Return the area under the curve of best precisions, ``[A, T, K]``; 0 where nothing is hit."""
        gained = self._gain(points.found) * points.precision / np.maximum(points.total, 1)
        return self._gathered(gained)

    def found(self, points: Points) -> NDArray[np.float64]:
        """Return the number of true positives, ``[A, T, K]``."""
        return self._spread(points.found[self._closes].astype(np.float64))

    def found_within(self, limit: int) -> Callable[[NDArray[np.int64]], NDArray[np.float64]]:
        """Return a function of the weights: the true positives, ``[T, K]``, of the area "all" among the first
        `limit` detections of each image and class."""
        within = (self._rank < limit) & (self._lane < self.thresholds)
        image = self.image[within]
        slot = self.segment[self._segment_of_hit[within]]
        size = self.thresholds * self.classes

        def count(weight: NDArray[np.int64]) -> NDArray[np.float64]:
            counted = np.bincount(slot, weights=weight[image], minlength=size)
            return counted.astype(np.float64).reshape(self.thresholds, self.classes)

        return count

    def _gain(self, level: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return by how much a quantity that grows along each segment grows at each hit; it starts from 0."""
        gain = np.diff(level, prepend=0)
        gain[self._opens] = level[self._opens]
        return gain

    def _gathered(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums over the hits of each segment, ``[A, T, K]``."""
        return self._spread(np.add.reduceat(value, self._opens) if len(self._opens) else value)

    def _spread(self, value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Put a value per segment, ``[S]``, at its place in ``[A, T, K]``, with 0 elsewhere."""
        spread = np.zeros(self.areas * self.thresholds * self.classes)
        spread[self.segment] = value
        return spread.reshape(self.areas, self.thresholds, self.classes)
