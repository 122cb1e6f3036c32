"""Finds and reads a detectron2 config, YAML or LazyConfig, and applies the spec's overrides to it."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode, LazyConfig, get_cfg

from msbal.errors import SpecError, nearest


@functools.cache
def zoo_configs() -> tuple[str, ...]:
    """Return the names of all configs of the installed model zoo, including those that only others include."""
    root = zoo_root()
    return tuple(
        sorted(str(path.relative_to(root)) for kind in ("yaml", "py") for path in root.rglob(f"*.{kind}"))
    )


def zoo_root() -> Path:
    """Return the folder of the installed model zoo."""
    return Path(model_zoo.__file__).parent / "configs"


def find_config(name: str) -> tuple[Path, bool]:
    """Return the file of a config, and whether it is one of the model zoo.

    Raises:
        SpecError: where there is none of that name.
    """
    path = Path(name)
    if path.is_absolute():
        if not path.is_file():
            raise SpecError("model.config", f"{path} does not exist", "a .yaml or .py file")
        found, of_zoo = path, False
    elif name in zoo_configs():
        found, of_zoo = zoo_root() / name, True
    else:
        _refuse_foreign(name)
        known = {config.rpartition("/")[2]: config for config in zoo_configs()}
        near = nearest(name.rpartition("/")[2], known)
        raise SpecError(
            "model.config",
            f"`{name}` is neither in detectron2's model zoo nor a file",
            "a name such as COCO-Detection/retinanet_R_50_FPN_1x.yaml",
            f"did you mean `{known[near]}`?" if near else "",
        )
    if found.suffix not in (".yaml", ".yml", ".py"):
        raise SpecError("model.config", f"{found.name}", "a .yaml or .py file")
    return found, of_zoo


# Detectors that people ask for, but that no version of detectron2 has.
_ELSEWHERE = {
    "atss": "mmdet",
    "gfl": "mmdet",
    "rtmdet": "mmdet",
    "ssd": "torchvision or mmdet",
    "tood": "mmdet",
    "vfnet": "mmdet",
    "yolov3": "mmdet",
    "yolox": "mmdet",
}


def _refuse_foreign(name: str) -> None:
    for part in re.split(r"[^a-z0-9]+", name.lower()):
        backends = _ELSEWHERE.get(part)
        if backends is not None:
            raise SpecError(
                "model.config",
                f"`{name}`, but detectron2 has no {part.upper()}",
                "a config of detectron2's model zoo",
                f"set `backend: {backends.partition(' ')[0]}`, which has it"
                if " " not in backends
                else f"set `backend:` to {backends}, which have it",
            )


def read_yaml(path: Path, overrides: Sequence[Any] = (), trusted: bool = False) -> CfgNode:
    """Read a ``CfgNode`` from YAML.

    Args:
        trusted: whether it is a file of the model zoo: some of those hold Python expressions.
    """
    cfg = get_cfg()
    # fvcore warns of Python even in a file of the zoo.
    log = logging.getLogger("fvcore.common.config")
    level = log.level
    try:
        log.setLevel(logging.ERROR if trusted else level)
        cfg.merge_from_file(str(path), allow_unsafe=trusted)
    except yaml.constructor.ConstructorError as error:
        raise SpecError(
            "model.config", f"{path} holds Python code ({error.problem})", "plain YAML, or a .py LazyConfig"
        ) from error
    except (OSError, KeyError, ValueError, AssertionError, yaml.YAMLError) as error:
        raise SpecError("model.config", f"{path}: {_text(error)}", "a config of detectron2") from error
    finally:
        log.setLevel(level)
    try:
        cfg.merge_from_list(_pairs(overrides))
    except (KeyError, ValueError, AssertionError) as error:
        raise SpecError("model.overrides", _text(error), "KEY, value pairs or KEY=value") from error
    return cfg


def read_lazy(path: Path, overrides: Sequence[Any] = ()) -> Any:
    """Read a LazyConfig: a Python file, which is run."""
    try:
        cfg = LazyConfig.load(str(path))
    except Exception as error:
        raise SpecError(
            "model.config", f"{path}: {type(error).__name__}: {_text(error)}", "a LazyConfig that loads"
        ) from error
    missing = [
        key for key in ("model", "dataloader", "optimizer", "lr_multiplier", "train") if key not in cfg
    ]
    if missing:
        raise SpecError(
            "model.config",
            f"{path} has no `{missing[0]}`",
            "model, dataloader, optimizer, lr_multiplier, train",
        )
    try:
        return LazyConfig.apply_overrides(cfg, [str(override) for override in overrides])
    except Exception as error:  # the parser of overrides raises errors of its own
        raise SpecError("model.overrides", _text(error), "path.key=value") from error


def _pairs(overrides: Sequence[Any]) -> list[Any]:
    """Return ``KEY=value`` items and ``KEY, value`` pairs as one flat list."""
    flat: list[Any] = []
    for item in overrides:
        # A value may hold an equals sign, a key never does.
        if len(flat) % 2 == 0 and isinstance(item, str) and "=" in item:
            key, _, value = item.partition("=")
            flat += [key.strip(), value.strip()]
        else:
            flat.append(item)
    if len(flat) % 2:
        raise ValueError(f"`{flat[-1]}` has no value")
    return flat


def _text(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())
