"""Two processes, by ultralytics' own launcher: it sends the callbacks, pickled, to workers that build the trainer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

pytest.importorskip("ultralytics", reason="ultralytics is not installed")
pytest.importorskip("msbal_ultralytics", reason="the ultralytics backend is not installed")
pytest.importorskip("cloudpickle", reason="ultralytics' launcher would install it")

from tiny_yolo import arguments, make_data, msbal_in, weights
from ultralytics import YOLO
from ultralytics_two_processes import TwoProcesses, stop, write_down

from msbal.errors import SpecError
from msbal.records import read_intervals
from msbal_ultralytics import balance


@pytest.mark.release
def test_two_processes_have_the_bits_of_two_without_balancing(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    for name in ("plain", "balanced"):
        yolo = YOLO(data.with_name("yolov8n.yaml"))
        if name == "balanced":
            handle = balance(yolo, "equal", interval=3, measure=2)
        yolo.train(trainer=TwoProcesses, **arguments(data, tmp_path, name=name, epochs=2, batch=2))
    plain, balanced = (weights(tmp_path / name / "weights" / "last.pt") for name in ("plain", "balanced"))
    assert all(torch.equal(plain[key], balanced[key]) for key in plain)
    records = read_intervals(tmp_path / "balanced" / "intervals.jsonl")
    assert [(record.iteration, record.gradient_count) for record in records] == [(3, 2), (6, 2)]
    assert not list(msbal_in(tmp_path / "balanced" / "weights"))
    with pytest.raises(SpecError, match=r"on several devices .* read intervals\.jsonl"):
        _ = handle.losses


@pytest.mark.release
def test_two_processes_decide_alike_and_resume(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    yolo = YOLO(data.with_name("yolov8n.yaml"))
    balance(yolo, interval=3, seed=3)
    yolo.add_callback("on_train_epoch_end", write_down)
    yolo.add_callback("on_fit_epoch_end", stop)
    with pytest.raises(subprocess.CalledProcessError):
        yolo.train(trainer=TwoProcesses, **arguments(data, tmp_path, epochs=4, batch=2))
    resumed = YOLO(tmp_path / "run" / "weights" / "last.pt")
    balance(resumed, interval=3, seed=3)
    resumed.add_callback("on_train_epoch_end", write_down)
    resumed.train(resume=True, trainer=TwoProcesses)
    folder = tmp_path / "run"
    for epoch in range(4):
        ranks = [json.loads((folder / f"rank{rank}-{epoch}.json").read_text()) for rank in range(2)]
        assert ranks[0] == ranks[1] != {}
    records = read_intervals(folder / "intervals.jsonl")
    assert [record.iteration for record in records] == [3, 6, 9, 12, 15]
    assert [record.previous_weights for record in records[1:]] == [record.weights for record in records[:-1]]
