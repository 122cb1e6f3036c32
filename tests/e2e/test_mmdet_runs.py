"""Whole runs with mmdet, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")
pytest.importorskip("msbal_mmdet", reason="the mmdet backend is not installed")

import yaml

from msbal.records import read_intervals

HERE = Path(__file__).parents[1] / "unit" / "backends" / "mmdet"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}


def run(*command: str, folder: Path) -> str:
    """Run a command, and give its output."""
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_saved_config_runs_in_mmdets_own_tool(tmp_path: Path) -> None:
    import mmdet

    options = {
        "model.backbone.depth": 18,
        "model.neck.in_channels": [64, 128, 256, 512],
        "model.neck.out_channels": 32,
        "model.bbox_head.in_channels": 32,
        "model.bbox_head.feat_channels": 32,
        "model.bbox_head.stacked_convs": 1,
        "train_dataloader.dataset.pipeline.2.scale": [96, 96],
        "val_dataloader.dataset.pipeline.1.scale": [96, 96],
    }
    spec = {
        "backend": "mmdet",
        "model": {
            "config": "retinanet/retinanet_r50_fpn_1x_coco.py",
            "pretrained": False,
            "cfg_options": options,
        },
        "data": {
            "format": "generated",
            "train_images": 6,
            "val_images": 2,
            "size": 96,
            "root": str(tmp_path / "data"),
        },
        "schedule": {"iterations": 4, "batch_size": 2, "workers": 0, "optimizer": {"lr": 0.001}},
        "balance": {"strategy": "rlo", "interval": 2, "top_k": 1},
        "device": "cpu",
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    run("-m", "msbal", "train", "spec.yaml", "-o", "run", "--plain", folder=tmp_path)
    assert len(read_intervals(tmp_path / "run" / "intervals.jsonl")) == 2
    tool = Path(mmdet.__file__).parent / ".mim" / "tools" / "train.py"
    run(str(tool), "run/config.py", "--work-dir", "tool", folder=tmp_path)
    records = read_intervals(tmp_path / "tool" / "intervals.jsonl")
    assert [r.iteration for r in records] == [2, 4]
    assert records[0].levels == ("P3", "P4", "P5", "P6", "P7")
