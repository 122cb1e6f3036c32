"""Ten steps of mmengine's Runner with the hook at unit weights end in the bits of ten without it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")
pytest.importorskip("msbal_mmdet", reason="the mmdet backend is not installed")

import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from zoo import small_mmdet as tiny

from msbal.data import generate
from msbal.data.generated.shapes import CLASSES
from msbal.records import read_intervals

pytestmark = pytest.mark.release

STEPS = 10
SIDE = 128
DETECTORS = {
    "RetinaNet": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "ATSS": "atss/atss_r50_fpn_1x_coco.py",
    "Faster R-CNN": "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    "FCOS": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "YOLOX": "yolox/yolox_tiny_8xb8-300e_coco.py",
    "RTMDet": "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
    "SSD": "ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py",
    "Cascade R-CNN": "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("data"), train=8, val=1, size=SIDE)


def config_of(name: str, data: Path) -> Config:
    """A config of the zoo, its backbone shrunk, on generated images, with the config's own augmentation left out."""
    config = tiny.load_config(tiny.zoo() / name)
    config.model = tiny.shrink(config.model)
    for part in tiny.walk(config.model):
        if part.get("type") == "ResNet":
            part.update(depth=18, style="pytorch", norm_cfg={"type": "BN", "requires_grad": True})
            config.model.neck.in_channels = [64, 128, 256, 512]
        if part.get("fc_out_channels"):
            part["fc_out_channels"] = 64
        if "num_classes" in part:
            part["num_classes"] = len(CLASSES)
        if part.get("type") == "BatchSyncRandomResize":
            part.update(random_size_range=(96, 160), interval=3)
    side = (320, 320) if "ssd" in name else (SIDE, SIDE)
    config.train_dataloader = ConfigDict(
        batch_size=2, num_workers=0, sampler={"type": "InfiniteSampler", "shuffle": True},
        dataset={
            "type": "CocoDataset", "data_root": f"{data}/", "ann_file": "annotations/instances_train.json",
            "data_prefix": {"img": "train/"}, "metainfo": {"classes": CLASSES},
            "pipeline": [
                {"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True},
                {"type": "Resize", "scale": side, "keep_ratio": False}, {"type": "RandomFlip", "prob": 0.5},
                {"type": "PackDetInputs"},
            ],
        },
    )  # fmt: skip
    for part in ("val", "test"):
        for key in ("dataloader", "evaluator", "cfg"):
            config[f"{part}_{key}"] = None
    config.train_cfg = ConfigDict(type="IterBasedTrainLoop", max_iters=STEPS, val_interval=10**6)
    config.param_scheduler = []
    config.custom_hooks = []
    config.optim_wrapper = ConfigDict(
        type="OptimWrapper", optimizer={"type": "SGD", "lr": 0.002, "momentum": 0.9}
    )
    config.default_hooks.checkpoint = None
    config.randomness = ConfigDict(seed=0)
    config.auto_scale_lr = None
    config.log_level = "ERROR"
    return config


def end_of(config: Config, folder: Path) -> dict[str, torch.Tensor]:
    """The weights and buffers that a run ends with."""
    config.work_dir, config.experiment_name = str(folder), f"{folder.name}_{time.monotonic_ns()}"
    config.visualizer.name = config.experiment_name
    runner = Runner.from_cfg(config)
    runner.train()
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


@pytest.mark.parametrize("name", DETECTORS)
def test_the_hook_at_unit_weights_changes_no_bit(name: str, data: Path, tmp_path: Path) -> None:
    register_all_modules(init_default_scope=True)
    scope: dict[str, Any] = {"scope": ("rpn", "roi")} if "R-CNN" in name else {}
    own = end_of(config_of(DETECTORS[name], data), tmp_path / "own")
    config = config_of(DETECTORS[name], data)
    hook = {"type": "msbal_mmdet.hooks.MultiScaleBalanceHook", "strategy": "equal", "interval": 5, **scope}
    config.custom_hooks = [hook]
    ours = end_of(config, tmp_path / "ours")
    groups = {record.group for record in read_intervals(tmp_path / "ours" / "intervals.jsonl")}
    assert len(groups) == {"Faster R-CNN": 2, "Cascade R-CNN": 4}.get(name, 1)
    differ = [key for key, value in own.items() if not torch.equal(value, ours[key])]
    assert own.keys() == ours.keys() and not differ, differ
