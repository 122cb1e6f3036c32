"""The bridge from a run spec to an mmengine config: the zoo's config with the spec's data, schedule and
seed laid over it. What the spec does not say stays as the config has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import init_default_scope

from msbal.data.model import DetectionData
from msbal.errors import SpecError, suggest
from msbal.records.atomic import write_json
from msbal.spec import RunSpec
from msbal.spec.schedule import ScheduleSpec
from msbal.training.distributed import resolve_device
from msbal_mmdet import checkpoints
from msbal_mmdet.hooks import hook_config
from msbal_mmdet.masks import Outlines, load_no_masks
from msbal_mmdet.spec import MMDetModel
from msbal_mmdet.tiny import walk, zoo

DEFAULT_DECAY = (8 / 12, 11 / 12)
DEFAULT_WARMUP = 500
WARMUP_START = 1e-3


def read_config(model: MMDetModel) -> Config:
    """The config that a spec names, with its overrides.

    Raises:
        SpecError: where there is no such config, or it or an override cannot be read.
    """
    path = find_config(model.config)
    init_default_scope("mmdet")
    try:
        config = Config.fromfile(path)
    except Exception as error:
        raise SpecError("model.config", f"{path} cannot be read: {type(error).__name__}: {error}") from error
    try:
        given = options(model.cfg_options)
        config.merge_from_dict({key: _tuples_kept(config, key, value) for key, value in given.items()})
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise SpecError(
            "model.cfg_options", f"does not fit the config: {error}", "keys that the config has",
            f"see {path}",
        ) from error  # fmt: skip
    if "model" not in config or "train_dataloader" not in config:
        raise SpecError(
            "model.config", f"{path.name} trains no model", "a config with model and train_dataloader"
        )
    return config


def find_config(name: str) -> Path:
    """A config by its path, or by its path in the zoo (the ``.py`` and the folder may be left out)."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    folder = zoo()
    stem = name if name.endswith(".py") else f"{name}.py"
    for candidate in (folder / stem, *sorted(folder.glob(f"*/{stem}"))):
        if candidate.is_file():
            return candidate
    known = [str(p.relative_to(folder)) for p in folder.glob("*/*.py")]
    near = suggest(stem, known).partition("known:")[0].strip()
    raise SpecError(
        "model.config", f"`{name}` is no file and not in mmdet's zoo", "e.g. retinanet/retinanet_r50_fpn_1x_coco.py",
        f"{near} look into {folder}".strip(),
    )  # fmt: skip


def options(given: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """``--cfg-options`` as mmdet's tools read them."""
    if isinstance(given, Mapping):
        return dict(given)
    parsed = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise SpecError("model.cfg_options", f"`{text}`", "key=value")
        parsed[key] = DictAction._parse_iterable(value)
    return parsed


def _tuples_kept(config: Any, key: str, value: Any) -> Any:
    """`value` as a tuple where the config has a tuple: YAML knows lists only, mmcv insists on tuples."""
    node = config
    for part in key.split("."):
        try:
            node = node[int(part)] if isinstance(node, list | tuple) else node[part]
        except (KeyError, IndexError, ValueError, TypeError):
            return value
    return tuple(value) if isinstance(node, tuple) and isinstance(value, list) else value


def lay_model(config: Config, spec: RunSpec, classes: Sequence[str]) -> None:
    """The number of classes, and where weights come from. In place."""
    model = spec.model
    assert isinstance(model, MMDetModel)
    for part in _heads_with_classes(config.model):
        part["num_classes"] = len(classes)
    if not model.pretrained:
        for part in walk(config.model):
            part.pop("pretrained", None)
            if "Pretrained" in str(part.get("init_cfg", "")):
                part["init_cfg"] = None
    config.load_from = None if model.weights is None else str(model.weights)
    if model.weights is not None and not model.weights.is_file():
        raise SpecError("model.weights", f"{model.weights} is no file", "a checkpoint")
    if model.weights is not None:
        checkpoints.read_start(model.weights)


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


def lay_data(
    config: Config,
    spec: RunSpec,
    train: DetectionData,
    val: DetectionData | None,
    folder: Path,
    write: bool,
    outlines: Outlines | None = None,
) -> None:
    """The spec's data in the place of the config's, as COCO files in `folder`. In place.

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
    loader.dataset = _replace_leaf(loader.dataset, _dataset(train, files["train"]))
    loader.batch_size = schedule.batch_size or loader.batch_size
    _workers(loader, schedule)
    if schedule.flip is not None:
        for part in walk(loader):
            if part.get("type") == "RandomFlip":
                part["prob"] = schedule.flip
    if val is None:
        for key in ("val_dataloader", "val_evaluator", "val_cfg"):
            config[key] = None
    else:
        config.val_dataloader.dataset = _replace_leaf(
            config.val_dataloader.dataset, _dataset(val, files["val"], test=True)
        )
        load_no_masks(config.val_dataloader)
        config.val_evaluator = ConfigDict(
            type="CocoMetric", ann_file=str(files["val"]), metric="bbox", format_only=False
        )
        _workers(config.val_dataloader, schedule)
    for key in ("dataloader", "evaluator"):
        config[f"test_{key}"] = config[f"val_{key}"]
    config.test_cfg = None if val is None else ConfigDict(type="TestLoop")


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


_BASES = ("ann_file", "data_prefix", "data_root", "sub_data_root")


def _replace_leaf(dataset: Any, mine: ConfigDict) -> Any:
    """`mine` in the place of the innermost data set; wrappers (repeat, mosaic) and pipelines stay."""
    if dataset.get("type") == "ConcatDataset" and "datasets" in dataset:
        return _replace_leaf(dataset.datasets[0], mine)
    if isinstance(dataset.get("dataset"), dict):
        dataset.dataset = _replace_leaf(dataset.dataset, mine)
        return dataset
    kept = {key: dataset[key] for key in ("pipeline", "filter_cfg") if key in dataset}
    return ConfigDict({**mine, **kept})


def lay_schedule(config: Config, spec: RunSpec) -> None:
    """Length, optimizer, learning rate, precision. In place."""
    schedule = spec.schedule
    wrapper = config.optim_wrapper
    if schedule.iterations is not None:
        config.train_cfg = ConfigDict(
            type="IterBasedTrainLoop",
            max_iters=schedule.iterations,
            val_interval=spec.evaluate.every or 10**9,
        )
    elif schedule.epochs is not None:
        config.train_cfg = ConfigDict(type="EpochBasedTrainLoop", max_epochs=schedule.epochs, val_interval=1)
    iterations = _by_iterations(config)
    config.train_dataloader.sampler = ConfigDict(
        type="InfiniteSampler" if iterations else "DefaultSampler", shuffle=True, seed=spec.seed
    )
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
    _lay_learning_rate(config, schedule)
    hooks = list(config.get("custom_hooks") or [])
    if schedule.ema is not None:
        hooks = [hook for hook in hooks if hook.get("type") != "EMAHook"]
        hooks.append(ConfigDict(type="EMAHook", momentum=1 - schedule.ema, update_buffers=True))
    config.custom_hooks = hooks
    config.auto_scale_lr = None
    config.randomness = ConfigDict(seed=spec.seed)


def _by_iterations(config: Config) -> bool:
    return (
        str(config.train_cfg.get("type", "")).startswith("Iter") or config.train_cfg.get("by_epoch") is False
    )


def _lay_learning_rate(config: Config, schedule: ScheduleSpec) -> None:
    """The config's own course of the learning rate, unless the spec's length or course differs."""
    said = (schedule.iterations, schedule.epochs, schedule.warmup, schedule.scheduler, schedule.decay)
    if all(value is None for value in said):
        return
    iterations = _by_iterations(config)
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
    kind = schedule.scheduler or "step"
    if kind == "step":
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
    elif kind == "cosine":
        course.append(
            ConfigDict(type="CosineAnnealingLR", T_max=total, begin=0, end=total, by_epoch=not iterations)
        )
    config.param_scheduler = course


def lay_run(config: Config, spec: RunSpec, work_dir: Path) -> None:
    """The hook, and where mmengine writes. In place."""
    hook = hook_config(spec.balance)
    hook["seed"] = spec.seed if spec.balance.seed is None else spec.balance.seed
    config.custom_hooks = [*config.custom_hooks, ConfigDict(hook)]
    imports = config.get("custom_imports") or {"imports": []}
    config.custom_imports = ConfigDict(
        imports=[*imports["imports"], "msbal_mmdet.hooks", "msbal_mmdet.amp"], allow_failed_imports=False
    )
    config.work_dir = str(work_dir)
    config.default_hooks.checkpoint = ConfigDict(
        type="CheckpointHook",
        by_epoch=not _by_iterations(config),
        interval=(spec.schedule.checkpoint_every or 1000) if _by_iterations(config) else 1,
    )
