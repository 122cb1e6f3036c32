"""A data set as each exporter writes it: what is found in it, and from `msbal init` to `msbal eval`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from exporters import (
    CLASSES,
    TRAIN,
    TRUTH,
    VAL,
    WITH_SPLIT,
    WITHOUT_SPLIT,
    cvat_voc,
    cvat_yolo,
    fiftyone_yolov5,
    label_studio_coco,
    labelme_coco,
    roboflow_yolo,
)
from pydantic import TypeAdapter

from msbal.cli.app import run
from msbal.data import DetectionData, load, recognise
from msbal.spec import DataSpec

Maker = Callable[[Path], None]


def read(data: DetectionData) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """Class and box of everything, by the stem that the exporter began with."""
    return {
        next(stem for stem in TRUTH if stem in image.path.stem): sorted(
            (data.classes[label], tuple(round(value) for value in box))
            for label, box in zip(image.labels.tolist(), image.boxes.tolist(), strict=True)
        )
        for image in data.images
    }


@pytest.mark.parametrize("make", [*WITH_SPLIT, *WITHOUT_SPLIT], ids=lambda make: make.__name__)
def test_what_is_found(tmp_path: Path, make: Maker) -> None:
    make(tmp_path)
    section = recognise(tmp_path).data
    spec: DataSpec = TypeAdapter(DataSpec).validate_python(section)
    train, val = load(spec, "train"), load(spec, "val")
    assert val is not None
    assert train.classes == val.classes == CLASSES
    found = read(train), read(val)
    assert {**found[0], **found[1]} == {stem: sorted(boxes) for stem, boxes in TRUTH.items()}
    if make in WITH_SPLIT:
        assert (tuple(found[0]), tuple(found[1])) == (TRAIN, VAL) and spec.holdout is None
    else:
        assert spec.holdout == 0.2 and not set(found[0]) & set(found[1])
    assert not train.dropped and not val.dropped and not train.skipped


@pytest.mark.parametrize(
    ("make", "summary", "notes"),
    [
        (roboflow_yolo, "YOLO labels, classes from data.yaml, train: train/images, val: valid/images",
         ["there, and not used: test/images"]),
        (cvat_voc, "Pascal VOC folders, train: Train, val: Validation",
         ["there, and not used: kettle_Train, kettle_Validation, lamp_Train and 1 more"]),
        (cvat_yolo, "YOLO labels, classes from obj.names, train: train.txt, val: valid.txt", []),
        (label_studio_coco, "COCO annotations, train: result.json with images in ./; 20% of the images to be held out",
         ["result (train): 6 of 6 names of images are written as in an address: "]),
        (labelme_coco, "COCO annotations, train: annotations.json with images in ./; 20% of the images to be held out",
         ["`_background_` is no class: it is the name of the project or of the background"]),
        (fiftyone_yolov5, "YOLO labels, classes from dataset.yaml, train: images/train, val: images/val",
         ["images/train: 1 of 4 images have no label file, and count as images without boxes: p2.png"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_from_init_to_eval(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    make: Maker,
    summary: str,
    notes: list[str],
) -> None:
    pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    make(tmp_path / "things")

    def msbal(*arguments: str) -> str:
        code = run(list(arguments))
        printed = capfd.readouterr()
        assert code == 0, printed.err
        return printed.out

    small = [
        "model={name: retinanet, backbone: resnet18, min_size: 64, max_size: 96, fpn_channels: 16, head_convs: 1}",
        "schedule={iterations: 4, batch_size: 2, workers: 0}", "balance.interval=2", "device=cpu",
    ]  # fmt: skip
    overrides = [part for setting in small for part in ("--set", setting)]
    printed = msbal("init", "things")
    assert f"things: {summary}\n" in printed
    said = [line.removeprefix("  note: ") for line in printed.splitlines() if line.startswith("  note: ")]
    assert len(said) == len(notes) and all(map(str.startswith, said, notes))
    planned = msbal("train", "things.yaml", "--dry-run", *overrides)
    assert "# plan: 4 iterations" in planned
    msbal("train", "things.yaml", "--plain", *overrides)
    evaluated = msbal("eval", "runs/things")
    assert "AP50" in evaluated and "images," in evaluated
    assert json.loads((tmp_path / "runs/things/metrics.json").read_text())["final"]["iteration"] == 4
