"""What a run draws of itself, and that a drawing that fails is no more than a note."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msbal.backend import Monitor
from msbal.data import DetectionData, ImageRecord
from msbal.drawing import training_images
from msbal.drawing.class_colors import class_color
from msbal.evaluation import usable_detections
from msbal.records import RunDirectory
from msbal.training.run_images import draw_detections, draw_training_data

SIZE = 64


def make_data(folder: Path, labels: list[list[int]]) -> DetectionData:
    records = []
    for n, of_image in enumerate(labels):
        Image.new("RGB", (SIZE, SIZE), "grey").save(folder / f"{n}.png")
        boxes = np.array([[5 + 9 * k, 20, 35 + 9 * k, 50] for k in range(len(of_image))], np.float32)
        none = np.zeros(len(of_image), np.bool_)
        records.append(
            ImageRecord(
                n, folder / f"{n}.png", SIZE, SIZE, boxes.reshape(-1, 4), np.array(of_image, np.int64),
                np.full(len(of_image), 900, np.float32), none, none,
            )
        )  # fmt: skip
    return DetectionData("tiny", ("cat", "dog", "hen"), (1, 2, 3), tuple(records))


class Listener(Monitor):
    def __init__(self) -> None:
        self.drawn_: list[tuple[int, str, Path]] = []
        self.said: list[str] = []

    def drawn(self, iteration: int, name: str, path: Path) -> None:
        self.drawn_.append((iteration, name, path))

    def message(self, text: str) -> None:
        self.said.append(text)


def colors_in(path: Path) -> set[int]:
    """The classes whose colours are seen in an image."""
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB")).reshape(-1, 3)
    rgb = [tuple(int(class_color(n)[i : i + 2], 16) for i in (1, 3, 5)) for n in range(3)]
    return {n for n, color in enumerate(rgb) if (pixels == color).all(axis=1).sum() > 500}


def test_training_images_are_drawn_with_all_their_classes(tmp_path: Path) -> None:
    """Of a folder that is sorted by class, with images that have no box and a crowded one."""
    data = make_data(tmp_path, [[]] * 9 + [[0]] * 30 + [[1]] * 5 + [[2]] + [[0, 1, 2, 0, 1, 2]])
    run, monitor = RunDirectory(tmp_path / "run"), Listener()
    draw_training_data(run, data, monitor)
    path = run.images / "train.png"
    assert monitor.drawn_ == [(0, "train", path)] and not monitor.said
    assert colors_in(path) == {0, 1, 2}


def test_large_photographs_do_not_hold_up_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.1)
        read.append(arguments)
        return np.zeros((SIZE, SIZE, 3), np.uint8)

    monkeypatch.setattr(training_images, "pixels_of", slowly)
    training_images.training_sheet(make_data(tmp_path, [[0]] * 8), seconds=0.15)
    assert 1 <= len(read) <= 3


def test_detections_are_drawn(tmp_path: Path) -> None:
    data = make_data(tmp_path, [[0], [1], []])
    found = [{"image_id": 0, "category_id": 1, "bbox": [5, 20, 30, 30], "score": 0.03}]
    run, monitor = RunDirectory(tmp_path / "run"), Listener()
    draw_detections(run, data, usable_detections(data, found), {"AP": 0.5, "AP50": 0.5}, 8, monitor)
    path = run.images / "detections.png"
    assert monitor.drawn_ == [(8, "detections", path)] and not monitor.said
    assert 0 in colors_in(path)


def test_a_drawing_that_fails_is_a_note(tmp_path: Path) -> None:
    data = make_data(tmp_path, [[0], [1]])
    run, monitor = RunDirectory(tmp_path / "run"), Listener()
    run.path.mkdir()
    run.images.write_text("a file where the folder belongs")
    draw_training_data(run, data, monitor)
    for image in data.images:
        image.path.unlink()
    draw_detections(run, data, usable_detections(data, []), {}, 8, monitor)
    assert monitor.drawn_ == []
    assert [text.split(" could not")[0] for text in monitor.said] == ["train.png", "detections.png"]
    assert "none of the images can be read" in monitor.said[1]
