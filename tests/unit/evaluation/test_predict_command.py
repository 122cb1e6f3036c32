"""`msbal predict`: images in, COCO JSON and drawings out."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from msbal.cli.app import app
from msbal.data import DetectionData
from msbal.errors import DataError, RunError, SpecError
from msbal.evaluation.predictions import sift

CLASSES = {"cat": 7, "dog": 3}


class Detector:
    """Finds a dog in the left half of each image, and a cat of which it is less sure."""

    def load(self, checkpoint: Path) -> None:
        if checkpoint.read_bytes() == b"damaged":
            raise RunError(str(checkpoint), "holds no checkpoint that can be read", fix="start anew")

    def predict(self, data: DetectionData, progress: Any = None) -> list[dict[str, Any]]:
        entries = []
        for done, image in enumerate(data.images, start=1):
            box = [0, 0, image.width / 2, image.height]
            entries.append({"image_id": image.id, "category_id": CLASSES["dog"], "bbox": box, "score": 0.4})
            entries.append({"image_id": image.id, "category_id": CLASSES["cat"], "bbox": box, "score": 0.2})
            progress(done)
        return entries


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with two checkpoints, and photographs in folders; the working folder."""
    run = tmp_path / "runs/pets"
    (run / "checkpoints").mkdir(parents=True)
    (run / "spec.yaml").write_text("backend: toy")
    start = {"data": {"classes": CLASSES}}
    (run / "environment.json").write_text(json.dumps({"starts": [start]}))
    for name in ("iteration_00000010.pth", "iteration_00000020.pth"):
        (run / "checkpoints" / name).write_bytes(b"weights")
    photos = tmp_path / "photos/day"
    photos.mkdir(parents=True)
    for name, size in (("a.jpg", (60, 40)), ("b.png", (800, 600)), ("c.bmp", (10, 10))):
        Image.new("RGB", size, "grey").save(photos / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40), "grey").save(tmp_path / "photos/turned.jpg", exif=exif)
    (photos / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    spec = SimpleNamespace(backend="toy", data=None, output=run)
    monkeypatch.setattr("msbal.spec.load_spec", lambda path, overrides: spec)
    monkeypatch.setattr("msbal.training.detector.build_detector", lambda spec, classes: Detector())
    return tmp_path


def call(*arguments: object) -> None:
    app(["predict", *map(str, arguments)], standalone_mode=False)


def test_a_folder_of_images_becomes_a_coco_document_and_drawings(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("runs/pets", "photos", "--threshold", 0.3)
    written = folder / "predictions-pets"
    document = json.loads((written / "predictions.json").read_text())
    assert {image["file_name"]: (image["width"], image["height"]) for image in document["images"]} == {
        "turned.jpg": (40, 60), "day/a.jpg": (60, 40), "day/b.png": (800, 600), "day/c.bmp": (10, 10)
    }  # fmt: skip
    assert document["info"]["image_folder"] == str(folder / "photos")
    assert document["categories"] == [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
    drawn = {path.relative_to(written / "images").as_posix() for path in (written / "images").rglob("*.*")}
    assert drawn == {"turned.jpg", "day/a.jpg", "day/b.png", "day/c.bmp.png"}
    with Image.open(written / "images/turned.jpg") as image:
        assert image.size == (427, 640)
    assert (written / "sheet.png").is_file()
    said = capsys.readouterr()
    assert "4 detections above 0.3 (as asked for) in 4 images: dog 4" in said.out
    assert "all 8 detections, as COCO JSON" in said.out
    assert "with runs/pets/checkpoints/iteration_00000020.pth" in said.err


def test_other_tools_read_the_document(folder: Path) -> None:
    call("runs/pets", "photos/day/a.jpg", "photos/day/b.png", "-o", "out", "--threshold", 0.3)
    read = COCO(str(folder / "out/predictions.json"))
    assert read.getCatIds(catNms=["dog"]) == [3]
    (dog,) = read.loadAnns(read.getAnnIds(imgIds=[1], catIds=[3]))
    assert (dog["score"], dog["bbox"], dog["area"], dog["iscrowd"]) == (0.4, [0, 0, 30, 40], 1200, 0)


def test_the_best_checkpoint_is_taken_and_another_can_be_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = folder / "runs/pets/checkpoints"
    (checkpoints / "best.pth").write_bytes(b"damaged")
    photo = "photos/day/a.jpg"
    with pytest.raises(RunError, match=r"best\.pth: holds no checkpoint .* name another with --checkpoint"):
        call("runs/pets", photo)
    call("runs/pets", photo, "-c", "iteration_00000010", "--threshold", 0.3)
    assert "iteration_00000010.pth" in capsys.readouterr().err
    with pytest.raises(
        SpecError, match=r"nope\.pth: no such file; expected .*best\.pth, iteration_00000010.pth"
    ):
        call("runs/pets", photo, "-c", "nope.pth", "-o", "other")
    for file in checkpoints.iterdir():
        file.unlink()
    with pytest.raises(SpecError, match="has no checkpoint yet"):
        call("runs/pets", photo, "-o", "other")
    assert not (folder / "other").exists()


def test_the_threshold_is_the_runs_own_where_its_validation_can_be_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call("runs/pets", "photos/day/a.jpg", "-o", "one")
    said = capsys.readouterr()
    assert (
        "the run has no threshold of its own, so 0.5 is used: " in said.err and "predictions.json" in said.err
    )
    assert "0 detections above 0.5 (by default) in 1 image: none" in said.out

    def validated(run: Any) -> DetectionData:
        from msbal.data.images.unannotated import read_unannotated

        (image,) = read_unannotated(
            [Path("photos/day/a.jpg")], tuple(CLASSES), tuple(CLASSES.values())
        ).images
        box = np.array([[0, 0, 30, 40]], np.float32)
        none = np.zeros(1, np.bool_)
        made = type(image)(1, image.path, 60, 40, box, np.ones(1, np.int64), np.full(1, 1200.0), none, none)
        return DetectionData("val", tuple(CLASSES), tuple(CLASSES.values()), (made,))

    entries = Detector().predict(validated(None), lambda done: None)
    assert len(sift(entries, validated(None))[0]) == 2
    (folder / "runs/pets/predictions.json").write_text(json.dumps(entries))
    monkeypatch.setattr("msbal.evaluation.runs.run_data", validated)
    call("runs/pets", "photos/day/a.jpg", "-o", "two")
    assert (
        "1 detection above 0.4 (best F1 in the run's last evaluation) in 1 image: dog 1"
        in capsys.readouterr().out
    )


def test_what_is_there_is_not_overwritten_silently(folder: Path) -> None:
    call("runs/pets", "photos", "--threshold", 0.3)
    with pytest.raises(SpecError, match=r"predictions-pets holds predictions already; .* --force"):
        call("runs/pets", "photos")
    with pytest.raises(SpecError, match="predictions-pets would replace the images to predict on"):
        call("runs/pets", "predictions-pets/images/day", "--force")
    assert (folder / "predictions-pets/images/day/a.jpg").is_file()
    call("runs/pets", "photos/turned.jpg", "--threshold", 0.3, "--force", "--no-draw")
    assert [path.name for path in (folder / "predictions-pets").iterdir()] == ["predictions.json"]
    with pytest.raises(SpecError, match="photos has something else in it"):
        call("runs/pets", "photos", "-o", "photos", "--force")
    (folder / "runs/pets/predictions.json").write_text("[]")  # as a run has them
    with pytest.raises(SpecError, match="runs/pets has something else in it"):
        call("runs/pets", "photos", "-o", "runs/pets", "--force")


@pytest.mark.parametrize(
    "names, message",
    [
        (["nothere.jpg"], "nothere.jpg: no such file or folder"),
        (["photos/*.webp"], "pattern that matches no images"),
        (["runs"], "runs: a folder without images"),
        (["photos/day/notes.txt", "photos/day/a.jpg"], r"notes.txt is not an image .*1 of 2 images"),
        (["photos/cut.jpg"], "cut.jpg is not an image that can be read"),
    ],
)
def test_what_is_no_image_is_refused_before_anything_is_predicted(
    folder: Path, names: list[str], message: str
) -> None:
    Image.effect_noise((300, 300), 90).save(folder / "whole.jpg")
    (folder / "photos/cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:9000])
    with pytest.raises(DataError, match=f"IMAGES: .*{message}"):
        call("runs/pets", *names)
    assert not (folder / "predictions-pets").exists()


def test_images_are_found_by_file_folder_and_pattern_each_once(folder: Path) -> None:
    call(
        "runs/pets",
        "photos/day/a.jpg",
        "photos/day",
        str(folder / "photos/**/*.jpg"),
        "--no-draw",
        "-o",
        "out",
    )
    document = json.loads((folder / "out/predictions.json").read_text())
    assert [image["file_name"] for image in document["images"]] == [
        "day/a.jpg",
        "day/b.png",
        "day/c.bmp",
        "turned.jpg",
    ]


@pytest.mark.parametrize("run, message", [("nothere", "no such file"), ("photos", "photos holds no run")])
def test_what_is_no_run_is_said(folder: Path, run: str, message: str) -> None:
    with pytest.raises(SpecError, match=f"RUN: .*{message}"):
        call(run, "photos")
