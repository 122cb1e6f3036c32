"""The spec's schedule applied to a config: length, optimizer, learning rate, precision, averaged weights, seed."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config, ConfigDict

from msbal.spec import RunSpec
from msbal.spec.schedule import ScheduleSpec
from msbal.training.distributed import resolve_device
from msbal_mmdet.config.nodes import kind, kinds

DEFAULT_DECAY = (8 / 12, 11 / 12)
DEFAULT_WARMUP = 500
WARMUP_START = 1e-3
NEVER = 10**9
"""An interval that no run reaches the end of."""

OWN_LOOPS = ("", "EpochBasedTrainLoop", "IterBasedTrainLoop", "ExactEpochTrainLoop", "ExactIterTrainLoop")
OWN_SAMPLERS = ("", "DefaultSampler", "InfiniteSampler")


def apply_schedule(config: Config, spec: RunSpec) -> list[str]:
    """Apply the schedule and the seed, in place; what the spec does not say stays as the config has it.

    Returns:
        a line on each thing in the config that cannot be kept.
    """
    schedule, wrapper = spec.schedule, config.optim_wrapper
    before = _length(config)
    notes = _apply_length(config, spec)
    notes += _apply_learning_rate(config, schedule, changed=_length(config) != before)
    _apply_sampler(config.train_dataloader, by_iterations(config), spec.seed)
    if schedule.optimizer is not None:
        given = schedule.optimizer
        own: dict[str, dict[str, Any]] = {
            "sgd": {"type": "SGD", "momentum": given.momentum},
            "adam": {"type": "Adam"},
            "adamw": {"type": "AdamW"},
        }
        wrapper.optimizer = ConfigDict(
            {**own[given.name], "lr": given.lr, "weight_decay": given.weight_decay}
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
    """Return whether the length of the run is in iterations, not in passes over the data."""
    return "max_iters" in config.train_cfg


def _length(config: Config) -> tuple[bool, int | None]:
    return by_iterations(config), config.train_cfg.get("max_iters", config.train_cfg.get("max_epochs"))


def _apply_length(config: Config, spec: RunSpec) -> list[str]:
    schedule, before = spec.schedule, config.train_cfg
    if schedule.iterations is not None:
        said, key, name, length = "iterations", "max_iters", "IterBasedTrainLoop", schedule.iterations
    elif schedule.epochs is not None:
        said, key, name, length = "epochs", "max_epochs", "EpochBasedTrainLoop", schedule.epochs
    else:
        return []
    if key in before:
        before[key] = length
        return []
    config.train_cfg = ConfigDict(
        {"type": name, key: length, "val_interval": spec.evaluate.every or NEVER if key == "max_iters" else 1}
    )
    if kind(before) in OWN_LOOPS:
        return []
    return [f"train_cfg: {name} takes the place of {kind(before)}, as schedule.{said} gives the length"]


def _apply_sampler(loader: Any, infinite: bool, seed: int) -> None:
    """Fit mmengine's own samplers to the loop; others know themselves what they draw."""
    given = loader.get("sampler") or ConfigDict()
    if kind(given) in OWN_SAMPLERS:
        kept = {key: value for key, value in given.items() if key in ("shuffle", "round_up") and not infinite}
        shuffle = given.get("shuffle", True)
        name = "InfiniteSampler" if infinite else "DefaultSampler"
        given = ConfigDict({**kept, "type": name, "shuffle": shuffle, "seed": seed})
    loader.sampler = given


def _apply_learning_rate(config: Config, schedule: ScheduleSpec, changed: bool) -> list[str]:
    """Keep the config's schedulers, unless the spec's length or learning rate differs from the config's.

    Args:
        changed: whether the length does.
    """
    if not changed and (schedule.warmup, schedule.scheduler, schedule.decay) == (None, None, None):
        return []
    iterations = by_iterations(config)
    total = int(config.train_cfg.max_iters if iterations else config.train_cfg.max_epochs)
    warmup = schedule.warmup
    if warmup is None:
        warmup = min(DEFAULT_WARMUP, total // 10) if iterations else DEFAULT_WARMUP
    schedulers: list[ConfigDict] = []
    if warmup:
        # mmengine reaches the full rate at end - 1.
        schedulers.append(
            ConfigDict(type="LinearLR", start_factor=WARMUP_START, by_epoch=False, begin=0, end=warmup + 1)
        )
    span = {"begin": 0, "end": total, "by_epoch": not iterations}
    name = schedule.scheduler or "step"
    if name == "step":
        decay = schedule.decay or DEFAULT_DECAY
        milestones = sorted({max(1, round(fraction * total)) for fraction in decay})
        schedulers.append(ConfigDict(type="MultiStepLR", milestones=milestones, gamma=0.1, **span))
    elif name == "cosine":
        schedulers.append(ConfigDict(type="CosineAnnealingLR", T_max=total, **span))
    before = kinds(config.get("param_scheduler"))
    config.param_scheduler = schedulers
    if schedule.scheduler is None and set(before) - {"LinearLR", "MultiStepLR"}:
        return [
            f"param_scheduler: {', '.join(before)} are made for another length: the learning rate takes the usual "
            "steps; schedule.scheduler chooses another course"
        ]
    return []
