"""What is told before a training: levels without boxes, in a sample of a large data set."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from msbal.backend import LevelGroup
from msbal.cli.train import _boxes_per_level
from msbal.data import DetectionData
from msbal.data.detection_data import ImageRecord
from msbal.spec import RunSpec, parse_spec
from msbal.training import notes

pytest.importorskip("msbal_torchvision", reason="the spec's model section is the torchvision backend's")


class Detector:
    """Boxes of a side below 32 pixels belong to P3, others to P4, those of 64 to none; no box belongs to P5."""

    groups = (LevelGroup("rpn", "Head", ("P3", "P4", "P5"), (8, 16, 32), ("cls",)),)
    seen = 0

    def box_levels(self, data: DetectionData, by_running: bool = False, progress: Any = None) -> Any:
        assert not by_running
        self.seen = len(data)
        sides = np.array([record.boxes[0, 2] for record in data.images])
        return {"rpn": np.where(sides < 64, (sides >= 32).astype(np.int64), -1)}


class Silent(Detector):
    """It would have to run the model to tell."""

    def box_levels(self, data: DetectionData, by_running: bool = False, progress: Any = None) -> Any:
        return {}


def data_of(sides: list[int]) -> DetectionData:
    images = []
    for i, side in enumerate(sides):
        box, flags = np.array([[0, 0, side, side]], np.float32), np.zeros(1, bool)
        images.append(
            ImageRecord(i, Path(f"{i}.png"), 64, 64, box, np.zeros(1, np.int64), np.ones(1), flags, flags)
        )
    return DetectionData("train", ("cell",), (1,), tuple(images))


def spec_of(**balance: Any) -> RunSpec:
    return parse_spec({
        "backend": "torchvision", "model": {"name": "fasterrcnn"}, "data": {"format": "generated"},
        "schedule": {"iterations": 100, "batch_size": 1}, "balance": {"interval": 5, **balance}, "output": "out",
    })  # fmt: skip


def told(sides: list[int], **balance: Any) -> list[str]:
    return notes.notes_on(spec_of(**balance), 100, data_of(sides), None, Detector())  # type: ignore[arg-type]


def test_levels_without_boxes_are_named() -> None:
    assert told([16, 40], strategy="avw") == [
        "no training box belongs to P5 of rpn, which learns only background: other anchors or larger images would "
        "change that (model.anchor_sizes, model.min_size)"
    ]
    (said,) = told([16, 16], strategy="rlo")
    assert "P4, P5 of rpn, which learn only background, and `min_loss` will choose it again" in said
    (said,) = told([16, 16], strategy="rlo", actions=["avw", "equal"])
    assert "min_loss" not in said


def test_intervals_in_which_a_strategy_sees_no_gradients_are_told() -> None:
    every_level = [16, 32, 64]
    said = [
        [note for note in told(every_level, interval=5, **balance) if "balance.measure" in note]
        for balance in (
            {"strategy": "grad_norm", "measure": 10},
            {"strategy": "grad_norm", "measure": 5},
            {"strategy": "avw", "measure": 10},
        )
    ]
    assert said == [
        [
            "balance.measure: 10 is more than an interval's 5 iterations, and in an interval without a measurement "
            "grad_norm keeps its weights"
        ],
        [],
        [],
    ]


def test_where_the_model_would_have_to_run_nothing_is_said() -> None:
    silent: Any = Silent()
    assert list(notes._empty_levels(spec_of(strategy="avw"), silent, data_of([16, 40]))) == []
    assert _boxes_per_level(SimpleNamespace(detector=silent, train=data_of([16]))) == []  # type: ignore[arg-type]


def test_boxes_of_no_level_are_counted_apart() -> None:
    plan: Any = SimpleNamespace(detector=Detector(), train=data_of([16, 16, 40, 64]))
    assert _boxes_per_level(plan) == ["boxes per level, rpn: P3 2, P4 1, P5 0, none 1"]
    plan.train = data_of([16, 40])
    assert _boxes_per_level(plan) == ["boxes per level, rpn: P3 1, P4 1, P5 0"]


def test_a_large_data_set_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "SAMPLE", 3)
    (said,) = told([16, 40] * 4, strategy="avw")  # images 0, 3 and 6
    assert said.startswith("no training box in a sample of 3 images belongs to P5 of rpn")
    detector = Detector()
    list(notes._empty_levels(spec_of(strategy="avw"), detector, data_of([16, 40] * 4)))  # type: ignore[arg-type]
    assert detector.seen == 3
