"""What a person should know of a config before it trains: where msbal's run differs from mmdet's own tool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook

from msbal.backend.kit.data_set import use_notes
from msbal.data import DetectionData
from msbal.data.files import printable
from msbal.engine.processes import world_size
from msbal.errors import SpecError
from msbal.spec import RunSpec
from msbal_mmdet.config.datasets import apply_data, filter_of, innermost
from msbal_mmdet.config.nodes import kind, kinds, walk
from msbal_mmdet.config.schedule import OWN_LOOPS, apply_schedule

_VALIDATION = tuple(f"{when}_val{what}" for when in ("before", "after") for what in ("", "_epoch", "_iter"))
_TRAINING = tuple(f"{when}_train{what}" for when in ("before", "after") for what in ("", "_epoch", "_iter"))
_REMEMBER = ("CachedMosaic", "CachedMixUp")
OWN_WRAPPERS = ("", "MMDistributedDataParallel")


def plan_notes(config: Config, spec: RunSpec, train: DetectionData) -> list[str]:
    """Return what a run on these data leaves out, of them and of the config. Changes `config`.

    Raises:
        DataError: where the config's filter leaves no image.
    """
    notes = config_notes(config, spec)
    notes += apply_schedule(config, spec)
    # Of the validation data only the config's side matters.
    val = train if spec.evaluate.enabled else None
    notes += apply_data(config, spec, train, val, Path("data"), write=False)
    dataset = innermost(config.train_dataloader.dataset)
    place = "train_dataloader.dataset"
    used = use_notes(
        train, filter_of(dataset), f"{place}.filter_cfg", f"set {place}.filter_cfg: null by model.cfg_options"
    )
    if dataset.get("indices") is not None:
        used.append(f"{place}: of these images only its `indices` are trained on")
    boxes = np.concatenate([image.boxes for image in train.images])
    small = int((boxes[:, 2:] - boxes[:, :2] < 1).any(axis=1).sum())
    if small:
        used.append(
            f"{printable(train.name)}: {small} of {train.box_count} boxes are narrower or lower than a pixel: "
            "mmdet trains without them"
        )
    return [*used, *notes]


def config_notes(config: Config, spec: RunSpec) -> list[str]:
    """Return what in a config, before the spec is applied to it, has no effect in a run."""
    notes = []
    pretrained = getattr(spec.model, "pretrained", True)
    if config.get("load_from") and getattr(spec.model, "weights", None) is None and not pretrained:
        notes.append(
            f"load_from: the run starts from {config.load_from}; model.pretrained is about the backbone"
        )
    if config.get("resume"):
        notes.append("resume: the option --resume decides, not the config")
    for key in ("runner_type", "strategy"):
        if config.get(key):
            notes.append(f"{key}: left out; mmengine's Runner trains")
    wrapper = kind(config.get("model_wrapper_cfg") or {})
    if wrapper not in OWN_WRAPPERS:
        notes.append(
            f"model_wrapper_cfg: {wrapper} left out; MMDistributedDataParallel trains several processes"
        )
    backends = kinds((config.get("visualizer") or {}).get("vis_backends"))
    others = [name for name in backends if name != "LocalVisBackend"]
    if others:
        where = "`log.trackers` names where to follow the run"
        notes.append(f"visualizer: {', '.join(others)} left out; {where}")
    if ((config.get("default_hooks") or {}).get("checkpoint") or {}).get("save_best"):
        notes.append("default_hooks.checkpoint: save_best left out; best.pth is that of the highest AP")
    return notes


def run_notes(runner: Any, resumes: bool) -> list[str]:
    """Return what the hooks and loops of a runner, built and about to train, will not do."""
    return [
        *_loop(runner),
        *_hooks_of_validation(runner),
        *_switches(runner),
        *(_memory(runner) if resumes else ()),
    ]


def _loop(runner: Any) -> Iterator[str]:
    name = type(runner._train_loop).__name__
    if name not in OWN_LOOPS:
        yield f"train_cfg: {name} is the config's own; how exactly it resumes is up to it"


def _hooks_of_validation(runner: Any) -> Iterator[str]:
    for hook in runner.hooks:
        own = not type(hook).__module__.startswith(("mmengine.", "mmdet.", "msbal_mmdet."))
        acts = [name for name in _VALIDATION if _overrides(hook, name)]
        if acts and (own or not any(_overrides(hook, name) for name in _TRAINING)) and _is_on(hook):
            yield (
                f"custom_hooks: {type(hook).__name__}.{acts[-1]} is never called: msbal evaluates by itself "
                "(evaluate.every), without mmengine's validation"
            )


def _is_on(hook: Any) -> bool:
    """Return whether it does anything: the one that draws is in every config, off; another joins processes."""
    return bool(getattr(hook, "draw", True)) and (world_size() > 1 or type(hook).__name__ != "SyncNormHook")


def _overrides(hook: Hook, name: str) -> bool:
    return getattr(type(hook), name) is not getattr(Hook, name)


def _switches(runner: Any) -> Iterator[str]:
    """Name hooks that switch at an epoch which a run shorter than their config's may never reach."""
    epochs = runner.max_epochs
    run = (
        f"the run has {epochs} epochs"
        if _by_epoch(runner)
        else f"the run is one epoch of {runner.max_iters} iterations"
    )
    for hook in runner.hooks:
        name = type(hook).__name__
        last, at = getattr(hook, "num_last_epochs", None), getattr(hook, "switch_epoch", None)
        if isinstance(last, int) and last >= epochs - 1:
            yield f"custom_hooks: {name} switches before the first iteration (num_last_epochs={last}): {run}"
        if isinstance(last, int) and last < 0:
            yield f"custom_hooks: {name} never switches (num_last_epochs={last})"
        if isinstance(at, int) and at >= epochs:
            yield f"custom_hooks: {name} never switches (switch_epoch={at}): {run}"
        if isinstance(hook, EMAHook):
            yield from _average(hook, epochs, runner.max_iters, run)


def _average(hook: EMAHook, epochs: int, iterations: int, run: str) -> Iterator[str]:
    for key, begin, length in (
        ("begin_epoch", hook.begin_epoch, epochs),
        ("begin_iter", hook.begin_iter, iterations),
    ):
        if begin > length:
            raise SpecError("custom_hooks", f"EMAHook has {key}={begin}, and {run}", f"at most {length}")
        if begin == length:
            yield f"custom_hooks: EMAHook averages nothing ({key}={begin}): {run}"


def _by_epoch(runner: Any) -> bool:
    return "Iter" not in type(runner._train_loop).__name__


def _memory(runner: Any) -> Iterator[str]:
    config = runner.cfg.get("train_dataloader") or {}
    found = sorted({kind(node) for node in walk(config)} & set(_REMEMBER))
    if found:
        yield (
            f"{', '.join(found)} remember images, which no checkpoint has: what follows is not what an unbroken run "
            "would have done"
        )
