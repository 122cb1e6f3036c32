"""Detections of runs beside the ground truth: the best, typical and worst images of a split.

A detection is right where it finds a box by VOC's rules at an IoU of 0.5, and wrong where it finds none; a box that no
detection finds is missed. Only detections that reach a score threshold are shown and judged: by default the one at
which the run's F1 is highest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from msbal.data.files import printable
from msbal.drawing.choice import choose
from msbal.drawing.class_colors import class_color
from msbal.drawing.marked_image import Mark, box_name, corners, detection_mark, marked, pixels_of
from msbal.drawing.sheet import Entry, Tile, class_entries, sheet
from msbal.errors import DataError
from msbal.evaluation.detections import Detections, GroundTruth, ground_truth
from msbal.evaluation.matching import voc_claims
from msbal.evaluation.operating_point import best_f1_threshold, f1_scores
from msbal.evaluation.runs import Evaluated
from msbal.metric_text import points

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_RUNS = 4
TILE, SINGLE = (520, 460), (900, 900)  # pixels, the room for an image on a sheet and alone
_COLUMNS = 3  # on a sheet of one run; several runs have one each, beside the ground truth
_MAX_UNREADABLE = 1000
_MIN_LIMIT = 12  # of the detections that are shown on an image; else twice as many as there are boxes
_WHITE, _GREY = "#ffffff", "#5b6270"
_TAG_COLORS = {"best": "#1a9850", "typical": _GREY, "worst": "#d73027"}
_COMPARED = {"best": "largest gain", "typical": "typical", "worst": "smallest gain"}


class DrawnDetections:
    """Drawings of the detections of some runs on the same data.

    Args:
        runs: evaluated on the same data; at most `MAX_RUNS`.
        count: how many images to draw.
        threshold: the lowest score that is shown; by default each run has its own.

    Attributes:
        how: what is shown and how the images were chosen, a sentence each.
        unreadable: the images that were passed over, a sentence each.

    Raises:
        DataError: where a run has no predictions, or none of the images can be read.
    """

    def __init__(self, runs: Sequence[Evaluated], count: int, threshold: float | None = None) -> None:
        data = runs[0].data
        if data is None or any(run.detections is None for run in runs):
            name = next(run.name for run in runs if run.detections is None)
            raise DataError(
                name, "has no predictions", "a predictions.json", "a drawing needs the boxes themselves"
            )
        if len(runs) > MAX_RUNS:
            raise ValueError(f"Parameter `runs` should hold at most {MAX_RUNS} runs. Found {len(runs)}.")
        self._data, self._truth = data, ground_truth(data)
        self._classes = [printable(name) for name in data.classes]
        self._title = "  ·  ".join(map(_title, runs))
        self._runs = [_judged(run, self._truth, threshold) for run in runs]
        self._pixels: dict[int, NDArray[np.uint8] | None] = {}
        self.unreadable: list[str] = []
        score = _gain([run.f1 for run in self._runs]) if len(runs) > 1 else self._runs[0].f1
        self._chosen = choose(score, self._runs[0].boxes, count, self._can_be_read)
        if not self._chosen:
            reason = (
                f"none of the images can be read ({self.unreadable[0]})" if self.unreadable else "no images"
            )
            where = str(data.images[0].path.parent) if len(data) else data.name
            raise DataError(where, reason, "the images", "name their folder with --images")
        self.how = (self._what_is_shown(), self._how_chosen(score))

    def __len__(self) -> int:
        return len(self._chosen)

    def sheet(self) -> Image:
        """Return all images on one."""
        if len(self._runs) == 1:
            tiles = [self._found(index, self._runs[0], TILE, kind) for kind, index in self._chosen]
            return self._composed(tiles, _COLUMNS, [index for _, index in self._chosen])
        tiles = [tile for kind, index in self._chosen for tile in self._row(index, kind, TILE)]
        return self._composed(tiles, 1 + len(self._runs), [index for _, index in self._chosen])

    def singles(self) -> Iterator[tuple[str, Image]]:
        """Yield each image with the ground truth and the runs side by side, and a name for its file."""
        for number, (kind, index) in enumerate(self._chosen, start=1):
            tiles = self._row(index, kind, SINGLE)
            name = f"{number:02d}_{kind}_{self._data.images[index].path.stem}.png"
            yield name, self._composed(tiles, len(tiles), [index])

    def _row(self, index: int, kind: str, room: tuple[int, int]) -> list[Tile]:
        return [self._wanted(index, room, kind), *(self._found(index, run, room) for run in self._runs)]

    def _composed(self, tiles: Sequence[Tile], columns: int, indices: Sequence[int]) -> Image:
        labels = {int(label) for i in indices for label in self._data.images[i].labels}
        labels.update(
            int(label) for run in self._runs for i in indices for label in run.shown.label[run.on(i)]
        )
        legend = [
            Entry("right", _GREY, "solid"),
            Entry("its ground truth", _WHITE, "thin"),
            Entry("wrong", _GREY, "dashed", cross=True),
            Entry("missed", _WHITE, "dashed"),
            *class_entries(labels, self._classes),
        ]
        return sheet(self._title, self.how, tiles, columns, legend)

    def _wanted(self, index: int, room: tuple[int, int], kind: str) -> Tile:
        """Draw the ground truth of an image."""
        truth, marks = self._truth, []
        for g in _largest_first(np.flatnonzero(truth.image == index), truth):
            name = box_name(self._classes[truth.label[g]], truth.crowd[g], truth.difficult[g])
            marks.append(Mark(corners(truth.box[g]), class_color(truth.label[g]), name))
        image = marked(self._read(index), marks, room, "" if marks else "no box")
        tag = _COMPARED[kind] if len(self._runs) > 1 else kind
        return Tile(image, f"{self._file_name(index)}: ground truth", tag, _TAG_COLORS[kind])

    def _found(self, index: int, run: _Judged, room: tuple[int, int], kind: str = "") -> Tile:
        """Draw what a run finds in an image, and what it misses."""
        truth, shown, mine = self._truth, run.shown, run.on(index)
        boxes = np.flatnonzero((truth.image == index) & run.wanted)
        found = np.isin(boxes, run.claimed[mine])
        marks = [Mark(corners(truth.box[g]), _WHITE, line="thin") for g in boxes[found].tolist()]
        limit = max(_MIN_LIMIT, 2 * len(boxes))
        for d in mine[:limit].tolist():
            marks.append(detection_mark(shown, d, self._classes, bool(run.wrong[d])))
        for g in _largest_first(boxes[~found], truth):
            marks.append(Mark(corners(truth.box[g]), _WHITE, self._classes[truth.label[g]], "dashed"))
        note = (
            "" if len(mine) else f"no detection above {run.threshold:g}" if run.detected else "no detection"
        )
        if len(mine) > limit:
            note = f"the {limit} strongest of {len(mine)} detections"
        counts = f"{found.sum()} right, {run.wrong[mine].sum()} wrong, {(~found).sum()} missed"
        if not np.isnan(run.f1[index]):
            counts = f"F1 {points(run.f1[index], 0)}: {counts}"
        image = marked(self._read(index), marks, room, note)
        if kind:
            return Tile(image, f"{self._file_name(index)}, {counts}", kind, _TAG_COLORS[kind])
        return Tile(image, counts, run.name)

    def _what_is_shown(self) -> str:
        data = f"{len(self._data)} images of {printable(self._data.name)}."
        if not any(run.detected for run in self._runs):
            return f"{data} Nothing was detected in any of them."
        several = len(self._runs) > 1
        at = [
            f"{run.threshold:g} ({f'{run.name}, ' * several}F1 {points(run.overall, 1)})"
            for run in self._runs
        ]
        why = "where F1 at IoU 0.5 is highest" if self._runs[0].is_best else "as asked for; F1 is at IoU 0.5"
        return f"{data} Shown: detections above {', '.join(at)}, {why}."

    def _how_chosen(self, score: NDArray[np.float64]) -> str:
        counts = Counter(kind for kind, _ in self._chosen)
        by, names = "F1", {kind: kind for kind in _COMPARED}
        if len(self._runs) > 1:
            by = f"gain in F1 over {self._runs[0].name}"
            names = {"best": "with the largest", "typical": "typical", "worst": "with the smallest"}
        parts = [f"{count} {names[kind]}" for kind, count in counts.items()]
        median = points(float(np.nanmedian(score)), 0)
        typical = f" (typical: nearest the median, {median})" if counts["typical"] else ""
        return f"Images chosen by their {by}: {', '.join(parts)}{typical}."

    def _can_be_read(self, index: int) -> bool:
        if index not in self._pixels:
            if len(self.unreadable) >= _MAX_UNREADABLE:
                return False
            image = self._data.images[index]
            try:
                self._pixels[index] = pixels_of(image)
            except DataError as error:
                self._pixels[index] = None
                self.unreadable.append(f"{image.path} cannot be drawn: it {error.found}")
        return self._pixels[index] is not None

    def _read(self, index: int) -> NDArray[np.uint8]:
        pixels = self._pixels[index]
        assert pixels is not None  # only images that can be read are chosen
        return pixels

    def _file_name(self, index: int) -> str:
        return printable(self._data.images[index].path.name)


@dataclass(frozen=True)
class _Judged:
    """One run's detections that reach its threshold, D of them by descending score, and how they did on I images.

    Attributes:
        detected: how many detections there are at any score.
        is_best: whether the threshold is that of the best F1.
        overall: F1 over all images.
        claimed: ``[D]`` the box that each finds, or -1.
        wrong: ``[D]`` bool.
        wanted: ``[G]`` bool, the boxes that are to be found.
        boxes: ``[I]`` how many those are.
        f1: ``[I]``, NaN where there is neither a box nor a detection.
    """

    name: str
    detected: int
    threshold: float
    is_best: bool
    overall: float
    shown: Detections
    claimed: NDArray[np.int64]
    wrong: NDArray[np.bool_]
    wanted: NDArray[np.bool_]
    boxes: NDArray[np.int64]
    f1: NDArray[np.float64]

    def on(self, image: int) -> NDArray[np.int64]:
        """Return the detections on one image, the best-scored first."""
        return np.flatnonzero(self.shown.image == image)


def _judged(run: Evaluated, truth: GroundTruth, threshold: float | None) -> _Judged:
    found = run.detections
    assert found is not None
    lowest = best_f1_threshold(truth, found).threshold if threshold is None else threshold
    shown = found.reaching(lowest)
    claimed, ignored = voc_claims(truth, shown)
    wanted = ~(truth.crowd | truth.difficult)
    images = len(truth.image_id)
    boxes = np.bincount(truth.image[wanted], minlength=images)
    right = np.bincount(shown.image[claimed >= 0], minlength=images)
    reported = np.bincount(shown.image[~ignored], minlength=images)
    f1 = np.where(reported + boxes > 0, f1_scores(right, reported, boxes), np.nan)
    overall = float(f1_scores(right.sum(), reported.sum(), boxes.sum()))
    wrong = (claimed < 0) & ~ignored
    judged = shown, claimed, wrong, wanted, boxes, f1
    return _Judged(printable(run.name), len(found), lowest, threshold is None, overall, *judged)


def _gain(f1: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return by how much the other runs are better than the first on average; NaN where there is nothing to judge."""
    nothing = np.isnan(f1).all(axis=0)
    first, *others = np.nan_to_num(f1, nan=1.0)
    gain: NDArray[np.float64] = np.where(nothing, np.nan, np.mean(others, axis=0) - first)
    return gain


def _title(run: Evaluated) -> str:
    metrics = [f"{name} {points(run.metrics.get(name), 1)}" for name in ("AP", "AP50")]
    return f"{printable(run.name)}: {', '.join(metrics)}"


def _largest_first(boxes: NDArray[np.int64], truth: GroundTruth) -> list[int]:
    ordered: list[int] = boxes[np.argsort(-truth.area[boxes], kind="stable")].tolist()
    return ordered
