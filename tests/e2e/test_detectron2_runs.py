"""Whole runs with detectron2 as a user starts them: `msbal train` and the example script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("detectron2", reason="detectron2 is not installed")
pytest.importorskip("msbal_detectron2", reason="the detectron2 backend is not installed")

import msbal_process
import yaml
from detectron2_specs import SMALL, write_coco, write_lazy, write_spec, write_voc
from msbal_process import finish, start

from msbal.records import IntervalRecord, read_intervals

msbal_process.PRELOAD += ["msbal_detectron2.splitters", "msbal_detectron2.detector"]
EXAMPLES = Path(__file__).parents[2] / "examples" / "detectron2"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
VOC = "PascalVOC-Detection/faster_rcnn_R_50_FPN.yaml"


def train(folder: Path, *arguments: str, code: int = 0) -> str:
    """`msbal train spec.yaml -o run`, and what it printed."""
    return finish(start(folder, "train", "spec.yaml", "-o", "run", "--plain", *arguments), folder, code=code)


def records(folder: Path) -> list[IntervalRecord]:
    return read_intervals(folder / "run" / "intervals.jsonl")


@pytest.mark.parametrize(
    "schedule",
    [{}, {"amp": "bf16", "ema": 0.9, "accumulate": 2, "clip_norm": 1.0}],
    ids=["plain", "everything on"],
)
def test_retinanet(tmp_path: Path, schedule: dict[str, Any]) -> None:
    write_spec(tmp_path, schedule=schedule, evaluate={"every": 4})
    output = train(tmp_path)
    assert "Warning" not in output, output
    assert [record.iteration for record in records(tmp_path)] == [2, 4, 6]
    assert records(tmp_path)[0].levels == ("P3", "P4", "P5", "P6", "P7")
    assert set(records(tmp_path)[0].loss_by_term) == {"cls", "bbox"}
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics
    # The weights that predicted, averaged or not, are those that `msbal eval` finds.
    checkpoint = str(sorted((tmp_path / "run" / "checkpoints").iterdir())[-1])
    arguments = ["--spec", "run/spec.yaml", "--save-predictions", "again.json"]
    finish(start(tmp_path, "eval", "--checkpoint", checkpoint, *arguments), tmp_path)
    again = json.loads((tmp_path / "again.json").read_text())
    assert again == json.loads((tmp_path / "run" / "predictions.json").read_text())


def test_fcos_of_a_lazyconfig_of_ones_own_in_bf16(tmp_path: Path) -> None:
    write_lazy(tmp_path)
    write_spec(
        tmp_path,
        "mine.py",
        model={"overrides": ["model.test_nms_thresh=0.5"]},
        schedule={"amp": "bf16"},
    )
    output = train(tmp_path)
    assert "Warning" not in output, output
    assert set(records(tmp_path)[0].loss_by_term) == {"cls", "bbox", "centerness"}


def test_faster_rcnn_on_a_voc_data_set(tmp_path: Path) -> None:
    write_voc(tmp_path)
    sets = {"train": {"sets": ["VOC2007/trainval"]}, "val": {"sets": ["VOC2007/test"]}}
    write_spec(
        tmp_path,
        VOC,
        data={"format": "voc", "root": "VOCdevkit", **sets},
        balance={"scope": ["rpn", "roi"]},
        schedule={"amp": "bf16"},
    )
    assert "VOC mAP" in train(tmp_path)
    assert [(record.group, record.iteration) for record in records(tmp_path)] == [
        (group, iteration) for iteration in (2, 4, 6) for group in ("rpn", "roi")
    ]
    assert records(tmp_path)[1].levels == ("P2", "P3", "P4", "P5")


@pytest.mark.parametrize(
    "config",
    [
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
        pytest.param("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", marks=pytest.mark.release),
    ],
)
def test_mask_rcnn_on_a_coco_file_with_outlines(tmp_path: Path, config: str) -> None:
    annotations = str(write_coco(tmp_path))
    split = {"annotations": annotations, "images": "/"}
    write_spec(
        tmp_path,
        config,
        model={"overrides": [*SMALL, "MODEL.ROI_MASK_HEAD.CONV_DIM=16"]},
        data={"format": "coco", "root": str(tmp_path), "train": split, "val": split},
        balance={"scope": ["rpn", "roi"]},
        schedule={"iterations": 4},
    )
    assert "AP50" in train(tmp_path)
    groups = [record.group for record in records(tmp_path) if record.interval == 2]
    stages = [f"roi_stage{stage}" for stage in range(3)] if "cascade" in config else ["roi"]
    assert groups == ["rpn", *stages]
    output = finish(start(tmp_path, "inspect", "spec.yaml"), tmp_path)
    assert "not balanced: loss_mask" in output and "The loss splitter is exact" in output, output


@pytest.mark.release
@pytest.mark.parametrize(
    "config", ["COCO-Detection/fcos_R_50_FPN_1x.py", "COCO-Detection/retinanet_R_50_FPN_1x.py"]
)
def test_a_lazyconfig_of_the_zoo_by_name_with_overrides_in_its_spelling(tmp_path: Path, config: str) -> None:
    overrides = [
        "model.backbone.bottom_up.stages.norm=BN",
        "model.backbone.bottom_up.stem.norm=BN",
        "model.backbone.bottom_up.freeze_at=0",
        "model.head.conv_dims=[256]",
        "dataloader.train.mapper.augmentations.0.short_edge_length=[64]",
        "dataloader.test.mapper.augmentations.0.short_edge_length=64",
    ]
    write_spec(tmp_path, config, model={"overrides": overrides}, schedule={"iterations": 2})
    train(tmp_path)
    assert len(records(tmp_path)) == 1


@pytest.mark.release
def test_two_processes_by_the_command(tmp_path: Path) -> None:
    write_spec(tmp_path)
    command = [sys.executable, "-m", "msbal", "train", "spec.yaml", "-o", "run", "--plain", "--nproc", "2"]
    done = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [record.iteration for record in records(tmp_path)] == [2, 4, 6]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"schedule": {"amp": "fp16"}}, "schedule.amp: `fp16` on the CPU"),
        ({"model": {"config": "COCO-Detection/atss_R_50_FPN_1x.yaml"}}, "set `backend: mmdet`, which has it"),
        (
            {"model": {"config": "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"}},
            "learns from segmentations",
        ),
        ({"model": {"config": "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml"}}, "MODEL.KEYPOINT_ON=False"),
        (
            {"model": {"config": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"}},
            "MODEL.MASK_ON=False",
        ),
        ({"model": {"config": "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml", "overrides": []}}, "one level"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    write_spec(tmp_path, **sections)
    output = train(tmp_path, code=2)
    assert said in output and output.startswith("error: ") and output.count("\n") == 1, output
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_starter_spec_trains(tmp_path: Path) -> None:
    write_coco(tmp_path)
    finish(start(tmp_path, "init", ".", "--backend", "detectron2", "-o", "starter.yaml"), tmp_path)
    spec = yaml.safe_load((tmp_path / "starter.yaml").read_text())
    spec["model"]["overrides"] += SMALL
    spec["schedule"] |= {"iterations": 2, "epochs": None, "workers": 0, "warmup": 0}
    spec["balance"]["interval"] = 2
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    train(tmp_path)
    assert len(records(tmp_path)) == 1


def test_the_example_script_runs_and_resumes(tmp_path: Path) -> None:
    coco = write_coco(tmp_path)
    options = [part for item in SMALL for part in item.split("=")]
    options += [
        "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.RETINANET.NUM_CLASSES", "6", "SOLVER.STEPS", "()",
        "SOLVER.IMS_PER_BATCH", "1", "DATALOADER.NUM_WORKERS", "0", "SOLVER.BASE_LR", "0.001",
    ]  # fmt: skip
    for last, written in ((102, [100]), (204, [100, 200])):
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "train_net.py"), str(coco), "/", "out", *options,
             "SOLVER.MAX_ITER", str(last)],
            cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        found = read_intervals(tmp_path / "out" / "intervals.jsonl")
        assert [record.iteration for record in found] == written
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.json").read_text().splitlines()]
    assert any("msbal/weight/P3" in line for line in lines)
    assert lines[-1]["iteration"] == 203


@pytest.mark.parametrize("name", ["retinanet.yaml", "small_voc.yaml"])
def test_the_example_specs_plan_what_they_say(tmp_path: Path, name: str) -> None:
    """All of a run but its training, on data of the same layout."""
    spec = yaml.safe_load((EXAMPLES / name).read_text())
    if spec["data"]["format"] == "voc":
        spec["data"]["root"] = str(write_voc(tmp_path))
    else:
        annotations = str(write_coco(tmp_path))
        split = {"annotations": annotations, "images": "/"}
        spec["data"] |= {"root": str(tmp_path), "train": split, "val": split}
        spec["model"]["pretrained"] = False
    spec["device"] = "cpu"
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    output = train(tmp_path, "--dry-run")
    assert "levels of" in output and "boxes per level" in output, output
