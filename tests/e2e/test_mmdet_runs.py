"""mmdet's own tools/train.py: on the config that a run saves, and on a user's with nothing but the hook in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")
pytest.importorskip("msbal_mmdet", reason="the mmdet backend is not installed")

from mmdet_specs import SIDE, SMALL, write_spec

from msbal.data import generate
from msbal.data.generated.shapes import CLASSES
from msbal.records import read_intervals


def run(folder: Path, *command: str, code: int = 0) -> None:
    """Run a command of Python's in `folder`."""
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, (done.returncode, (done.stdout + done.stderr)[-3000:])


def tool() -> str:
    """The training tool that the installed package carries."""
    import mmdet

    return str(Path(mmdet.__file__).parent / ".mim" / "tools" / "train.py")


@pytest.mark.release
def test_the_saved_config_runs_in_mmdets_own_tool(tmp_path: Path) -> None:
    spec = write_spec(
        tmp_path, evaluate={"enabled": True}, schedule={"iterations": 4}, balance={"interval": 2, "top_k": 1}
    )
    run(tmp_path, "-m", "msbal", "train", spec.name, "-o", "run", "--plain")
    mine = read_intervals(tmp_path / "run" / "intervals.jsonl")
    run(tmp_path, tool(), "run/config.py", "--work-dir", "tool")
    records = read_intervals(tmp_path / "tool" / "intervals.jsonl")
    assert [r.iteration for r in records] == [r.iteration for r in mine] == [2, 4]
    assert records[0].levels == mine[0].levels == ("P3", "P4", "P5", "P6", "P7")


USERS = """\
_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"
model = dict(backbone=dict(init_cfg=None))
train_dataloader = dict(
    batch_size=1, num_workers=0, persistent_workers=False,
    sampler=dict(_delete_=True, type="InfiniteSampler", shuffle=True),
    dataset=dict(
        data_root={root!r}, ann_file="annotations/instances_train.json", data_prefix=dict(img="train/"),
        metainfo=dict(classes={classes!r}),
    ),
)
val_cfg = val_dataloader = val_evaluator = test_cfg = test_dataloader = test_evaluator = None
train_cfg = dict(_delete_=True, type="msbal_mmdet.loops.ExactIterTrainLoop", max_iters=9, val_interval=100)
param_scheduler = []
optim_wrapper = dict(optimizer=dict(lr=0.002))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=4), logger=dict(interval=1))
randomness = dict(seed=0)
custom_hooks = [dict(type="msbal_mmdet.hooks.MultiScaleBalanceHook", interval=3)]
"""
KILL = """\
import os, signal
from mmengine.hooks import Hook

class Kill(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == 6:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.release
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_users_config_with_the_hook_alone_records_logs_and_resumes_after_a_kill(tmp_path: Path) -> None:
    """One entry under ``custom_hooks``, no import beside it."""
    root = generate(tmp_path, train=6, val=1, size=SIDE)
    small = {**SMALL, "model.bbox_head.num_classes": len(CLASSES)}
    small = {key: tuple(v) if key.endswith("scale") else v for key, v in small.items() if key[:4] != "val_"}
    config = USERS.format(root=f"{root}/", classes=CLASSES)
    (tmp_path / "users.py").write_text(config)
    (tmp_path / "killed.py").write_text(
        '_base_ = "users.py"\ncustom_hooks = [*_base_.custom_hooks, dict(type="kill.Kill")]\n'
    )
    (tmp_path / "kill.py").write_text(KILL)
    options = ["--cfg-options", *(f"{key}={value}".replace(" ", "") for key, value in small.items())]

    run(tmp_path, tool(), "users.py", "--work-dir", "whole", *options)
    run(tmp_path, tool(), "killed.py", "--work-dir", "parts", *options, code=-signal.SIGKILL)
    assert (tmp_path / "parts" / "last_checkpoint").read_text().endswith("iter_4.pth")
    run(tmp_path, tool(), "users.py", "--work-dir", "parts", "--resume", *options)
    for name in ("intervals.jsonl", "losses.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name

    (written,) = (tmp_path / "whole").glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    records = read_intervals(tmp_path / "whole" / "intervals.jsonl")
    assert [record.iteration for record in records] == [3, 6, 9]
    logged = [line for line in lines if "msbal/weight/P3" in line]
    assert [line["msbal/weight/P3"] for line in logged] == [record.weights[0] for record in records]
    # mmengine adds up whatever has "loss" in its key.
    keys = {key for line in lines for key in line}
    assert {key for key in keys if "loss" in key} == {"loss", "loss_cls", "loss_bbox"}
