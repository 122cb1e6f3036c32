"""Runs of `msbal train` in this process, on configs of a user's own, for the tests."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from mmdet_specs import SIDE

from msbal.backend import Monitor, Remarks
from msbal.records import RunDirectory
from msbal.spec import load_spec
from msbal.training import Outcome, claim, execute, prepare

_SMALL_MODEL = {
    "backbone": {
        "init_cfg": None, "depth": 18, "base_channels": 8, "stem_channels": 8, "frozen_stages": -1, "norm_eval": False,
    },
    "neck": {"in_channels": [8, 16, 32, 64], "out_channels": 16},
    "bbox_head": {"in_channels": 16, "feat_channels": 16, "stacked_convs": 1},
}  # fmt: skip
PIPELINE = f"""\
pipeline = [
    dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=({SIDE}, {SIDE}), keep_ratio=True), dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
"""
EVALUATION = f"""\
test_pipeline = [
    dict(type="LoadImageFromFile"), dict(type="Resize", scale=({SIDE}, {SIDE}), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
val_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(_delete_=True, type="CocoDataset", ann_file="val.json", pipeline=test_pipeline))
"""
RETINANET = f"""\
_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"
model = {_SMALL_MODEL!r}
{PIPELINE}
{EVALUATION}
leaf = dict(type="CocoDataset", ann_file="theirs.json", data_prefix=dict(img="theirs/"),
    filter_cfg=dict(filter_empty_gt=True, min_size=1), pipeline=pipeline)
train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False,
    dataset=dict(_delete_=True, **leaf))
train_cfg = dict(max_epochs=1)
optim_wrapper = dict(optimizer=dict(lr=0.002))
param_scheduler = []
"""
"""A small RetinaNet of a user's; what a test adds comes after it."""


class Told(Monitor):
    """A monitor that remembers.

    Attributes:
        before: what was said of the framework before training started.
        total: iterations, as training said at its start.
        evaluated_at: the iterations that evaluations were filed under.
    """

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.before: list[str] = []
        self.total = self.last = 0
        self.evaluated_at: list[int] = []

    def started(self, iteration: int, total: int, groups: Any) -> None:
        self.total = total
        self.before = list(self.messages)

    def stepped(self, iteration: int, scalars: Mapping[str, float]) -> None:
        self.last = iteration

    def evaluated(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        self.evaluated_at.append(iteration)

    def message(self, text: str) -> None:
        assert "\n" not in text
        self.messages.append(text)


def write(folder: Path, config: str, name: str = "own.py", **sections: Any) -> Path:
    """``spec.yaml``, which names a config of the user's and says next to nothing."""
    (folder / name).write_text(config, encoding="utf-8")
    spec: dict[str, Any] = {
        "backend": "mmdet",
        "model": {"config": name},
        "data": {
            "format": "generated", "root": str(folder / "data"), "train_images": 6, "val_images": 2, "size": SIDE,
        },
        "evaluate": {"enabled": False},
        "schedule": {},
        "balance": {"strategy": "rlo", "interval": 3, "seed": 5},
        "device": "cpu",
    }  # fmt: skip
    for key, section in sections.items():
        spec[key] = {**spec[key], **section} if isinstance(section, dict) else section
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def train(
    path: Path, run: str = "run", resume: bool = False, stop_at: int | None = None
) -> tuple[Told, Outcome]:
    """`msbal train`, without a terminal.

    Args:
        stop_at: ask the run to stop after this iteration, as Ctrl-C does.
    """
    spec = load_spec(path, [f"output={path.parent / run}"])
    plan = prepare(spec)
    told = Told()
    assert isinstance(plan.detector, Remarks)
    of_framework = plan.detector.remarks(plan.train)
    told.messages += [line for line in plan.warnings if line in of_framework]
    if stop_at is not None:
        plan.detector.train = _stopping(plan.detector.train, stop_at)  # type: ignore[method-assign]
    outcome = execute(plan, claim(spec, resume=resume, force=False), told, resume)
    assert told.total == plan.iterations, "the plan's length is the loader's"
    return told, outcome


def _stopping(train: Any, at: int) -> Any:
    def stopped(job: Any) -> None:
        calls, asked = iter(range(1, 10**6)), job.stop_requested

        def requested() -> bool:
            if next(calls) == at:
                signal.raise_signal(signal.SIGINT)
            return bool(asked())

        job.stop_requested = requested
        train(job)

    return stopped


def weights(run: RunDirectory | Path, iteration: int) -> dict[str, Any]:
    """Those of a checkpoint of a run."""
    from msbal_mmdet.training import checkpoints

    folder = run if isinstance(run, Path) else run.path
    state: dict[str, Any] = checkpoints.load(checkpoints.path_of(folder / "checkpoints", iteration))[
        "state_dict"
    ]
    return state
