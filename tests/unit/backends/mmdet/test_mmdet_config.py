"""The bridge from a spec to a config."""

from __future__ import annotations

import copy
import itertools
import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mmdet", reason="MMDetection is not installed")

import numpy as np
from mmengine.config import Config

from msbal.data import DetectionData, ImageRecord
from msbal.errors import SpecError
from msbal.spec import RunSpec, parse_spec
from msbal_mmdet.config import datasets, length, reading, schedule
from msbal_mmdet.config.notes import plan_notes
from msbal_mmdet.config.pipeline import info
from msbal_mmdet.spec import MMDetModel
from msbal_mmdet.starter import starter
from msbal_mmdet.training import overrides

RETINANET = "retinanet/retinanet_r50_fpn_1x_coco.py"


def spec(config: str = RETINANET, **sections: Any) -> RunSpec:
    model = {"config": config, "pretrained": False, **sections.pop("model", {})}
    raw = {"backend": "mmdet", "model": model, "data": {"format": "generated"}, "output": "run", **sections}
    return parse_spec(raw)


def read(run: RunSpec) -> Config:
    assert isinstance(run.model, MMDetModel)
    return reading.read_config(run.model)


def data(name: str = "train") -> DetectionData:
    one = np.ones(1, dtype=bool)
    image = ImageRecord(
        id=7, path=Path("/nowhere/a.png"), width=64, height=48, boxes=np.array([[1, 2, 11, 22]], dtype=np.float32),
        labels=np.array([1]), area=np.array([200.0], dtype=np.float32), crowd=~one, difficult=~one,
    )  # fmt: skip
    return DetectionData(name, ("cat", "dog"), (3, 9), (image,))


def test_a_zoo_config_is_found_by_its_path_there_or_its_name() -> None:
    assert reading.find_config(RETINANET) == reading.find_config("retinanet_r50_fpn_1x_coco")
    with pytest.raises(SpecError, match=r"did you mean `retinanet/retinanet_r50_fpn_1x_coco\.py`"):
        reading.find_config("retinanet/retinanet_r50_fpn_1x_coc")


def test_overrides_come_in_mmdets_spelling_or_as_a_mapping() -> None:
    listed = spec(
        model={"cfg_options": ["model.bbox_head.stacked_convs=2", "model.backbone.strides=(1,2,2,2)"]}
    )
    scale = "val_dataloader.dataset.pipeline.1.scale"
    mapped = spec(model={"cfg_options": {"model.bbox_head.stacked_convs": 2, scale: [64, 64]}})
    assert read(listed).model.bbox_head.stacked_convs == read(mapped).model.bbox_head.stacked_convs == 2
    assert read(listed).model.backbone.strides == (1, 2, 2, 2)
    # YAML has lists only; mmcv insists on a tuple.
    assert read(mapped).val_dataloader.dataset.pipeline[1].scale == (64, 64)
    with pytest.raises(SpecError, match="key=value"):
        read(spec(model={"cfg_options": ["stacked_convs"]}))


def test_what_the_spec_does_not_say_stays_as_it_is() -> None:
    run = spec()
    config, plain = read(run), read(run)
    schedule.apply_schedule(config, run)
    assert config.optim_wrapper == plain.optim_wrapper
    assert config.param_scheduler == plain.param_scheduler
    assert config.train_cfg == plain.train_cfg


def test_a_schedule_overrides_the_configs() -> None:
    section = {
        "iterations": 120, "optimizer": {"name": "adamw", "lr": 0.002}, "warmup": 10, "clip_norm": 5.0, "accumulate": 2,
        "amp": "fp16", "ema": 0.99,
    }  # fmt: skip
    run = spec(schedule=section)
    config = read(run)
    schedule.apply_schedule(config, run)
    assert (config.train_cfg.type, config.train_cfg.max_iters) == ("IterBasedTrainLoop", 120)
    assert config.train_dataloader.sampler.type == "InfiniteSampler"
    wrapper = config.optim_wrapper
    assert (wrapper.type, wrapper.dtype, wrapper.accumulative_counts) == ("AmpOptimWrapper", "float16", 2)
    assert wrapper.optimizer.type == "AdamW" and wrapper.clip_grad.max_norm == 5.0
    warm, steps = config.param_scheduler
    assert (warm.end, warm.by_epoch) == (11, False)
    assert (steps.milestones, steps.by_epoch) == ([80, 110], False)
    assert config.custom_hooks[-1].type == "EMAHook" and config.custom_hooks[-1].momentum == pytest.approx(
        0.01
    )


def test_classes_go_to_the_heads_but_not_to_the_rpn() -> None:
    run = spec("cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py")
    config = read(run)
    rpn = config.model.rpn_head.to_dict()
    overrides.apply_model(config, run, ["a", "b", "c"])
    assert config.model.roi_head.bbox_head.num_classes == 3
    assert config.model.rpn_head.to_dict() == rpn
    assert "Pretrained" not in str(config.model)


def test_difficult_boxes_are_ignored_in_training_as_mmdets_own_voc_data_set_does(tmp_path: Path) -> None:
    from mmdet.registry import DATASETS

    hard = replace(data().images[0], difficult=np.ones(1, dtype=bool))
    split = replace(data(), images=(hard,))
    config = read(spec(RETINANET))
    datasets.apply_data(config, spec(RETINANET), split, split, tmp_path, write=True)
    dataset = {**config.train_dataloader.dataset, "pipeline": [], "filter_cfg": None}
    trained = DATASETS.build(dataset).get_data_info(0)["instances"][0]
    assert trained["ignore_flag"] == 1 == info(hard)["instances"][0]["ignore_flag"]
    # In what is evaluated they keep both marks apart.
    kept = json.loads((tmp_path / "val.json").read_text())["annotations"][0]
    assert (kept["iscrowd"], kept["difficult"]) == (0, 1)


@pytest.mark.parametrize(
    "name",
    [RETINANET, "yolox/yolox_s_8xb8-300e_coco.py", "pascal_voc/retinanet_r50_fpn_1x_voc0712.py"],
)
def test_data_takes_the_innermost_place_and_keeps_the_pipelines(name: str, tmp_path: Path) -> None:
    run = spec(name, schedule={"batch_size": 3, "workers": 0})
    config, plain = read(run), read(run)
    datasets.apply_data(config, run, data(), data("val"), tmp_path, write=True)
    dataset, before = config.train_dataloader.dataset, plain.train_dataloader.dataset
    while "dataset" in dataset:
        assert dataset.type == before.type and dataset.get("pipeline") == before.get("pipeline")
        dataset, before = dataset.dataset, before.dataset
    before = before.datasets[0] if "datasets" in before else before
    assert dataset.type == "CocoDataset" and dataset.pipeline == before.pipeline
    assert dataset.metainfo.classes == ("cat", "dog")
    assert config.train_dataloader.batch_size == 3 and not config.train_dataloader.persistent_workers
    assert config.val_evaluator.ann_file == str(tmp_path / "val.json")

    from mmdet.registry import DATASETS

    built = DATASETS.build({**dataset, "pipeline": [], "filter_cfg": None})
    instance = built.get_data_info(0)["instances"][0]
    assert instance["bbox_label"] == 1 and instance["bbox"] == [1, 2, 11, 22]


def test_the_resolved_config_runs_the_hook_by_itself(tmp_path: Path) -> None:
    run = spec(balance={"strategy": "rlo", "interval": 7, "top_k": 1}, seed=4, schedule={"iterations": 50})
    config = read(run)
    overrides.apply_model(config, run, ["a"])
    datasets.apply_data(config, run, data(), None, tmp_path, write=True)
    schedule.apply_schedule(config, run)
    overrides.apply_run(config, run, tmp_path)
    config.dump(tmp_path / "config.py")
    again = Config.fromfile(tmp_path / "config.py")
    hook = again.custom_hooks[-1]
    assert (hook.type, hook.interval, hook.top_k, hook.seed) == ("MultiScaleBalanceHook", 7, 1, 4)
    assert again.custom_imports.imports == ["msbal_mmdet.hooks"]

    from mmengine.registry import HOOKS

    assert HOOKS.build(hook).spec.strategy == "rlo"


PAPER = [
    ("retinanet/retinanet_r50_fpn_1x_coco.py", "RetinaHead", 5, ("cls", "bbox")),
    ("retinanet/retinanet_r101_fpn_1x_coco.py", "RetinaHead", 5, ("cls", "bbox")),
    ("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", "RPNHead", 5, ("cls", "bbox")),
    ("faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py", "RPNHead", 5, ("cls", "bbox")),
    ("atss/atss_r50_fpn_1x_coco.py", "ATSSHead", 5, ("cls", "bbox", "centerness")),
    ("atss/atss_r101_fpn_1x_coco.py", "ATSSHead", 5, ("cls", "bbox", "centerness")),
    ("yolo/yolov3_d53_8xb8-ms-608-273e_coco.py", "YOLOV3Head", 3, ("cls", "conf", "xy", "wh")),
    ("foveabox/fovea_r50_fpn_4xb4-1x_coco.py", "FoveaHead", 5, ("cls", "bbox")),
    ("ghm/retinanet_r101_fpn_ghm-1x_coco.py", "RetinaHead", 5, ("cls", "bbox")),
]


@pytest.mark.parametrize(("config", "head", "levels", "terms"), PAPER, ids=[row[0] for row in PAPER])
def test_the_papers_detectors_are_taken_from_their_zoo_configs(
    config: str, head: str, levels: int, terms: tuple[str, ...], tmp_path: Path
) -> None:
    """The whole bridge, with the model then built small."""
    from zoo import small_mmdet as tiny

    from msbal_mmdet.splitters.find import find

    run = spec(config, schedule={"epochs": 2, "batch_size": 2})
    resolved = read(run)
    overrides.apply_model(resolved, run, ("cat", "dog"))
    datasets.apply_data(resolved, run, data(), data("val"), tmp_path, write=True)
    schedule.apply_schedule(resolved, run)
    overrides.apply_run(resolved, run, tmp_path)
    Config.fromstring(resolved.pretty_text, ".py")
    (group,) = find(tiny.build_small(resolved)).groups
    assert (group.head, len(group.levels), group.terms) == (head, levels, terms)
    assert list(group.strides) == sorted(group.strides)


def fenced(after: str, file: Path) -> str:
    """The code in a README's indented block after some text."""
    lines = file.read_text(encoding="utf-8").partition(after)[2].partition("\n    ")[2].split("\n")
    return "\n".join(
        itertools.takewhile(lambda line: line.startswith("    "), ["    " + lines[0], *lines[1:]])
    )


@pytest.mark.parametrize(
    ("base", "kept"),
    [
        (RETINANET, []),
        ("yolox/yolox_s_8xb8-300e_coco.py", ["YOLOXModeSwitchHook", "SyncNormHook", "EMAHook"]),
    ],
)
def test_the_readmes_entry_keeps_the_hooks_of_the_base(base: str, kept: list[str], tmp_path: Path) -> None:
    root = Path(__file__).parents[4]
    readme = fenced("**Your own config and `tools/train.py`**", root / "backends" / "mmdet" / "README.md")
    example = (root / "examples" / "mmdet" / "hook_only.py").read_text(encoding="utf-8")
    for text in (f'_base_ = "mmdet::{base}"\n{textwrap.dedent(readme)}', example.replace(RETINANET, base)):
        (tmp_path / "own.py").write_text(text)
        hooks = [hook["type"] for hook in Config.fromfile(tmp_path / "own.py").custom_hooks]
        assert hooks == [*kept, "msbal_mmdet.hooks.MultiScaleBalanceHook"]


def several(*images: tuple[int, int, float]) -> DetectionData:
    """The height of each image, how many boxes it has, and their width."""
    (one,) = data().images
    return replace(
        data(),
        images=tuple(
            replace(
                one, id=number, path=Path(f"/nowhere/{number}.png"), height=height,
                boxes=np.array([[1, 2, 1 + width, 22]] * count, dtype=np.float32).reshape(-1, 4),
                **{name: np.repeat(getattr(one, name), count) for name in ("labels", "area", "crowd", "difficult")},
            )
            for number, (height, count, width) in enumerate(images, start=1)
        ),
    )  # fmt: skip


@pytest.mark.parametrize("batch_sampler", [None, {"type": "AspectRatioBatchSampler"}])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("filtered", [{"filter_empty_gt": True, "min_size": 32}, {"min_size": 32}, None])
def test_the_length_is_that_of_the_loader_without_loading_all(
    batch_sampler: Any, drop_last: bool, filtered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = spec(schedule={"epochs": 3, "batch_size": 2, "workers": 0})
    train = several((48, 2, 9), (48, 0, 9), (20, 1, 9), (96, 1, 9), (48, 1, 9), (48, 3, 9))
    config = read(run)
    config.train_dataloader.batch_sampler = batch_sampler and {**batch_sampler, "drop_last": drop_last}
    config.train_dataloader.drop_last = drop_last and not batch_sampler
    config.train_dataloader.dataset.filter_cfg = filtered
    loaded: list[int] = []
    built = length._built
    monkeypatch.setattr(length, "_built", lambda c, s, d: loaded.append(len(d)) or built(c, s, d))
    iterations = length.run_length(copy.deepcopy(config), run, train)
    assert loaded == [1]
    schedule.apply_schedule(config, run)
    assert iterations == 3 * len(built(config, run, train))


def test_what_a_config_and_mmdet_leave_out_is_said_before_training() -> None:
    train = several((48, 2, 9), (48, 0, 9), (20, 1, 0.5), (48, 1, 0.5))
    config = read(spec())
    config.visualizer = {"type": "DetLocalVisualizer", "vis_backends": [{"type": "WandbVisBackend"}]}
    assert plan_notes(config, spec(), train) == [
        "train: 2 of 4 images are used: 1 has no boxes, 1 has a side under 32 pixels "
        "(train_dataloader.dataset.filter_cfg)",
        "train: 2 of 4 boxes are narrower or lower than a pixel: mmdet trains without them",
        "visualizer: WandbVisBackend left out; `log.trackers` names where to follow the run",
    ]


def test_a_proposed_spec_fits_the_images_that_mmdet_uses() -> None:
    empty = [(48, 0, 9.0)] * 30
    usual = starter(several((48, 1, 9), (48, 1, 9), (48, 1, 9), *empty))
    assert "epochs: 1500\n" in usual and "batch_size: 3\n" in usual and "filter_cfg" not in usual
    assert "train_dataloader.dataset.filter_cfg.min_size: 1\n" in starter(several((20, 1, 9), (20, 1, 9)))
