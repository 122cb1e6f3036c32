"""For one seed, all arms see the same initial weights, data order and augmentation.

With a learning rate of zero a model stays what it was, so every loss of every iteration is decided by the
initial weights, the batches, their augmentation and the detector's own random samplers: arms whose
losses.csv are equal to the last bit have seen the same of all four.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from ablation_tiny import BASE

from msbal.backend import Job, Monitor
from msbal.spec import parse_spec

pytestmark = pytest.mark.slow

ARMS: list[dict[str, Any]] = [
    {"strategy": "equal"}, {"strategy": "rlo"}, {"strategy": "rlw"}, {"strategy": "uw"},
]  # fmt: skip


class Silent:
    """A monitor that says nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *values: None


FROZEN = {"name": "sgd", "lr": 0.0}
SMALL_DETECTRON2 = [
    "MODEL.RESNETS.NORM=BN", "MODEL.BACKBONE.FREEZE_AT=0", "MODEL.RESNETS.STEM_OUT_CHANNELS=8",
    "MODEL.RESNETS.RES2_OUT_CHANNELS=16", "MODEL.RESNETS.WIDTH_PER_GROUP=4", "MODEL.FPN.OUT_CHANNELS=32",
    "MODEL.RETINANET.NUM_CONVS=1", "MODEL.ROI_BOX_HEAD.FC_DIM=32", "MODEL.RPN.PRE_NMS_TOPK_TRAIN=100",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN=50", "INPUT.MIN_SIZE_TRAIN=(96,128)", "INPUT.MIN_SIZE_TEST=96",
]  # fmt: skip
SMALL_MMDET = {
    "model.backbone.depth": 18, "model.neck.in_channels": [64, 128, 256, 512], "model.neck.out_channels": 64,
    "model.bbox_head.in_channels": 64, "model.bbox_head.feat_channels": 64,
    "model.bbox_head.stacked_convs": 1, "train_dataloader.dataset.pipeline.2.scale": [96, 96],
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "torchvision retinanet": ("torchvision", {**BASE["model"], "name": "retinanet"}),
    "torchvision fasterrcnn": ("torchvision", {**BASE["model"], "name": "fasterrcnn"}),
    "detectron2 retinanet": (
        "detectron2",
        {"config": "COCO-Detection/retinanet_R_50_FPN_1x.yaml", "overrides": SMALL_DETECTRON2},
    ),
    "detectron2 faster_rcnn": (
        "detectron2",
        {"config": "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", "overrides": SMALL_DETECTRON2},
    ),
    "mmdet retinanet": (
        "mmdet",
        {
            "config": "retinanet/retinanet_r50_fpn_1x_coco.py",
            "pretrained": False,
            "cfg_options": SMALL_MMDET,
        },
    ),
}


def losses(
    folder: Path, pictures: Path, name: str, balance: dict[str, Any], seed: int
) -> tuple[str, list[Any]]:
    """losses.csv of a run whose weights cannot move, and the weights that held."""
    from msbal.records import Recorder, read_intervals
    from msbal.training import claim, prepare

    raw = copy.deepcopy(BASE)
    raw["backend"], raw["model"] = MODELS[name]
    raw["data"]["root"] = str(pictures)
    raw["schedule"] |= {"iterations": 6, "optimizer": FROZEN, "flip": 0.5}
    spec = parse_spec({**raw, "balance": {"interval": 2, **balance}, "seed": seed, "output": str(folder)})
    plan = prepare(spec)
    run = claim(spec, resume=False, force=False)
    monitor: Monitor = Silent()
    recorder = Recorder(run, monitor.interval)
    recorder.attach(plan.balancers)
    plan.detector.train(Job(spec, plan.train, None, run, plan.balancers, recorder, monitor))
    recorder.flush()
    return run.losses_file.read_text(), [record.weights for record in read_intervals(run.intervals_file)]


@pytest.mark.parametrize("model", list(MODELS))
def test_all_arms_of_a_seed_see_the_same(tmp_path: Path, model: str) -> None:
    backend = MODELS[model][0]
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    pytest.importorskip(f"msbal_{backend}", reason=f"the {backend} backend is not installed")
    runs = [
        losses(tmp_path / f"{number}", tmp_path / "pictures", model, balance, seed=3)
        for number, balance in enumerate(ARMS)
    ]
    assert len({text for text, _ in runs}) == 1
    assert len(runs[0][0].splitlines()) == 7
    # They were not the same arm four times over.
    assert len({str(weights) for _, weights in runs}) > 1
    other, _ = losses(tmp_path / "other", tmp_path / "pictures", model, ARMS[0], seed=4)
    assert other != runs[0][0]
