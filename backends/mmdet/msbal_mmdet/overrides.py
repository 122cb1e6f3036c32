"""The spec applied to a config: its data, schedule and seed. What the spec does not say stays as the config has it.

Each function changes the config in place; what of it cannot be kept is returned, a line each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from msbal.data import DetectionData
from msbal.records.atomic import write_json
from msbal.spec import RunSpec
from msbal.spec.schedule import ScheduleSpec
from msbal.training.distributed import resolve_device
from msbal_mmdet import checkpoints
from msbal_mmdet.datasets import replaced
from msbal_mmdet.hooks import hook_config
from msbal_mmdet.masks import Outlines, load_no_masks
from msbal_mmdet.names import kind
from msbal_mmdet.nodes import walk
from msbal_mmdet.pipeline import test_transforms
from msbal_mmdet.spec import MMDetModel

DEFAULT_DECAY = (8 / 12, 11 / 12)
DEFAULT_WARMUP = 500
WARMUP_START = 1e-3
NEVER = 10**9
"""An interval that no run reaches the end of."""

OWN_LOOPS = ("", "EpochBasedTrainLoop", "IterBasedTrainLoop", "ExactEpochTrainLoop", "ExactIterTrainLoop")
OWN_SAMPLERS = ("", "DefaultSampler", "InfiniteSampler")


def apply_model(config: Config, spec: RunSpec, classes: Sequence[str]) -> None:
    """The number of classes, and where weights come from."""
    model = spec.model
    assert isinstance(model, MMDetModel)
    for part in _heads_with_classes(config.model):
        part["num_classes"] = len(classes)
    if not model.pretrained:
        for part in walk(config.model):
            part.pop("pretrained", None)
            if "Pretrained" in str(part.get("init_cfg", "")):
                part["init_cfg"] = None
    start, where = config.get("load_from"), "load_from"
    if model.weights is not None:
        start, where = str(model.weights), "model.weights"
    if start:
        start = str(checkpoints.local(start, where))
        checkpoints.read_start(Path(start), where)
    config.load_from = start or None


def _heads_with_classes(model: Any) -> Iterator[Any]:
    """The dicts whose ``num_classes`` counts the data set's classes: not an RPN's, nor a semantic head's."""
    for key, value in model.items():
        if key in ("rpn_head", "semantic_head", "semantic_roi_extractor", "backbone", "neck"):
            continue
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, dict):
                if "num_classes" in part:
                    yield part
                yield from _heads_with_classes(part)


def apply_data(
    config: Config,
    spec: RunSpec,
    train: DetectionData,
    val: DetectionData | None,
    folder: Path,
    write: bool,
    outlines: Outlines | None = None,
) -> list[str]:
    """The spec's data in the place of the config's, as COCO files in `folder`.

    Args:
        write: only the first rank of a run writes.
        outlines: of the training objects, where the config trains on masks.
    """
    files = {"train": folder / "train.json", "val": folder / "val.json"}
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        # As mmdet's own VOC data set does: difficult boxes are ignored in training.
        document = train.to_coco(difficult_as_crowd=True)
        if outlines is not None:
            masks = [mask for image in train.images for mask in outlines.of(image)]
            for annotation, mask in zip(document["annotations"], masks, strict=True):
                annotation["segmentation"] = mask
        write_json(files["train"], document)
        if val is not None:
            write_json(files["val"], val.to_coco())
    schedule = spec.schedule
    loader = config.train_dataloader
    loader.dataset, notes = replaced(
        loader.dataset, _dataset(train, files["train"]), "train_dataloader.dataset"
    )
    if schedule.batch_size is not None:
        loader.batch_size = schedule.batch_size
    _workers(loader, schedule)
    if schedule.flip is not None:
        for part in walk(loader):
            if kind(part) == "RandomFlip":
                part["prob"] = schedule.flip
    if val is None:
        for key in ("val_dataloader", "val_evaluator", "val_cfg"):
            config[key] = None
    else:
        notes += _evaluate_on(config, schedule, val, files["val"])
    for key in ("dataloader", "evaluator"):
        config[f"test_{key}"] = config[f"val_{key}"]
    config.test_cfg = None if val is None else ConfigDict(type="TestLoop")
    return notes


def _evaluate_on(config: Config, schedule: ScheduleSpec, val: DetectionData, file: Path) -> list[str]:
    loader = config.get("val_dataloader") or config.get("test_dataloader")
    if not loader:
        loader = ConfigDict(
            batch_size=1,
            num_workers=0,
            sampler={"type": "DefaultSampler", "shuffle": False},
            dataset={"type": "CocoDataset", "pipeline": test_transforms(config)},
        )
    loader.dataset, notes = replaced(loader.dataset, _dataset(val, file, test=True), "val_dataloader.dataset")
    load_no_masks(loader)
    _workers(loader, schedule)
    config.val_dataloader = loader
    config.val_cfg = config.get("val_cfg") or ConfigDict(type="ValLoop")
    given = config.get("val_evaluator") or []
    others = [kind(part) for part in ([given] if isinstance(given, dict) else given)]
    if set(others) - {"CocoMetric"}:
        notes.append(f"val_evaluator: COCO's metrics of boxes are measured, not {', '.join(others)}")
    config.val_evaluator = ConfigDict(type="CocoMetric", ann_file=str(file), metric="bbox", format_only=False)
    return notes


def _workers(loader: Any, schedule: ScheduleSpec) -> None:
    if schedule.workers is not None:
        loader.num_workers = schedule.workers
    if not loader.get("num_workers"):
        loader.persistent_workers = False
        loader.pop("prefetch_factor", None)


def _dataset(data: DetectionData, file: Path, test: bool = False) -> ConfigDict:
    # Categories stand in the file in label order, which is the order that CocoDataset numbers them in.
    return ConfigDict(
        type="CocoDataset",
        metainfo={"classes": tuple(data.classes)},
        ann_file=str(file),
        data_root="",
        data_prefix={"img": ""},
        test_mode=test,
        backend_args=None,
    )


def apply_schedule(config: Config, spec: RunSpec) -> list[str]:
    """Length, optimizer, learning rate, precision."""
    schedule = spec.schedule
    wrapper = config.optim_wrapper
    before = _length(config)
    notes = _apply_length(config, spec)
    notes += _apply_learning_rate(config, schedule, changed=_length(config) != before)
    _apply_sampler(config.train_dataloader, by_iterations(config), spec.seed)
    if schedule.optimizer is not None:
        given = schedule.optimizer
        kinds: dict[str, dict[str, Any]] = {
            "sgd": {"type": "SGD", "momentum": given.momentum},
            "adam": {"type": "Adam"},
            "adamw": {"type": "AdamW"},
        }
        wrapper.optimizer = ConfigDict(
            {**kinds[given.name], "lr": given.lr, "weight_decay": given.weight_decay}
        )
        config.auto_scale_lr = None  # it is the learning rate as given
    if schedule.clip_norm is not None:
        wrapper.clip_grad = ConfigDict(max_norm=schedule.clip_norm, norm_type=2)
    if schedule.accumulate > 1:
        wrapper.accumulative_counts = schedule.accumulate
    if schedule.amp == "bf16" and resolve_device(spec.device).type == "cpu":
        wrapper.type = "CPUAmpOptimWrapper"
    elif schedule.amp != "none":
        wrapper.type = "AmpOptimWrapper"
        wrapper.dtype = {"fp16": "float16", "bf16": "bfloat16"}[schedule.amp]
        wrapper.loss_scale = "dynamic" if schedule.amp == "fp16" else 1.0
    hooks = list(config.get("custom_hooks") or [])
    if schedule.ema is not None:
        hooks = [hook for hook in hooks if kind(hook) != "EMAHook"]
        hooks.append(ConfigDict(type="EMAHook", momentum=1 - schedule.ema, update_buffers=True))
    config.custom_hooks = hooks
    config.randomness = ConfigDict({**(config.get("randomness") or {}), "seed": spec.seed})
    return notes


def by_iterations(config: Config) -> bool:
    """Whether the length of the run is in iterations, not in passes over the data."""
    return "max_iters" in config.train_cfg


def _length(config: Config) -> tuple[bool, int | None]:
    return by_iterations(config), config.train_cfg.get("max_iters", config.train_cfg.get("max_epochs"))


def _apply_length(config: Config, spec: RunSpec) -> list[str]:
    schedule, before = spec.schedule, config.train_cfg
    if schedule.iterations is None and schedule.epochs is None:
        return []
    key, name, length = "max_epochs", "EpochBasedTrainLoop", schedule.epochs
    if schedule.iterations is not None:
        key, name, length = "max_iters", "IterBasedTrainLoop", schedule.iterations
    if key in before:
        before[key] = length
        return []
    config.train_cfg = ConfigDict(
        {"type": name, key: length, "val_interval": spec.evaluate.every or NEVER if key == "max_iters" else 1}
    )
    if kind(before) in OWN_LOOPS:
        return []
    said = "schedule.iterations" if schedule.iterations is not None else "schedule.epochs"
    return [f"train_cfg: {name} takes the place of {kind(before)}, as {said} gives the length"]


def _apply_sampler(loader: Any, infinite: bool, seed: int) -> None:
    """mmengine's own samplers have to fit the loop; the others know themselves what they draw."""
    given = loader.get("sampler") or ConfigDict()
    if kind(given) in OWN_SAMPLERS:
        kept = {key: value for key, value in given.items() if key in ("shuffle", "round_up") and not infinite}
        shuffle = given.get("shuffle", True)
        name = "InfiniteSampler" if infinite else "DefaultSampler"
        given = ConfigDict({**kept, "type": name, "shuffle": shuffle, "seed": seed})
    loader.sampler = given


def _apply_learning_rate(config: Config, schedule: ScheduleSpec, changed: bool) -> list[str]:
    """The config's own course of the learning rate, unless the spec's length or course is another.

    Args:
        changed: the length is not the config's.
    """
    if not changed and (schedule.warmup, schedule.scheduler, schedule.decay) == (None, None, None):
        return []
    iterations = by_iterations(config)
    total = int(config.train_cfg.max_iters if iterations else config.train_cfg.max_epochs)
    warmup = schedule.warmup
    if warmup is None:
        warmup = min(DEFAULT_WARMUP, total // 10) if iterations else DEFAULT_WARMUP
    course: list[ConfigDict] = []
    if warmup:
        # mmengine reaches the full rate at end - 1.
        course.append(
            ConfigDict(type="LinearLR", start_factor=WARMUP_START, by_epoch=False, begin=0, end=warmup + 1)
        )
    name = schedule.scheduler or "step"
    if name == "step":
        decay = schedule.decay or DEFAULT_DECAY
        milestones = sorted({max(1, round(fraction * total)) for fraction in decay})
        course.append(
            ConfigDict(
                type="MultiStepLR",
                milestones=milestones,
                gamma=0.1,
                begin=0,
                end=total,
                by_epoch=not iterations,
            )
        )
    elif name == "cosine":
        course.append(
            ConfigDict(type="CosineAnnealingLR", T_max=total, begin=0, end=total, by_epoch=not iterations)
        )
    given = config.get("param_scheduler") or []
    before = [kind(part) for part in ([given] if isinstance(given, dict) else given)]
    config.param_scheduler = course
    if schedule.scheduler is None and set(before) - {"LinearLR", "MultiStepLR"}:
        return [
            f"param_scheduler: {', '.join(before)} are made for another length: the learning rate takes the usual "
            "steps; schedule.scheduler chooses another course"
        ]
    return []


def apply_run(config: Config, spec: RunSpec, work_dir: Path) -> None:
    """The hook that balances, and where mmengine writes."""
    hook = hook_config(spec.balance)
    hook["seed"] = spec.seed if spec.balance.seed is None else spec.balance.seed
    config.custom_hooks = [*(config.get("custom_hooks") or []), ConfigDict(hook)]
    given = config.get("custom_imports") or {}
    modules = given.get("imports") or []
    modules = [modules] if isinstance(modules, str) else list(modules)
    config.custom_imports = ConfigDict(
        {
            "allow_failed_imports": False,
            **given,
            "imports": [*modules, "msbal_mmdet.hooks", "msbal_mmdet.amp"],
        }
    )
    config.work_dir = str(work_dir)
    hooks = config.get("default_hooks") or {}
    interval = {"interval": 1}
    if by_iterations(config):
        interval = {"interval": spec.schedule.checkpoint_every or 1000}
    config.default_hooks = ConfigDict(
        {
            **hooks,
            "checkpoint": {
                "type": "CheckpointHook",
                **(hooks.get("checkpoint") or {}),
                "by_epoch": not by_iterations(config),
                **interval,
            },
        }
    )
