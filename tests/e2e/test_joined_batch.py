"""Two processes learn what one learns from both their batches, where the framework's own normalisers allow it.

mmdet's FCOS divides by the positives of all processes, detectron2's RPN by a constant; torchvision's heads divide
by the images (see ``test_torchvision_loop.py``, too). detectron2's RetinaNet and FCOS divide by a moving average of
each process's own positives, mmdet's RetinaNet by its own positives: there the two differ without msbal, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from needed import need_packages

from msbal.records import read_intervals
from msbal.training.checkpoints import find

pytestmark = [pytest.mark.release, pytest.mark.skipif(sys.platform == "win32", reason="gloo")]

# Plain steps, so that rounding is not blown up; a checkpoint each, so that the first one's weights are kept too.
SCHEDULE = {
    "iterations": 2, "checkpoint_every": 1, "warmup": 0, "flip": 0.0, "scheduler": "constant",
    "optimizer": {"name": "sgd", "lr": 0.001, "momentum": 0.0, "weight_decay": 0.0},
}  # fmt: skip


def mmdet_model() -> dict[str, Any]:
    from mmdet_specs import SMALL

    # Batch statistics would be those of each process's own images.
    options = {
        **SMALL,
        "model.backbone.norm_eval": True,
        "model.bbox_head.norm_cfg": {"type": "GN", "num_groups": 4, "requires_grad": True},
    }
    return {
        "config": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
        "pretrained": False,
        "cfg_options": options,
    }


def detectron2_model() -> dict[str, Any]:
    from detectron2_specs import SMALL

    # All anchors are sampled, so that chance, which each process has its own of, decides nothing.
    options = ["MODEL.RESNETS.NORM=FrozenBN", "MODEL.RPN.BATCH_SIZE_PER_IMAGE=100000"]
    return {"config": "COCO-Detection/rpn_R_50_FPN_1x.yaml", "overrides": [*SMALL, *options]}


def torchvision_model() -> dict[str, Any]:
    sizes = {"min_size": 96, "max_size": 96, "fpn_channels": 32, "head_convs": 1}
    return {"name": "retinanet", "backbone": "resnet18", "norm": "gn", **sizes}


MODELS = {"mmdet": mmdet_model, "detectron2": detectron2_model, "torchvision": torchvision_model}


def train(folder: Path, name: str, processes: int, batch: int) -> Path:
    command = [
        sys.executable, "-m", "msbal", "train", "spec.yaml", "-o", name, "--plain",
        "--set", f"schedule.batch_size={batch}", *(["--nproc", str(processes)] if processes > 1 else []),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}, capture_output=True,
        text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / name


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    state = torch.load(checkpoint, weights_only=True)
    found = state["model"] if "model" in state else state["state_dict"]
    return {name: value for name, value in found.items() if value.is_floating_point()}


@pytest.mark.parametrize(
    ("backend", "strategy"),
    [
        ("mmdet", "max_loss"),
        ("detectron2", "max_loss"),
        ("torchvision", "grad_norm"),
        ("torchvision", "gramian"),
    ],
)
def test_two_processes_equal_one_on_the_joined_batch(tmp_path: Path, backend: str, strategy: str) -> None:
    need_packages(backend, f"msbal_{backend}", *(["torchjd"] if strategy == "gramian" else []))
    spec = {
        "backend": backend,
        "model": MODELS[backend](),
        "data": {
            "format": "generated", "root": str(tmp_path / "data"), "train_images": 8, "val_images": 2, "size": 96,
        },
        "schedule": SCHEDULE,
        "balance": {"strategy": strategy, "interval": 2},
        "evaluate": {"enabled": False},
        "device": "cpu",
    }  # fmt: skip
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    one, two = train(tmp_path, "one", 1, 2), train(tmp_path, "two", 2, 1)
    after, before = (weights(path) for path in find(one / "checkpoints"))
    theirs = weights(find(two / "checkpoints")[0])
    moved = max(float((after[name] - before[name]).abs().max()) for name in after)
    apart = max(float((after[name] - theirs[name]).abs().max()) for name in after)
    assert moved > 0 and apart < 0.01 * moved
    (mine,), (other,) = (read_intervals(run / "intervals.jsonl") for run in (one, two))
    assert mine.loss == pytest.approx(other.loss, rel=1e-4)
    assert mine.weights == pytest.approx(other.weights, rel=1e-4) and max(mine.weights) > 1
    assert mine.gradient_count == other.gradient_count == (0 if strategy == "max_loss" else 2)
    for part, norms in mine.gradient_norm.items():
        assert norms == pytest.approx(other.gradient_norm[part], rel=1e-3)
