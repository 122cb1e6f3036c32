"""The paper's Fig. 3: ground truth and the runs' detections side by side, drawn with Pillow.

Ground truth is green, the baseline's boxes are blue, the balanced run's red, as in the paper. A detection
that finds nothing by VOC's rules at IoU 0.5 is dashed, and so is a box of ground truth that no run finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from msbal.data import DetectionData, read_pixels
from msbal.errors import DataError
from msbal.evaluation.detections import Detections, GroundTruth, ground_truth
from msbal.evaluation.matching import voc_claims
from msbal.evaluation.runs import Evaluated
from msbal.records.atomic import replace_with

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

THRESHOLD = 0.5
TRUTH = "#2fbf3f"
RUNS = ("#2f6bff", "#f03030", "#e08a00", "#a040e0")
PANEL = 800  # pixels, the longer side of one panel
GAP = 8


@dataclass(frozen=True)
class _Shown:
    """The detections of one run above the threshold, D of them, and what they find."""

    detections: Detections
    claimed: NDArray[np.int64]
    ignored: NDArray[np.bool_]

    def of(self, image: int) -> NDArray[np.int64]:
        """Return the indices of those in one image."""
        return np.flatnonzero(self.detections.image == image)

    def wrong(self) -> NDArray[np.bool_]:
        """Return whether each finds nothing, ``[D]``."""
        return (self.claimed < 0) & ~self.ignored


def draw(
    runs: Sequence[Evaluated], count: int, folder: Path, threshold: float = THRESHOLD
) -> tuple[list[Path], list[str]]:
    """Draw the images in which the first two runs differ most.

    Args:
        runs: evaluated on the same data; one is drawn beside the ground truth, up to four are.
        count: how many images.
        folder: where to; made if need be.
        threshold: the least score that is shown.

    Returns:
        the files, the most different first, and what could not be drawn.

    Raises:
        DataError: where there are no predictions, or none of the images can be read.
    """
    from PIL import Image as PillowImage

    data = runs[0].data
    if data is None or any(run.detections is None for run in runs):
        name = next(run.name for run in runs if run.detections is None)
        raise DataError(name, "has no predictions", "a predictions.json", "--draw needs the boxes themselves")
    if len(runs) > len(RUNS):
        raise ValueError(f"Parameter `runs` should hold at most {len(RUNS)} runs. Found {len(runs)}.")
    truth = ground_truth(data)
    shown = [_above(run.detections, truth, threshold) for run in runs if run.detections is not None]
    written: list[Path] = []
    failed: list[str] = []
    for index in most_different(truth, shown).tolist():
        if len(written) == count:
            break
        record = data.images[index]
        try:
            photograph = PillowImage.fromarray(read_pixels(record.path, record.width, record.height))
        except DataError as error:
            failed.append(f"{record.path} cannot be drawn: it {error.found}")
            if len(failed) == 1000 and not written:
                break
            continue
        sheet = _sheet(photograph, index, data, truth, [run.name for run in runs], shown)
        path = folder / f"{len(written) + 1:03d}_{record.path.stem}.png"
        replace_with(path, lambda temporary, sheet=sheet: sheet.save(temporary, format="PNG"))  # type: ignore[misc]
        written.append(path)
    if not written and failed:
        raise DataError(
            str(data.images[0].path.parent), f"none of the images can be read ({failed[0]})", "the images",
            "name their folder with --images",
        )  # fmt: skip
    return written, failed


def most_different(truth: GroundTruth, shown: Sequence[_Shown]) -> NDArray[np.int64]:
    """Return the images, first those in which the first two of `shown` differ most.

    They differ by each box that one finds and the other does not, and by each wrong detection that one has
    more of. Equal images keep their order; with a single run, those with most mistakes come first.
    """
    images = len(truth.image_id)
    found = np.zeros((2, len(truth)), dtype=np.bool_)
    wrong = np.zeros((2, images), dtype=np.int64)
    for row, run in enumerate(shown[:2]):
        found[row, run.claimed[run.claimed >= 0]] = True
        wrong[row] = np.bincount(run.detections.image[run.wrong()], minlength=images)
    if len(shown) == 1:
        found[1] = ~(truth.crowd | truth.difficult)
    apart = np.bincount(truth.image[found[0] != found[1]], minlength=images) + np.abs(wrong[0] - wrong[1])
    return np.argsort(-apart, kind="stable")


def _above(detections: Detections, truth: GroundTruth, threshold: float) -> _Shown:
    keep = detections.score >= threshold
    kept = Detections(
        detections.image[keep], detections.label[keep], detections.box[keep], detections.score[keep]
    )
    return _Shown(kept, *voc_claims(truth, kept))


def _sheet(
    photograph: Image,
    index: int,
    data: DetectionData,
    truth: GroundTruth,
    names: Sequence[str],
    shown: Sequence[_Shown],
) -> Image:
    """Draw the ground truth of one image and what each run found, side by side."""
    from PIL import Image as PillowImage

    boxes = np.flatnonzero(truth.image == index)
    wanted = int((~(truth.crowd | truth.difficult)[boxes]).sum())
    found_at_all = {box for run in shown for box in run.claimed[run.of(index)].tolist()}
    scale = PANEL / max(photograph.size)
    size = (max(1, round(photograph.width * scale)), max(1, round(photograph.height * scale)))
    resized = photograph.resize(size, PillowImage.Resampling.LANCZOS)

    panels = [_Panel(resized, f"ground truth: {wanted}", TRUTH)]
    for g in boxes[np.argsort(-truth.area[boxes], kind="stable")].tolist():
        label = data.classes[truth.label[g]]
        label += " (crowd)" if truth.crowd[g] else " (difficult)" if truth.difficult[g] else ""
        panels[0].add(truth.box[g] * scale, label, g not in found_at_all)
    for name, run, colour in zip(names, shown, RUNS, strict=False):
        wrong, mine = run.wrong(), run.of(index)
        right = int((run.claimed[mine] >= 0).sum())
        caption = f"{name}: {right} of {wanted} found, {int(wrong[mine].sum())} wrong"
        panels.append(_Panel(resized, caption, colour))
        for d in mine[np.argsort(-run.detections.score[mine], kind="stable")].tolist():
            label = f"{data.classes[run.detections.label[d]]} {run.detections.score[d]:.2f}"
            panels[-1].add(run.detections.box[d] * scale, label, bool(wrong[d]))
    return _side_by_side(panels)


def _side_by_side(panels: Sequence[_Panel]) -> Image:
    from PIL import Image as PillowImage
    from PIL import ImageDraw

    width, height = panels[0].image.size
    # A narrow image still needs room for its caption.
    column = max(width, 320)
    head = 30
    sheet = PillowImage.new("RGB", (len(panels) * (column + GAP) + GAP, height + head + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, panel in enumerate(panels):
        left = GAP + number * (column + GAP)
        pen.rectangle((left, 8, left + 13, 21), fill=panel.colour)
        caption = _fit(pen, panel.caption, column - 24, 16)
        pen.text((left + 20, 15), caption, fill="black", font=_font(16), anchor="lm")
        sheet.paste(panel.finished(), (left + (column - width) // 2, head))
    return sheet


class _Panel:
    """Boxes and labels on a copy of an image.

    Labels give way to each other: those added first are placed first, and one that finds no free place is
    left out; its box stays.
    """

    def __init__(self, image: Image, caption: str, colour: str) -> None:
        from PIL import ImageDraw

        self.image, self.caption, self.colour = image.copy(), caption, colour
        self._pen = ImageDraw.Draw(self.image)
        self._labels: list[tuple[tuple[float, float, float, float], tuple[float, float], str]] = []

    def add(self, box: NDArray[np.float64], label: str, dashed: bool) -> None:
        """Draw a box and find a place for its label.

        Args:
            box: x, y, width, height in the panel's pixels; it may reach over the edge.
        """
        edge = np.array(self.image.size) - 1
        x1, y1 = np.clip(box[:2], 0, edge).tolist()
        x2, y2 = np.clip(box[:2] + box[2:], 0, edge).tolist()
        self._outline(x1, y1, x2, y2, dashed)
        left, top, right, bottom = self._pen.textbbox((0, 0), label, font=_font(13))
        width, height = right - left + 6, bottom - top + 6
        x = max(0.0, min(x1, self.image.width - width))
        for y in (y1 - height, y2 + 1, y1 + 2, y2 - height):
            place = (x, y, x + width, y + height)
            inside = y >= 0 and place[3] <= self.image.height
            if inside and not any(_meet(place, other) for other, _, _ in self._labels):
                self._labels.append((place, (x + 3 - left, y + 3 - top), label))
                return

    def finished(self) -> Image:
        """Write the labels over all boxes and return the image."""
        for place, corner, label in self._labels:
            self._pen.rectangle(place, fill=self.colour)
            self._pen.text(corner, label, fill="white", font=_font(13))
        return self.image

    def _outline(self, x1: float, y1: float, x2: float, y2: float, dashed: bool) -> None:
        if not dashed:
            self._pen.rectangle((x1, y1, x2, y2), outline=self.colour, width=3)
            return
        # Pillow draws no dashes.
        lines = [(at, y, min(at + 7, x2), y) for at in np.arange(x1, x2, 12.0).tolist() for y in (y1, y2)]
        lines += [(x, at, x, min(at + 7, y2)) for at in np.arange(y1, y2, 12.0).tolist() for x in (x1, x2)]
        for line in lines:
            self._pen.line(line, fill=self.colour, width=3)


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def _fit(pen: ImageDraw, text: str, width: int, size: int) -> str:
    """Return `text`, its middle left out where it is too long."""
    if pen.textlength(text, font=_font(size)) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        half = kept // 2
        short = f"{text[: kept - half]}…{text[len(text) - half :]}"
        if pen.textlength(short, font=_font(size)) <= width:
            return short
    return text[:1]


@cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
