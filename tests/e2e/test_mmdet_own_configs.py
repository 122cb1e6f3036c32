"""`msbal train` on a user's own config: what the spec does not say is kept, or named before training starts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")
pytest.importorskip("msbal_mmdet", reason="the mmdet backend is not installed")

import torch
from mmdet_own_configs import EVALUATION, RETINANET, Told, train, weights, write
from states import assert_same_state

from msbal.errors import SpecError
from msbal.records import read_intervals
from msbal.spec import load_spec
from msbal.training import prepare
from msbal_mmdet.config.datasets import apply_data


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Other tests share the cores."""
    torch.set_num_threads(1)


def final(folder: Path, run: str = "run") -> dict[str, Any]:
    """The weights of a run's last checkpoint."""
    newest = sorted((folder / run / "checkpoints").glob("*.pth"))[-1]
    return weights(folder / run, int(newest.stem.rpartition("_")[2]))


def assert_same_run(folder: Path, one: str, other: str) -> None:
    assert_same_state(final(folder, one), final(folder, other))
    for name in ("intervals.jsonl", "losses.csv"):
        assert (folder / one / name).read_bytes() == (folder / other / name).read_bytes(), name


# -- weights to start from ---------------------------------------------------------------------------


@pytest.mark.parametrize("pretrained", [True, False])
def test_load_from_is_where_the_run_starts(tmp_path: Path, pretrained: bool) -> None:
    path = write(tmp_path, RETINANET)
    start = {
        name: torch.full_like(value, 0.25) for name, value in model_of(path).items() if "retina_cls" in name
    }
    torch.save({"state_dict": start, "meta": {}}, tmp_path / "start.pth")
    text = (
        f"{RETINANET}\nload_from = {str(tmp_path / 'start.pth')!r}\noptim_wrapper['optimizer']['lr'] = 0.0\n"
    )
    told, _ = train(write(tmp_path, text, model={"config": "own.py", "pretrained": pretrained}))
    assert torch.equal(final(tmp_path)["bbox_head.retina_cls.weight"], start["bbox_head.retina_cls.weight"])
    assert any(line.startswith("load_from: the run starts from") for line in told.before) is not pretrained


def model_of(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = prepare(load_spec(path, [])).detector.model.state_dict()
    return state


def test_load_from_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, f"{RETINANET}\nload_from = 'gone/weights.pth'\n")
    with pytest.raises(SpecError, match=r"^load_from: gone/weights.pth is no file"):
        prepare(load_spec(path, []))


# -- data sets and samplers --------------------------------------------------------------------------

DATA = {
    "repeat": ("dataset=dict(_delete_=True, type='RepeatDataset', times=2, dataset=leaf)", 12, None),
    "repeat of joined": (
        "dataset=dict(_delete_=True, type='RepeatDataset', times=3, "
        "dataset=dict(type='ConcatDataset', datasets=[leaf, leaf]))",
        18,
        "the spec's data take the place of the 2 data sets of ConcatDataset",
    ),
    "joined, one repeated": (
        "dataset=dict(_delete_=True, type='ConcatDataset', "
        "datasets=[dict(type='RepeatDataset', times=2, dataset=leaf), leaf])",
        6,
        "which differ: pipeline and filter are those of the first; left out: RepeatDataset",
    ),
    "one joined": ("dataset=dict(_delete_=True, type='ConcatDataset', datasets=[leaf])", 6, None),
    "fewer": ("dataset=dict(leaf, _delete_=True, indices=4)", 4, None),
    "sliced": ("num_batch_per_epoch=2", 2, None),
    "scope": ("dataset=dict(_delete_=True, type='mmengine.RepeatDataset', times=2, dataset=leaf)", 12, None),
}


def with_loader(loader: str) -> str:
    return f"{RETINANET}\ntrain_dataloader.update({loader})\n"


@pytest.mark.parametrize("case", DATA)
def test_the_length_of_a_run_is_that_of_the_loader(tmp_path: Path, case: str) -> None:
    loader, iterations, said = DATA[case]
    spec = load_spec(write(tmp_path, with_loader(loader), balance={"interval": 2}), [])
    plan = prepare(spec)
    assert plan.iterations == iterations
    notes = apply_data(plan.detector.config, spec, plan.train, None, tmp_path, write=False)  # type: ignore[attr-defined]
    assert (said is None and not notes) or (said is not None and len(notes) == 1 and said in notes[0])


def test_evaluations_are_filed_under_the_iterations_that_were_trained(tmp_path: Path) -> None:
    """An epoch has twice as many as there are images, and a whole one is sliced off."""
    text = with_loader(DATA["repeat"][0])
    told, outcome = train(write(tmp_path, text, evaluate={"enabled": True, "every": 5}))
    assert told.evaluated_at == [5, 10, 12]
    metrics = json.loads((outcome.run.path / "metrics.json").read_text())
    assert [found["iteration"] for found in metrics["evaluations"]] == [5, 10, 12]


def test_images_without_boxes_are_left_out_as_the_config_says(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, RETINANET), [])
    plan = prepare(spec)
    first, *others = plan.train.images
    none = replace(
        first, boxes=first.boxes[:0], labels=first.labels[:0], area=first.area[:0], crowd=first.crowd[:0],
        difficult=first.difficult[:0],
    )  # fmt: skip
    assert plan.detector.iterations(replace(plan.train, images=(none, *others))) == 5


SAMPLERS = {
    "ClassAwareSampler": (
        "sampler=dict(_delete_=True, type='ClassAwareSampler', num_sample_class=1)",
        "ClassAwareSampler",
    ),
    "mine": ("sampler=dict(_delete_=True, type='own_sampler.Twice', times=2)", "Twice"),
    "DefaultSampler": ("sampler=dict(_delete_=True, type='DefaultSampler', shuffle=False)", "DefaultSampler"),
}
SAMPLER = """\
import random
from torch.utils.data import Sampler


class Twice(Sampler):
    def __init__(self, dataset, seed=None, times=1):
        self.dataset, self.size, self.times = dataset, len(dataset), times

    def __iter__(self):
        return iter([random.randrange(self.size) for _ in range(len(self))])

    def __len__(self):
        return self.size * self.times
"""


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("ClassAwareSampler", "epochs"),
        ("mine", "iterations"),
        pytest.param("ClassAwareSampler", "iterations", marks=pytest.mark.release),
        pytest.param("mine", "epochs", marks=pytest.mark.release),
        pytest.param("DefaultSampler", "epochs", marks=pytest.mark.release),
        pytest.param("DefaultSampler", "iterations", marks=pytest.mark.release),
    ],
)
def test_samplers_stay_and_resume_exactly(
    tmp_path: Path, name: str, length: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the first pass over the data too."""
    (tmp_path / "own_sampler.py").write_text(SAMPLER)
    monkeypatch.syspath_prepend(str(tmp_path))
    loader, kept = SAMPLERS[name]
    text = with_loader(loader)
    schedule = {"epochs": 2} if length == "epochs" else {"iterations": 14}
    path = write(tmp_path, text, schedule=schedule)
    told, _ = train(path)
    assert told.total == (14 if length == "iterations" else 24 if name == "mine" else 12)
    stays = kept if name != "DefaultSampler" or length == "epochs" else "InfiniteSampler"
    dumped = (tmp_path / "run" / "config.py").read_text()
    assert f"{stays}'" in dumped.partition("train_dataloader")[2]
    if name == "DefaultSampler":
        assert "shuffle=False" in dumped.partition("train_dataloader")[2].partition("sampler=")[2]
    _, outcome = train(path, "parts", stop_at=9)
    assert not outcome.finished
    _, outcome = train(path, "parts", resume=True)
    assert outcome.finished
    assert_same_run(tmp_path, "run", "parts")


LEAVES = """\
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS


@DATASETS.register_module(force=True)
class CellDataset(CocoDataset):
    def __init__(self, *args, stain="blue", **kwargs):
        super().__init__(*args, **kwargs)
"""


def test_a_data_set_of_ones_own_is_named_where_its_place_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `custom_imports` that are one name, not a list."""
    (tmp_path / "own_cells.py").write_text(LEAVES)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (
        f"{RETINANET}\ncustom_imports = dict(imports='own_cells')\n"
        "train_dataloader['dataset'].update(type='CellDataset', stain='red', "
        "metainfo=dict(classes=('a',), lab='here'))\n"
    )
    told, _ = train(write(tmp_path, text))
    assert "train_dataloader.dataset: CocoDataset reads the spec's data, not CellDataset" in told.before
    assert "train_dataloader.dataset: left out of CellDataset, with its data: stain" in told.before
    dumped = (tmp_path / "run" / "config.py").read_text()
    assert "own_cells" in dumped and "msbal_mmdet.hooks" in dumped and "lab='here'" in dumped


def test_modules_that_are_missing_are_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, f"{RETINANET}\ncustom_imports = dict(imports=['no_such_module_of_mine'])\n")
    with pytest.raises(SpecError, match=r"no_such_module_of_mine.*PYTHONPATH") as caught:
        prepare(load_spec(path, []))
    assert "\n" not in str(caught.value)


# -- hooks ---------------------------------------------------------------------------------------------

HOOKS = """\
from pathlib import Path
from mmengine.hooks import Hook


class Count(Hook):
    def __init__(self, file):
        self.file, self.calls = Path(file), 0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.calls += 1

    def after_train(self, runner):
        self.file.write_text(str(self.calls))


class Look(Hook):
    def after_val_epoch(self, runner, metrics=None):
        raise AssertionError


class Enough(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == 5:
            runner.train_loop.stop_training = True
"""


@pytest.fixture
def own_hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_hooks.py").write_text(HOOKS)
    monkeypatch.syspath_prepend(str(tmp_path))


def with_hooks(*hooks: str) -> str:
    return f"{RETINANET}\ncustom_hooks = [{', '.join(hooks)}]\n"


@pytest.mark.usefixtures("own_hooks")
def test_hooks_stay_and_those_that_wait_for_mmdets_validation_are_named(tmp_path: Path) -> None:
    stop = "dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP')"
    text = with_hooks(
        f"dict(type='own_hooks.Count', file={str(tmp_path / 'calls')!r})", "dict(type='own_hooks.Look')", stop
    )
    told, _ = train(write(tmp_path, text))
    assert (tmp_path / "calls").read_text() == "6"
    named = [line for line in told.before if line.startswith("custom_hooks: ")]
    assert [line.split(" ")[1] for line in named] == [
        "Look.after_val_epoch",
        "EarlyStoppingHook.after_val_epoch",
    ]


@pytest.mark.usefixtures("own_hooks")
def test_a_run_that_a_hook_ends_is_evaluated_where_it_ended(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        with_hooks("dict(type='own_hooks.Enough')"),
        schedule={"iterations": 9},
        evaluate={"enabled": True},
    )
    told, outcome = train(path)
    assert told.evaluated_at == [5] and "the run ended after iteration 5 of 9" in told.messages
    kept = sorted(path.name for path in (outcome.run.path / "checkpoints").glob("*.pth"))
    assert kept == ["best.pth", "iteration_00000005.pth"]


def test_a_config_without_default_hooks_or_evaluation_trains(tmp_path: Path) -> None:
    bare = RETINANET.replace(EVALUATION, "") + (
        "default_hooks = None\nval_dataloader = val_evaluator = val_cfg = None\n"
        "test_dataloader = test_evaluator = test_cfg = None\ntest_pipeline = None\n"
        "train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=1)\n"
    )
    told, outcome = train(write(tmp_path, bare, evaluate={"enabled": True}))
    assert outcome.finished and told.evaluated_at == [6]


SWITCH, EMA = "PipelineSwitchHook", "EMAHook"
SWITCHES = [
    (
        {SWITCH: "switch_epoch=3, switch_pipeline=pipeline", EMA: "begin_epoch=3"},
        {"epochs": 3},
        [SWITCH, EMA],
    ),
    ({SWITCH: "switch_epoch=2, switch_pipeline=pipeline", EMA: "begin_epoch=2"}, {"epochs": 3}, []),
    (
        {SWITCH: "switch_epoch=2, switch_pipeline=pipeline", EMA: "begin_iter=9"},
        {"iterations": 9},
        [SWITCH, EMA],
    ),
]


@pytest.mark.parametrize(("hooks", "schedule", "named"), SWITCHES)
def test_switches_that_the_run_is_too_short_for_are_named(
    tmp_path: Path, hooks: dict[str, str], schedule: dict[str, int], named: list[str]
) -> None:
    entries = [f"dict(type={name!r}, {arguments})" for name, arguments in hooks.items()]
    told, _ = train(write(tmp_path, with_hooks(*entries), schedule=schedule))
    lines = [line for line in told.before if line.startswith("custom_hooks: ")]
    assert [line.split()[1] for line in lines] == named, lines


def test_an_average_that_mmengine_refuses_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, with_hooks("dict(type='EMAHook', begin_epoch=7)"))
    with pytest.raises(
        SpecError, match="EMAHook has begin_epoch=7, and the run has 1 epochs; expected at most 1"
    ):
        train(path)


# -- what else a config may have ------------------------------------------------------------------------


def test_several_evaluators_and_their_places_are_named(tmp_path: Path) -> None:
    text = (
        f"{RETINANET}\nval_evaluator = [dict(type='CocoMetric', ann_file='x.json'), dict(type='VOCMetric')]\n"
        "default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='auto', max_keep_ckpts=3))\n"
        "visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='TensorboardVisBackend')], name='v')\n"
    )
    told, _ = train(write(tmp_path, text, evaluate={"enabled": True}))
    assert [line.partition(":")[0] for line in told.before] == [
        "visualizer", "default_hooks.checkpoint", "val_evaluator"
    ]  # fmt: skip
    assert "max_keep_ckpts=3" in (tmp_path / "run" / "config.py").read_text()


def test_schedulers_of_the_config_stay_where_the_length_is_its_own(tmp_path: Path) -> None:
    courses = (
        "param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=1, "
        "convert_to_iter_based=True), dict(type='CosineAnnealingLR', T_max=2, by_epoch=True, begin=1, end=3, "
        "convert_to_iter_based=True)]\n"
    )
    text = RETINANET.replace("param_scheduler = []\n", courses).replace("max_epochs=1", "max_epochs=2")
    told, _ = train(write(tmp_path, text, schedule={"epochs": 2}))
    assert "CosineAnnealingLR" in (tmp_path / "run" / "config.py").read_text()
    assert not told.before
    told, _ = train(write(tmp_path, text, schedule={"epochs": 1}), "other")
    assert "CosineAnnealingLR" not in (tmp_path / "other" / "config.py").read_text()
    assert [line for line in told.before if line.startswith("param_scheduler: LinearLR, CosineAnnealingLR")]


def test_the_learning_rate_of_the_config_is_scaled_where_it_says_so(tmp_path: Path) -> None:
    text = f"{RETINANET}\nauto_scale_lr = dict(enable=True, base_batch_size=2)\n"
    rates = {}
    for run, schedule in (("own", {}), ("spec", {"optimizer": {"lr": 0.002}})):
        from msbal_mmdet.training import checkpoints

        path = write(tmp_path, text, schedule=schedule)
        train(path, run)
        state = checkpoints.load(checkpoints.path_of(tmp_path / run / "checkpoints", 6))
        rates[run] = state["optimizer"]["param_groups"][0]["lr"]
    assert rates == {"own": pytest.approx(0.001), "spec": pytest.approx(0.002)}


# -- resume ---------------------------------------------------------------------------------------------


def resumes_exactly(path: Path, stop_at: int) -> Told:
    train(path)
    train(path, "parts", stop_at=stop_at)
    told, outcome = train(path, "parts", resume=True)
    assert outcome.finished
    assert_same_run(path.parent, "run", "parts")
    return told


def test_gradients_that_the_config_accumulates_are_in_no_checkpoint(tmp_path: Path) -> None:
    text = f"{RETINANET}\noptim_wrapper['accumulative_counts'] = 4\n"
    path = write(tmp_path, text, schedule={"iterations": 10, "checkpoint_every": 3})
    resumes_exactly(path, stop_at=5)
    names = sorted(p.name for p in (tmp_path / "run" / "checkpoints").glob("*.pth"))
    assert names == ["iteration_00000008.pth", "iteration_00000010.pth"]


PURE = """\
from mmdet.datasets import CocoDataset
from mmdet.datasets.dataset_wrappers import MultiImageMixDataset
from mmdet.datasets.transforms import LoadAnnotations, Mosaic, PackDetInputs, RandomFlip, Resize
from mmcv.transforms import LoadImageFromFile
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler
from mmengine.runner import EpochBasedTrainLoop
from mmengine.optim import OptimWrapper
from mmdet.engine.hooks import YOLOXModeSwitchHook
from torch.optim import SGD

with read_base():
    from .pure_model import *

train_dataloader = dict(
    batch_size=1, num_workers=0, persistent_workers=False, sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(
        type=MultiImageMixDataset,
        dataset=dict(type=CocoDataset, ann_file="theirs.json", pipeline=[
            dict(type=LoadImageFromFile), dict(type=LoadAnnotations, with_bbox=True),
        ]),
        pipeline=[
            dict(type=Mosaic, img_scale=(64, 64)), dict(type=Resize, scale=(96, 96), keep_ratio=True),
            dict(type=RandomFlip, prob=0.5), dict(type=PackDetInputs),
        ],
    ),
)
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=2)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.002, momentum=0.9))
"""


def pure_model() -> str:
    """The model of `RETINANET` in pure Python: classes in the place of names."""
    return """\
from mmdet.models import FPN, DetDataPreprocessor, FocalLoss, L1Loss, ResNet, RetinaHead, RetinaNet
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder, MaxIoUAssigner, PseudoSampler

model = dict(
    type=RetinaNet,
    data_preprocessor=dict(type=DetDataPreprocessor, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(type=ResNet, depth=18, base_channels=8, stem_channels=8, norm_eval=False,
        norm_cfg=dict(type="BN", requires_grad=True)),
    neck=dict(type=FPN, in_channels=[8, 16, 32, 64], out_channels=16, start_level=1, add_extra_convs="on_input",
        num_outs=5),
    bbox_head=dict(type=RetinaHead, num_classes=80, in_channels=16, feat_channels=16, stacked_convs=1,
        anchor_generator=dict(type=AnchorGenerator, octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128]),
        bbox_coder=dict(type=DeltaXYWHBBoxCoder),
        loss_cls=dict(type=FocalLoss, use_sigmoid=True, gamma=2.0, alpha=0.25),
        loss_bbox=dict(type=L1Loss)),
    train_cfg=dict(assigner=dict(type=MaxIoUAssigner, pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0,
        ignore_iof_thr=-1), sampler=dict(type=PseudoSampler), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0.05, nms=dict(type="nms", iou_threshold=0.5),
        max_per_img=10),
)
"""


def test_a_config_in_pure_python_trains_evaluates_resumes_and_is_saved_for_mmdets_tool(
    tmp_path: Path,
) -> None:
    (tmp_path / "pure_model.py").write_text(pure_model())
    text = PURE + (
        "test_pipeline = [dict(type=LoadImageFromFile), dict(type=Resize, scale=(96, 96), keep_ratio=True), "
        "dict(type=PackDetInputs)]\n"
    )
    path = write(tmp_path, text, evaluate={"enabled": True})
    told = resumes_exactly(path, stop_at=8)
    assert told.total == 12 and told.evaluated_at == [12]
    from mmdet.registry import MODELS
    from mmengine.config import Config

    saved = Config.fromfile(tmp_path / "run" / "config.py")
    assert saved.model.bbox_head.type == "RetinaHead"
    assert saved.train_dataloader.dataset.type == "MultiImageMixDataset"
    MODELS.build(saved.model)
    assert saved.train_dataloader.dataset.dataset.ann_file.endswith("train.json")


YOLOX = """\
_base_ = "mmdet::yolox/yolox_s_8xb8-300e_coco.py"
model = dict(
    data_preprocessor=dict(batch_augments=[
        dict(type="BatchSyncRandomResize", random_size_range=(128, 160), size_divisor=32, interval=5)]),
    backbone=dict(deepen_factor=0.33, widen_factor=0.125), neck=dict(in_channels=[32, 64, 128], out_channels=16,
        num_csp_blocks=1), bbox_head=dict(in_channels=16, feat_channels=16, stacked_convs=1))
"""


def yolox() -> dict[str, Any]:
    """The zoo's YOLOX, its images small; its own pipelines and hooks."""
    train = "train_dataloader.dataset.pipeline"
    options = {
        f"{train}.0.img_scale": [96, 96], f"{train}.1.border": [-48, -48], f"{train}.2.img_scale": [96, 96],
        f"{train}.5.scale": [96, 96], "val_dataloader.dataset.pipeline.1.scale": [96, 96],
        "train_dataloader.num_workers": 0, "train_dataloader.batch_size": 2,
    }  # fmt: skip
    return {"config": "own.py", "cfg_options": options}


@pytest.mark.release
@pytest.mark.parametrize("schedule", [{"iterations": 9}, {"epochs": 3}])
def test_yolox_resumes_exactly_between_two_sizes_and_its_switch_is_named(
    tmp_path: Path, schedule: dict[str, int]
) -> None:
    """It draws a size in every fifth iteration, and remembers it outside of the state dictionary."""
    path = write(tmp_path, YOLOX, model=yolox(), schedule={**schedule, "checkpoint_every": 100})
    told = resumes_exactly(path, stop_at=7)
    assert told.total == 9
    switch = [
        line for line in told.before if "YOLOXModeSwitchHook switches before the first iteration" in line
    ]
    assert len(switch) == 1
    assert len(read_intervals(tmp_path / "run" / "intervals.jsonl")) == 3


def test_inspect_tells_the_levels_of_the_zoos_yolox(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from msbal.cli.inspect import inspect

    assert inspect(load_spec(write(tmp_path, YOLOX, model=yolox()), []), 2)
    assert "YOLOXHead" in capsys.readouterr().out
