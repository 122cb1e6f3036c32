"""A tiny YOLO data set, and a small model's training on it as a user starts it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image, ImageDraw
from zoo import small_ultralytics as small

from msbal.engine import make
from msbal.records import read_intervals
from msbal.records.losses_log import open_losses
from msbal.records.replay import replay

SIDE = 64


def make_data(root: Path, train: int = 8, val: int = 2, polygons: bool = False) -> Path:
    """Draw images with rectangles of two classes; return their ``data.yaml``, a narrow ``yolov8n.yaml`` beside it.

    Args:
        polygons: give each object by its corners, as for masks and oriented boxes.
    """
    root.mkdir(parents=True, exist_ok=True)
    narrow = small.shrink("v8/yolov8.yaml") | {"scales": {"n": [0.33, 0.125, 128]}}
    (root / "yolov8n.yaml").write_text(yaml.safe_dump(narrow), encoding="utf-8")
    draws = random.Random(0)
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            image = Image.new("RGB", (SIDE, SIDE), (draws.randrange(90),) * 3)
            pen, lines = ImageDraw.Draw(image), []
            for _ in range(draws.randint(1, 3)):
                kind_of, width, height = draws.randrange(2), draws.randint(8, 40), draws.randint(8, 40)
                x, y = draws.randint(0, SIDE - width), draws.randint(0, SIDE - height)
                pen.rectangle((x, y, x + width, y + height), fill=(200, 60, 60) if kind_of else (60, 200, 60))
                numbers: tuple[float, ...] = (
                    (x + width / 2) / SIDE,
                    (y + height / 2) / SIDE,
                    width / SIDE,
                    height / SIDE,
                )
                if polygons:
                    corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
                    numbers = tuple(number / SIDE for corner in corners for number in corner)
                lines.append(" ".join(map(str, (kind_of, *numbers))))
            image.save(root / "images" / split / f"{number}.png")
            (root / "labels" / split / f"{number}.txt").write_text("\n".join(lines))
    path = root / "data.yaml"
    path.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [green, red]\n")
    return path


def arguments(data: Path, folder: Path, **more: Any) -> dict[str, Any]:
    """Arguments of ``YOLO.train`` for a few seconds on the CPU: two batches an epoch."""
    return {
        "data": str(data), "project": str(folder), "name": "run", "epochs": 3, "imgsz": SIDE, "batch": 4, "workers": 0,
        "plots": False, "verbose": False, "device": "cpu", "amp": False, **more,
    }  # fmt: skip


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint of ultralytics."""
    checkpoint = torch.load(path, weights_only=False)
    found: dict[str, torch.Tensor] = (checkpoint["ema"] or checkpoint["model"]).state_dict()
    return found


def msbal_in(folder: Path) -> Iterator[Path]:
    """Checkpoints of ultralytics that name anything of msbal's."""
    for path in folder.glob("*.pt"):
        if path.name != "msbal.pt" and b"msbal" in path.read_bytes():
            yield path


def assert_one_unbroken_run(folder: Path, interval: int, iterations: int, strategy: str = "rlo") -> None:
    """The records are those of one balancer that saw the losses of ``losses.csv`` in one go."""
    records = read_intervals(folder / "intervals.jsonl")
    assert [record.iteration for record in records] == list(range(interval, iterations + 1, interval))
    (losses,) = open_losses(folder / "losses.csv")
    expected = [report.record for report in replay(losses, make(strategy), interval)]
    for ours, theirs in zip(records, expected, strict=True):
        assert ours.action == theirs.action
        assert ours.weights == pytest.approx(theirs.weights, rel=1e-9)
        assert ours.variance_reduction == pytest.approx(theirs.variance_reduction, rel=1e-6)
        assert ours.probabilities == pytest.approx(theirs.probabilities, rel=1e-9)
