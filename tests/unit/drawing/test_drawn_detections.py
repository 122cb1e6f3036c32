from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msbal.data import DetectionData, ImageRecord
from msbal.drawing.choice import choose
from msbal.drawing.class_colors import class_color
from msbal.drawing.detections import SINGLE, TILE, DrawnDetections
from msbal.drawing.marked_image import Mark, marked
from msbal.errors import DataError
from msbal.evaluation.runs import Evaluated, evaluate_entries

SIZE = 100  # of the images here
GREY = (128, 128, 128)


def scene(folder: Path, count: int = 4) -> DetectionData:
    """Grey images with one box at (30, 30) of 40 x 40 each."""
    records = []
    for n in range(1, count + 1):
        path = folder / f"{n:03d}.png"
        Image.new("RGB", (SIZE, SIZE), GREY).save(path)
        records.append(
            ImageRecord(
                id=n, path=path, width=SIZE, height=SIZE,
                boxes=np.array([[30, 30, 70, 70]], np.float32), labels=np.zeros(1, np.int64),
                area=np.array([1600], np.float32), crowd=np.zeros(1, np.bool_), difficult=np.zeros(1, np.bool_),
            )
        )  # fmt: skip
    return DetectionData("grey", ("thing",), (1,), tuple(records))


def found(image: int, score: float = 0.9, x: float = 30) -> dict[str, Any]:
    return {"image_id": image, "category_id": 1, "bbox": [x, 30, 40, 40], "score": score}


def rgb(color: str) -> tuple[int, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def share(image: Image.Image, x: float, color: str) -> float:
    """Of the middle of a box's left edge in a marked image, the share that has its colour."""
    scale = image.width / SIZE
    edge = np.asarray(image)[round(42 * scale) : round(58 * scale), round(x * scale) + 1]
    return float((edge == np.array(rgb(color))).all(axis=1).mean())


def tiles(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is drawn on each image and written above it, in their order: marks, note, tag, caption."""
    from msbal.drawing import detections

    drawn: list[tuple[Any, ...]] = []
    notes: list[tuple[Any, ...]] = []

    def mark(pixels: Any, marks: Any, room: Any, note: str = "") -> Any:
        notes.append((marks, note))
        return marked(pixels, marks, room, note)

    def tile(image: Any, caption: str, tag: str = "", *color: str) -> Any:
        drawn.append((*notes[-1], tag, caption))
        return made(image, caption, tag, *color)

    made = detections.Tile
    monkeypatch.setattr(detections, "marked", mark)
    monkeypatch.setattr(detections, "Tile", tile)
    return drawn


def test_right_wrong_and_missed_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = scene(tmp_path, 3)
    run = evaluate_entries("run", [found(1), found(2), found(2, x=-10)], data)
    seen = tiles(monkeypatch)
    DrawnDetections([run], 3, threshold=0.5).sheet()
    captions = [caption for *_, caption in seen]
    assert captions == [
        "001.png, F1 100: 1 right, 0 wrong, 0 missed",
        "002.png, F1 67: 1 right, 1 wrong, 0 missed",
        "003.png, F1 0: 0 right, 0 wrong, 1 missed",
    ]
    assert [tag for *_, tag, _ in seen] == ["best", "typical", "worst"]
    right, wrong, missed = (
        [(m.label, m.line, m.cross, m.color == class_color(0)) for m in marks] for marks, *_ in seen
    )
    assert right == [("", "thin", False, False), ("thing 0.90", "solid", False, True)]
    assert wrong[2] == ("thing 0.90", "dashed", True, True)
    assert missed == [("thing", "dashed", False, False)]
    assert [note for _, note, *_ in seen] == ["", "", "no detection above 0.5"]


def test_boxes_lie_where_they_should_in_their_colors() -> None:
    grey = np.full((SIZE, SIZE, 3), GREY, np.uint8)
    solid = marked(grey, [Mark(np.array([30.0, 30, 70, 70]), "#ff0000")], (400, 400))
    dashed = marked(grey, [Mark(np.array([30.0, 30, 70, 70]), "#ff0000", line="dashed")], (400, 400))
    thin = marked(grey, [Mark(np.array([30.0, 30, 70, 70]), "#ffffff", line="thin")], (400, 400))
    assert solid.size == (400, 400)
    assert share(solid, 30, "#ff0000") == share(thin, 30, "#ffffff") == 1.0
    assert 0.4 < share(dashed, 30, "#ff0000") < 0.8
    assert share(solid, 50, "#ff0000") == 0.0


def test_labels_do_not_cover_each_other() -> None:
    grey = np.full((SIZE, SIZE, 3), GREY, np.uint8)
    colors = [f"#{n:02x}0000" for n in range(100, 106)]
    marks = [Mark(np.array([40.0 + n, 40, 60 + n, 60]), color, "a thing") for n, color in enumerate(colors)]
    alone = [np.asarray(marked(grey, [mark], (400, 400))) for mark in marks]
    together = np.asarray(marked(grey, marks, (400, 400)))

    def areas(pixels: Any, color: str) -> int:
        return int((pixels == np.array(rgb(color))).all(axis=2).sum())

    # Apart from the thin lines of the boxes, as much of each label is seen as where it is alone.
    seen = [areas(together, color) / areas(one, color) for one, color in zip(alone, colors, strict=True)]
    assert min(seen) > 0.6


def test_the_threshold_fits_the_scores_and_is_said(tmp_path: Path) -> None:
    """A first run, whose highest score is low, shows boxes all the same."""
    data = scene(tmp_path, 2)
    run = evaluate_entries("first", [found(1, 0.062), found(2, 0.031), found(2, 0.011, x=-10)], data)
    drawn = DrawnDetections([run], 2)
    assert (
        drawn.how[0]
        == "2 images of grey. Shown: detections above 0.031 (F1 100.0), where F1 at IoU 0.5 is highest."
    )
    assert (np.asarray(drawn.sheet()) == np.array(rgb(class_color(0)))).all(axis=2).sum() > 1000
    asked = DrawnDetections([run], 2, threshold=0.5)
    assert "above 0.5 (F1 0.0), as asked for" in asked.how[0]


def test_how_the_images_were_chosen_is_said(tmp_path: Path) -> None:
    data = scene(tmp_path, 9)
    run = evaluate_entries("run", [found(n) for n in range(1, 6)], data)
    drawn = DrawnDetections([run], 5)
    assert (
        drawn.how[1]
        == "Images chosen by their F1: 2 best, 1 typical, 2 worst (typical: nearest the median, 100)."
    )
    assert [name[:8] for name, _ in drawn.singles()] == [
        "01_best_",
        "02_best_",
        "03_typic",
        "04_worst",
        "05_worst",
    ]


def test_runs_stand_beside_the_ground_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images: where the others gain most over the first, where they gain least or lose, and typical ones."""
    data = scene(tmp_path, 5)
    base = evaluate_entries("base", [found(n) for n in (1, 2, 4, 5)], data)
    rlo = evaluate_entries("rlo", [found(n) for n in (1, 2, 3, 4)], data)
    seen = tiles(monkeypatch)
    drawn = DrawnDetections([base, rlo], 3, threshold=0.5)
    sheet = drawn.sheet()
    assert [tag for *_, tag, _ in seen[::3]] == ["largest gain", "typical", "smallest gain"]
    assert [(tag, caption) for *_, tag, caption in seen[:3]] == [
        ("largest gain", "003.png: ground truth"),
        ("base", "F1 0: 0 right, 0 wrong, 1 missed"),
        ("rlo", "F1 100: 1 right, 0 wrong, 0 missed"),
    ]
    assert seen[6][-1] == "005.png: ground truth"
    assert "gain in F1 over base" in drawn.how[1] and "base, F1 88.9" in drawn.how[0]
    assert sheet.width > 3 * TILE[1]
    assert next(iter(drawn.singles()))[1].width > 3 * SINGLE[1]


def test_choice_is_a_spread_and_passes_over_what_cannot_be_shown() -> None:
    score = np.array([0.0, 0.5, 1.0, np.nan, 0.5, 1.0, 0.0, 0.6])
    boxes = np.array([1, 2, 1, 0, 9, 7, 3, 2])
    everything = choose(score, boxes, 6, lambda index: True)
    assert everything == [
        ("best", 5),
        ("best", 2),
        ("typical", 1),
        ("typical", 4),
        ("worst", 6),
        ("worst", 0),
    ]
    some = choose(score, boxes, 3, lambda index: index not in (5, 6))
    assert some == [("best", 2), ("typical", 1), ("worst", 0)]
    assert len(choose(score, boxes, 50, lambda index: True)) == len(score)
    assert choose(score, boxes, 1, lambda index: True) == [("typical", 1)]


def test_a_missing_or_damaged_image_is_passed_over(tmp_path: Path) -> None:
    data = scene(tmp_path, 3)
    run = evaluate_entries("run", [], data)
    data.images[0].path.unlink()
    data.images[1].path.write_bytes(b"no image")
    drawn = DrawnDetections([run], 2)
    assert [name for name, _ in drawn.singles()] == ["01_best_003.png"]
    assert len(drawn.unreadable) == 2 and "001.png cannot be drawn" in drawn.unreadable[0]
    data.images[2].path.unlink()
    with pytest.raises(DataError, match="none of the images can be read"):
        DrawnDetections([run], 2)


def test_metrics_without_predictions_cannot_be_drawn() -> None:
    with pytest.raises(DataError, match="has no predictions"):
        DrawnDetections([Evaluated("recorded", {})], 1)


def test_anything_can_be_drawn(tmp_path: Path) -> None:
    """Boxes over the edge, crowds, tiny and long images, hundreds of detections, odd names."""
    rng = np.random.default_rng(0)
    records = []
    for n, size in enumerate([(3, 7), (900, 2), (60, 80), (64, 64)]):
        path = tmp_path / f"{n}.png"
        Image.new("L", size).save(path)
        corner = rng.uniform(-20, 60, (8, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0, 90, (8, 2))], axis=1).astype(np.float32)
        records.append(
            ImageRecord(
                n, path, *size, boxes, rng.integers(0, 50, 8), np.full(8, 9, np.float32),
                rng.random(8) < 0.3, rng.random(8) < 0.3,
            )
        )  # fmt: skip
    names = tuple(f"name {n}\n" + "long " * 20 * (n % 2) + "Zürich 猫" for n in range(50))
    data = DetectionData("odd\nname", names, tuple(range(50)), tuple(records))
    entries = [
        {"image_id": int(n % 4), "category_id": int(n % 50), "bbox": box, "score": float(n) / 400}
        for n, box in enumerate(rng.uniform(-50, 100, (400, 4)).clip([-50, -50, 0, 0]).tolist())
    ]
    runs = [evaluate_entries("a name " * 20, each, data) for each in (entries, [], entries[:200], entries)]
    drawn = DrawnDetections(runs, 10, threshold=0.0)
    drawn.sheet()
    assert len(list(drawn.singles())) == len(drawn) == 4


def test_a_photograph_is_turned_as_its_exif_orientation_says(tmp_path: Path) -> None:
    data = scene(tmp_path, 1)
    pixels = np.full((SIZE, SIZE, 3), 128, np.uint8)
    pixels[:20] = 255  # stored at the top, shown at the bottom
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(data.images[0].path, exif=exif)
    sheet = np.asarray(DrawnDetections([evaluate_entries("base", [found(1)], data)], 1).sheet())
    column = sheet[:, TILE[1] // 2]
    grey = np.flatnonzero((np.abs(column.astype(int) - 128) < 3).all(axis=1))
    assert len(grey) > TILE[1] / 4
    # White follows the grey of the photograph for a fifth of its height.
    assert (sheet[grey[-1] + 10 : grey[-1] + TILE[1] // 6, TILE[1] // 2] > 250).all()
