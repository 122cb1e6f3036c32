"""The spec applied to a config: its model and run here, its schedule and data beside; all in place.

What the spec does not say stays as the config has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from msbal.spec import RunSpec
from msbal_mmdet.config.nodes import walk
from msbal_mmdet.config.schedule import by_iterations
from msbal_mmdet.hooks import hook_config
from msbal_mmdet.spec import MMDetModel
from msbal_mmdet.training import checkpoints

SAVE_EVERY = 1000
"""Iterations between checkpoints, where the spec says nothing."""


def apply_model(config: Config, spec: RunSpec, classes: Sequence[str]) -> None:
    """Apply the number of classes, and where weights come from."""
    model = spec.model
    assert isinstance(model, MMDetModel)
    for head in _heads_with_classes(config.model):
        head["num_classes"] = len(classes)
    if not model.pretrained:
        for node in walk(config.model):
            node.pop("pretrained", None)
            if "Pretrained" in str(node.get("init_cfg", "")):
                node["init_cfg"] = None
    start, where = config.get("load_from"), "load_from"
    if model.weights is not None:
        start, where = str(model.weights), "model.weights"
    if start:
        start = str(checkpoints.local(start, where))
        checkpoints.read_start(Path(start), where)
    config.load_from = start or None


def _heads_with_classes(model: Any) -> Iterator[Any]:
    """Yield the dicts whose ``num_classes`` counts the data set's classes: not an RPN's, nor a semantic head's."""
    for key, value in model.items():
        if key in ("rpn_head", "semantic_head", "semantic_roi_extractor", "backbone", "neck"):
            continue
        for node in value if isinstance(value, list | tuple) else [value]:
            if isinstance(node, dict):
                if "num_classes" in node:
                    yield node
                yield from _heads_with_classes(node)


def apply_run(config: Config, spec: RunSpec, work_dir: Path) -> None:
    """Add the hook that balances, and say where and when mmengine writes."""
    seed = spec.seed if spec.balance.seed is None else spec.balance.seed
    hook = ConfigDict({**hook_config(spec.balance), "seed": seed})
    config.custom_hooks = [*(config.get("custom_hooks") or []), hook]
    given = config.get("custom_imports") or {}
    modules = given.get("imports") or []
    modules = [modules] if isinstance(modules, str) else list(modules)
    config.custom_imports = ConfigDict(
        {"allow_failed_imports": False, **given, "imports": [*modules, "msbal_mmdet.hooks"]}
    )
    config.work_dir = str(work_dir)
    hooks = config.get("default_hooks") or {}
    config.default_hooks = ConfigDict(
        {
            **hooks,
            "checkpoint": {
                "type": "CheckpointHook",
                **(hooks.get("checkpoint") or {}),
                "by_epoch": not by_iterations(config),
                "interval": spec.schedule.checkpoint_every or SAVE_EVERY if by_iterations(config) else 1,
            },
        }
    )
