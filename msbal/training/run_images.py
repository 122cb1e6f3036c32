"""The images that a run draws of itself, unasked: its training data at the start, its detections at the end.

A drawing that fails is a note; the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msbal.backend import Monitor
from msbal.data import DetectionData
from msbal.drawing.detections import DrawnDetections
from msbal.drawing.sheet import save
from msbal.drawing.training_images import training_sheet
from msbal.evaluation.detections import Detections
from msbal.evaluation.runs import Evaluated
from msbal.records import RunDirectory

if TYPE_CHECKING:
    from PIL.Image import Image

DETECTIONS = 6  # images on the sheet: best, typical and worst


def draw_training_data(run: RunDirectory, data: DetectionData, monitor: Monitor) -> None:
    """Draw some images as they are annotated, so that wrong boxes and classes are seen before hours are spent."""
    _draw(run, monitor, 0, "train", lambda: training_sheet(data))


def draw_detections(
    run: RunDirectory,
    data: DetectionData,
    detections: Detections,
    metrics: Mapping[str, Any],
    iteration: int,
    monitor: Monitor,
) -> None:
    """Draw the best, typical and worst of the images that were evaluated last."""
    evaluated = Evaluated(run.path.name, dict(metrics), data, detections)
    _draw(run, monitor, iteration, "detections", lambda: DrawnDetections([evaluated], DETECTIONS).sheet())


def _draw(run: RunDirectory, monitor: Monitor, iteration: int, name: str, make: Callable[[], Image]) -> None:
    path = run.images / f"{name}.png"
    monitor.progress(f"drawing {path.name}", 0, 1)
    try:
        save(make(), path)
    except Exception as error:
        monitor.message(f"{path.name} could not be drawn: {error or type(error).__name__}")
    else:
        monitor.drawn(iteration, name, path)
    monitor.progress(f"drawing {path.name}", 1, 1)
