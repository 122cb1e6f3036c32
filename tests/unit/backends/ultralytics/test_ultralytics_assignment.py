"""The level of each box against the answers of ultralytics' assigner, box by box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("ultralytics", reason="ultralytics is not installed")
pytest.importorskip("msbal_ultralytics", reason="the ultralytics backend is not installed")

from ultralytics_shrunk import shrunk

from msbal.backend import count_boxes, load_backend
from msbal.spec import parse_spec
from msbal.training import read_data

SIDE = 128


@pytest.mark.parametrize("name", ["yolov8", "yolo26"])
def test_it_is_the_level_with_the_most_positives(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    spec = parse_spec({
        "backend": "ultralytics", "model": {"config": shrunk(name), "overrides": {"imgsz": SIDE}},
        "data": {"format": "generated", "root": str(tmp_path), "train_images": 11, "val_images": 1},
        "schedule": {"batch_size": 2},
        "output": str(tmp_path / "out"),
    })  # fmt: skip
    data, _ = read_data(spec)
    detector: Any = load_backend("ultralytics").build(spec, data.classes)
    heard: dict[str, list[Any]] = {splitter.group.name: [] for splitter in detector.splitters}
    for splitter in detector.splitters:
        answers = heard[splitter.group.name]
        splitter.owner.assigner.register_forward_hook(
            lambda _, given, answer, answers=answers: answers.append((given[4], given[5], answer))
        )
    done: list[int] = []
    found = detector.box_levels(data, by_running=True, progress=done.append)
    assert done[0] == 8 and done[-1] == len(data) == 11
    cells = [(SIDE // stride) ** 2 for stride in (8, 16, 32)]
    level_of = np.repeat([0, 1, 2], cells)
    for group, passes in heard.items():
        expected = []
        records = (record for record in data.images if len(record.boxes))
        for boxes, valid, (*_, foreground, target) in passes:
            for image in range(len(boxes)):
                record = next(records)
                scale = SIDE / max(record.width, record.height)
                seen = boxes[image][valid[image].bool().flatten()]
                sizes = (record.boxes[:, 2:] - record.boxes[:, :2]) * scale
                assert np.allclose((seen[:, 2:] - seen[:, :2]).numpy(), sizes, atol=1)
                for box in range(len(seen)):
                    mine = foreground[image].bool() & (target[image] == box)
                    votes = np.bincount(level_of[mine.numpy()], minlength=3)
                    expected.append(int(votes.argmax()) if votes.any() else -1)
        assert found[group].tolist() == expected and max(expected) >= 0
    counts = count_boxes(detector, data, by_running=True)
    for group, (levels, none) in counts.items():
        assert levels == [int((found[group] == level).sum()) for level in range(3)]
        assert none == int((found[group] == -1).sum())
    assert detector.box_levels(data) == {} == count_boxes(detector, data)
