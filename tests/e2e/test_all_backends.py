"""One spec, only `backend:` and the model's config changed: the same kind of run folder from all of our backends."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msbal_torchvision", reason="the torchvision backend is not installed")

import yaml
from detectron2_specs import RETINANET, SMALL
from msbal_process import finish, start
from needed import need_packages

from msbal.records import read_intervals
from msbal.spec import load_spec
from msbal.training.tensors import read_tensors

SIDE = 96
MODELS: dict[str, dict[str, Any]] = {
    "torchvision": {
        "name": "retinanet", "backbone": "resnet18", "min_size": SIDE, "max_size": SIDE, "fpn_channels": 8,
        "head_convs": 1, "norm": "bn",
    },
    "mmdet": {
        "config": "retinanet/retinanet_r50_fpn_1x_coco.py",
        "pretrained": False,
        "cfg_options": {
            "model.backbone.depth": 18,
            "model.neck.in_channels": [64, 128, 256, 512],
            "model.neck.out_channels": 32,
            "model.bbox_head.in_channels": 32,
            "model.bbox_head.feat_channels": 32,
            "model.bbox_head.stacked_convs": 1,
            "train_dataloader.dataset.pipeline.2.scale": [SIDE, SIDE],
            "val_dataloader.dataset.pipeline.1.scale": [SIDE, SIDE],
        },
    },
    "detectron2": {"config": RETINANET, "overrides": SMALL},
    "ultralytics": {"config": "yolov8n.yaml", "overrides": {"imgsz": SIDE}},
}  # fmt: skip
SPEC: dict[str, Any] = {
    "data": {"format": "generated", "train_images": 6, "val_images": 2, "size": SIDE},
    "schedule": {
        "iterations": 6, "batch_size": 2, "workers": 0, "optimizer": {"lr": 1e-3}, "warmup": 2, "clip_norm": 10.0,
        "checkpoint_every": 4, "scheduler": "step", "decay": [0.5],
    },
    "balance": {"strategy": "rlo", "interval": 2, "seed": 3},
    "evaluate": {"every": 4},
    "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run folder of each backend."""
    need_packages(
        "mmdet", "detectron2", "ultralytics", "msbal_mmdet", "msbal_detectron2", "msbal_ultralytics"
    )
    folder = tmp_path_factory.mktemp("all")
    found = {}
    for backend, model in MODELS.items():
        spec = {"backend": backend, "model": model, **SPEC}
        spec["data"] = {**SPEC["data"], "root": str(folder / "data")}
        (folder / f"{backend}.yaml").write_text(yaml.safe_dump(spec))
        finish(start(folder, "train", f"{backend}.yaml", "-o", backend, "--plain"), folder)
        found[backend] = folder / backend
    return found


def shape(value: Any) -> Any:
    """A JSON value without its numbers: keys, and the kinds of values."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
    )


def test_the_same_files(runs: dict[str, Path]) -> None:
    """Beside what mmengine itself writes."""
    names = {name: {path.name for path in run.iterdir()} for name, run in runs.items()}
    common = set.intersection(*names.values())
    assert common >= {
        "spec.yaml", "environment.json", "intervals.jsonl", "losses.csv", "metrics.json", "predictions.json",
        "checkpoints", "log.txt",
    }  # fmt: skip
    assert names["torchvision"] == names["detectron2"] == names["ultralytics"] == common
    assert "config.py" in names["mmdet"]
    kept = {name: sorted(p.stem for p in (run / "checkpoints").iterdir()) for name, run in runs.items()}
    assert set(map(tuple, kept.values())) == {("best", "iteration_00000004", "iteration_00000006")}, kept
    for run in runs.values():
        best = json.loads((run / "metrics.json").read_text())["best"]["iteration"]
        assert read_tensors(run / "checkpoints" / "best.pth")["iteration"] == best in (4, 6), run.name


def test_the_same_records(runs: dict[str, Path]) -> None:
    lines = {
        name: [json.loads(line) for line in (run / "intervals.jsonl").read_text().splitlines()]
        for name, run in runs.items()
    }
    keys = {name: [sorted(record) for record in records] for name, records in lines.items()}
    assert keys["torchvision"] == keys["mmdet"] == keys["detectron2"] == keys["ultralytics"]
    for run in runs.values():
        records = read_intervals(run / "intervals.jsonl")
        assert [record.iteration for record in records] == [2, 4, 6]
        # Half warmed up in the second iteration, a tenth from the fourth on.
        rates = [record.learning_rate for record in records]
        assert rates == pytest.approx([0.5005e-3, 1e-4, 1e-4]), run.name
        for record in records:
            assert record.group == "all"
            levels, terms = (3, ("bbox", "cls", "dfl")) if run.name == "ultralytics" else (5, ("cls", "bbox"))
            assert record.levels == ("P3", "P4", "P5", "P6", "P7")[:levels]
            assert tuple(record.loss_by_term) == terms
            if run.name != "mmdet":  # whose anchor heads do not say
                assert record.positives is not None and len(record.positives) == levels, run.name
    actions = {name: [record["action"] for record in records] for name, records in lines.items()}
    assert len({chosen[0] for chosen in actions.values()}) == 1


def test_the_same_columns_of_losses(runs: dict[str, Path]) -> None:
    headers = {}
    for name, run in runs.items():
        with (run / "losses.csv").open(newline="") as file:
            rows = list(csv.reader(file))
        assert len(rows) == 7
        headers[name] = rows[0]
    assert headers["torchvision"] == headers["mmdet"] == headers["detectron2"]
    own = [f"{level}/{term}" for term in ("bbox", "cls", "dfl") for level in ("P3", "P4", "P5")]
    assert headers["ultralytics"] == ["iteration", *own]


@pytest.mark.parametrize("file", ["metrics.json", "predictions.json"])
def test_the_same_shape_of_metrics(runs: dict[str, Path], file: str) -> None:
    shapes = {name: shape(json.loads((run / file).read_text())) for name, run in runs.items()}
    if file == "predictions.json":
        some = next(found for found in shapes.values() if found)  # not every model finds something
        shapes = {name: found or some for name, found in shapes.items()}
    assert shapes["torchvision"] == shapes["mmdet"] == shapes["detectron2"] == shapes["ultralytics"]


def test_each_folders_spec_says_the_same_but_for_the_model(runs: dict[str, Path]) -> None:
    """Of what was asked; the rest is each backend's own default."""
    specs = {name: load_spec(run / "spec.yaml", []).model_dump(mode="json") for name, run in runs.items()}
    for name, spec in specs.items():
        assert spec["backend"] == name
        for section in ("schedule", "balance", "evaluate"):
            found = {key: spec[section][key] for key in SPEC[section] if key != "optimizer"}
            assert found == {key: value for key, value in SPEC[section].items() if key != "optimizer"}, name
        assert spec["data"] == specs["torchvision"]["data"]
