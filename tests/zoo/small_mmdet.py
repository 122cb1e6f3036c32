"""Detectors of the model zoo built small, and a batch to try them on: for proofs, not for training.

Heads, assigners, samplers and losses stay exactly as configured. Backbones shrink to one block a stage,
and nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from msbal_mmdet.config.nodes import loads_masks, walk
from msbal_mmdet.config.reading import zoo
from msbal_mmdet.quiet import quiet
from zoo import language_mmdet as language
from zoo.batches_mmdet import SIDE, batch, batch_for, class_count, default_boxes, sides_for

__all__ = [
    "SIDE", "NeedsPackage", "batch", "batch_for", "build_small", "class_count", "default_boxes", "load_config",
    "loads_masks", "naming_packages", "quiet", "shrink", "sides_for", "walk", "zoo",
]  # fmt: skip


def load_config(path: Path) -> Any:
    """An mmengine config, with mmdet's classes registered.

    Raises:
        NeedsPackage: where it imports one that is not installed.
    """
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    with naming_packages():
        return Config.fromfile(path)


def build_small(config: Any) -> Any:
    """Build the model of a config, small, with random weights, in training mode.

    Args:
        config: of mmengine; changed in place.

    Raises:
        NeedsPackage: where mmdet needs one for it that is not installed.
    """
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.logging import MessageHub

    register_all_modules(init_default_scope=True)
    # Some heads look at the running loop's counters.
    for name, value in (("iter", 0), ("epoch", 0), ("max_iters", 1000), ("max_epochs", 12)):
        MessageHub.get_current_instance().update_info(name, value)
    model = shrink(config.model)
    with quiet(), naming_packages():
        _place_language(model)
        built = MODELS.build(model)
        with contextlib.suppress(AttributeError):
            built.init_weights()
    # The losses lie behind the backbone: without its gradients a proof takes a third of the time.
    for module in built.modules():
        backbone = getattr(module, "backbone", None)
        if isinstance(backbone, torch.nn.Module):
            backbone.requires_grad_(False)
        if isinstance(module, torch.nn.BatchNorm2d) and module.eps == 0:
            module.eps = 1e-5  # caffe-style configs; torch no longer takes 0
        if "epoch" in vars(module) and module.epoch is None:
            module.epoch = 0  # SetEpochInfoHook's task in a run
    built.train()  # returns None in distillers
    return built


def _place_language(model: Any) -> None:
    for part in walk(model):
        for key, value in part.items():
            if value == language.NAME:
                part[key] = str(language.folder())


def shrink(model: Any) -> Any:
    """Fewer blocks in every backbone, no downloads, nothing that only helps training along. In place."""
    for part in walk(model):
        part.pop("pretrained", None)
        part.pop("batch_augments", None)  # they look for a running training loop
        part.pop("tracker", None)  # has no part in training, and needs packages of its own
        if "init_cfg" in part and "checkpoint" in str(part["init_cfg"]):
            part["init_cfg"] = None
        for key in ("teacher_ckpt", "checkpoint"):
            if key in part and isinstance(part[key], str):
                part[key] = None
        kind = str(part.get("type", ""))
        if kind in ("SyncBN", "MMSyncBN"):
            part["type"] = "BN"  # they want a process group
        # Trades time for memory, one by a package of its own, one against calling backward() in parts.
        for key, off in (("num_cp", -1), ("use_checkpoint", False), ("with_cp", False)):
            if key in part:
                part[key] = off
        for key, kinds in (("name", ("BertModel",)), ("lang_model_name", ("ATSSVLFusionHead",))):
            if kind in kinds:
                part[key] = language.NAME
        teacher = part.get("teacher_config")
        if isinstance(teacher, str) and teacher.startswith("configs/"):
            part["teacher_config"] = shrink(load_config(zoo() / teacher.removeprefix("configs/")))
        for key, most in _MOST.items():
            if isinstance(part.get(key), int) and part[key] > most:
                part[key] = most
        if isinstance(part.get("depth"), int) and part["depth"] in (101, 152, 200) and "Net" in kind:
            part["depth"] = 50
        if "SwinTransformer" in kind:
            part["depths"] = [1 if d < 2 else 2 for d in part.get("depths", (2, 2, 2, 2))]
        if "PyramidVisionTransformer" in kind and "num_layers" in part:
            part["num_layers"] = [1] * len(part["num_layers"])
        if part.get("dcn_apply_to_all_conv"):
            part["stacked_convs"] = 1  # SOLOv2: on a CPU each takes half a minute
        _stand_in(part)
    return model


def _stand_in(part: Any) -> None:
    """Other operators for those that mmcv has for CUDA alone; they come before a head's losses. In place."""
    upsampling = part.get("upsample_cfg")
    if isinstance(upsampling, dict) and upsampling.get("type") == "carafe":
        kept = {key: upsampling[key] for key in ("scale_factor",) if key in upsampling}
        part["upsample_cfg"] = type(upsampling)(type="nearest", **kept)
    pooling = part.get("roi_layer")
    if isinstance(pooling, dict) and "DeformRoIPool" in str(pooling.get("type")):
        part["roi_layer"] = type(pooling)(
            type="RoIAlign", output_size=pooling["output_size"], sampling_ratio=0
        )


_MOST = {"num": 64, "nms_pre": 200, "max_per_img": 64, "num_post": 64, "num_dyhead_blocks": 2}
"""RoIs, proposals and blocks before the heads: what a proof costs, not what it shows."""


class NeedsPackage(ImportError):
    """mmdet itself needs a package, for this config, that is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(f"needs the package {package}, which is not installed")


# How mmdet and mmengine say it: they raise anything from ImportError to NotImplementedError.
_MISSING = re.compile(
    r"""No\ module\ named\ ['"]([\w-]+)
    | Failed\ to\ import\ (?!custom)\[?['"]?([\w-]+)
    | ([\w-]+)\ is\ not\ installed
    | (?:pip|mim)\ install\ (?:-\S+\ )*["']?(?!openmim)([\w-]+)""",
    re.VERBOSE,
)


@contextlib.contextmanager
def naming_packages() -> Iterator[None]:
    """An error that comes from a missing package becomes a `NeedsPackage`."""
    try:
        yield
    except NeedsPackage:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            for found in _MISSING.finditer(str(cause)):
                package = next(name for name in found.groups() if name)
                if find_spec(package) is None:
                    raise NeedsPackage(package) from error
            cause = cause.__cause__ or cause.__context__
        raise
