from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detection_scenes import HEIGHT, WIDTH, make_scenes
from PIL import Image

from msbal.data import DetectionData, ImageRecord
from msbal.errors import DataError
from msbal.evaluation.compared_images import GAP, PANEL, RUNS, TRUTH, draw
from msbal.evaluation.runs import Evaluated, evaluate_entries

SIZE = 200  # of the pictures here; drawn at PANEL / SIZE = 4 times


def scene(folder: Path, count: int = 4) -> DetectionData:
    """Grey pictures with one box at (50, 50) of 100 x 100 each."""
    records = []
    for n in range(1, count + 1):
        path = folder / f"{n:03d}.png"
        Image.new("RGB", (SIZE, SIZE), (128, 128, 128)).save(path)
        records.append(
            ImageRecord(
                id=n, path=path, width=SIZE, height=SIZE,
                boxes=np.array([[50, 50, 150, 150]], np.float32), labels=np.zeros(1, np.int64),
                area=np.array([10_000], np.float32), crowd=np.zeros(1, np.bool_), difficult=np.zeros(1, np.bool_),
            )
        )  # fmt: skip
    return DetectionData("grey", ("thing",), (1,), tuple(records))


def found(image: int, score: float = 0.9, x: float = 50) -> dict[str, Any]:
    return {"image_id": image, "category_id": 1, "bbox": [x, 50, 100, 100], "score": score}


def colours(path: Path) -> list[set[tuple[int, ...]]]:
    """The colours in each third of a picture with three panels, caption left out."""
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB"))[30:]
    # Packed into one number each: so many tuples would take seconds.
    packed = pixels.astype(np.int64) @ (65536, 256, 1)
    return [
        {(colour >> 16, colour >> 8 & 255, colour & 255) for colour in np.unique(part).tolist()}
        for part in np.array_split(packed, 3, axis=1)
    ]


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def test_the_most_different_images_come_first(tmp_path: Path) -> None:
    data = scene(tmp_path)
    # 1: alike; 2: only the second finds it; 3: the first also has two wrong ones; 4: alike
    base = evaluate_entries("base", [found(1), found(3), found(3, x=-40), found(3, x=140), found(4)], data)
    rlo = evaluate_entries("rlo", [found(1), found(2), found(3), found(4)], data)
    files, failed = draw([base, rlo], 3, tmp_path / "out")
    assert [file.name for file in files] == ["001_003.png", "002_002.png", "003_001.png"]
    assert failed == [] and all(file.is_file() for file in files)


def test_ground_truth_is_green_the_first_run_blue_the_second_red(tmp_path: Path) -> None:
    data = scene(tmp_path, 1)
    runs = [evaluate_entries(name, [found(1)], data) for name in ("base", "rlo")]
    (file,), _ = draw(runs, 5, tmp_path / "out")
    truth, first, second = colours(file)
    seen = [rgb(colour) for colour in (TRUTH, RUNS[0], RUNS[1])]
    assert [colour in truth for colour in seen] == [True, False, False]
    assert [colour in first for colour in seen] == [False, True, False]
    assert [colour in second for colour in seen] == [False, False, True]
    with Image.open(file) as picture:
        assert picture.size == (3 * (PANEL + GAP) + GAP, PANEL + 30 + GAP)


def test_boxes_lie_where_they_should_and_a_wrong_one_is_dashed(tmp_path: Path) -> None:
    data = scene(tmp_path, 1)
    right = evaluate_entries("right", [found(1)], data)
    wrong = evaluate_entries("wrong", [found(1, x=90)], data)
    (file,), _ = draw([right, wrong], 1, tmp_path / "out")
    scale = PANEL // SIZE
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)

    def share(panel: int, left: float, colour: str) -> float:
        """Of the box's left edge, the share that has its colour; the middle of it, away from labels."""
        x = GAP + panel * (PANEL + GAP) + round(left * scale) + 1
        edge = pixels[30 + 80 * scale : 30 + 120 * scale, x]
        return float((np.abs(edge - np.array(rgb(colour))).sum(axis=1) == 0).mean())

    assert share(0, 50, TRUTH) == share(1, 50, RUNS[0]) == 1.0
    assert 0.4 < share(2, 90, RUNS[1]) < 0.8
    assert share(2, 50, RUNS[1]) == 0.0


def test_scores_below_the_threshold_are_not_shown(tmp_path: Path) -> None:
    data = scene(tmp_path, 1)
    runs = [evaluate_entries("base", [found(1)], data), evaluate_entries("low", [found(1, 0.49)], data)]
    (file,), _ = draw(runs, 1, tmp_path / "out")
    assert rgb(RUNS[1]) not in colours(file)[2]
    (file,), _ = draw(runs, 1, tmp_path / "lower", threshold=0.4)
    assert rgb(RUNS[1]) in colours(file)[2]


def test_one_run_alone_shows_its_mistakes_first(tmp_path: Path) -> None:
    data = scene(tmp_path, 3)
    alone = evaluate_entries("alone", [found(1), found(3)], data)
    files, _ = draw([alone], 1, tmp_path / "out")
    assert [file.name for file in files] == ["001_002.png"]
    with Image.open(files[0]) as picture:
        assert picture.width == 2 * (PANEL + GAP) + GAP


def test_a_missing_or_damaged_picture_is_passed_over(tmp_path: Path) -> None:
    data = scene(tmp_path, 3)
    run = evaluate_entries("run", [], data)
    data.images[0].path.unlink()
    data.images[1].path.write_bytes(b"no picture")
    files, failed = draw([run], 2, tmp_path / "out")
    assert [file.name for file in files] == ["001_003.png"]
    assert len(failed) == 2 and "001.png cannot be drawn" in failed[0]
    data.images[2].path.unlink()
    with pytest.raises(DataError, match="none of the images can be read"):
        draw([run], 2, tmp_path / "out")


def test_metrics_without_predictions_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no predictions"):
        draw([Evaluated("recorded", {})], 1, tmp_path)


def test_anything_can_be_drawn(tmp_path: Path) -> None:
    """Boxes over the edge, crowds, tiny pictures, hundreds of detections, long names."""
    data, predictions = make_scenes(51, images=4, detections=60)
    images = []
    for n, image in enumerate(data.images):
        path = tmp_path / f"{n}.png"
        size = (WIDTH, HEIGHT) if n else (3, 7)
        Image.new("L", size).save(path)
        images.append(replace(image, path=path, width=size[0], height=size[1]))
    data = replace(
        data, images=tuple(images), classes=tuple(f"{name} {'long ' * 20}" for name in data.classes)
    )
    shifted = [{**p, "bbox": [p["bbox"][0] - 200, *p["bbox"][1:]]} for p in predictions]
    runs = [
        evaluate_entries("a name " * 20, found, data) for found in (predictions, shifted, [], predictions)
    ]
    files, failed = draw(runs, 10, tmp_path / "out", threshold=0.0)
    assert len(files) == 4 and not failed


def test_a_photograph_is_turned_as_its_exif_orientation_says(tmp_path: Path) -> None:
    data = scene(tmp_path, 1)
    pixels = np.full((SIZE, SIZE, 3), 128, np.uint8)
    pixels[:40] = 255  # stored at the top, shown at the bottom
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(data.images[0].path, exif=exif)
    (file,), _ = draw([evaluate_entries("base", [], data)], 1, tmp_path / "out")
    with Image.open(file) as drawn:
        below = np.asarray(drawn)[-100:-20, GAP + 20 : GAP + 100]
    assert below.min() > 250
