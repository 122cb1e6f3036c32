"""Finds and reads a model's YAML, and says why a model cannot be trained on boxes."""

from __future__ import annotations

import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ultralytics.nn import tasks

from msbal.errors import SpecError, nearest

_EXPECTED = "a model of ultralytics such as yolov8n.yaml, or a YAML of one's own"
_SCRIPT = "msbal_ultralytics.balance balances it in a training script of your own"
_BOXES = ("Detect", "v10Detect")
_NEEDS = {
    "Segment": ("masks", _SCRIPT),
    "Segment26": ("masks", _SCRIPT),
    "Pose": ("keypoints", _SCRIPT),
    "Pose26": ("keypoints", _SCRIPT),
    "OBB": ("oriented boxes", _SCRIPT),
    "OBB26": ("oriented boxes", _SCRIPT),
    "WorldDetect": ("texts", ""),
    "YOLOEDetect": ("prompts", ""),
    "YOLOESegment": ("prompts", ""),
    "YOLOESegment26": ("prompts", ""),
}
"""By head: what it learns from, which a data set of boxes lacks, and what to do."""
_NO_LEVELS = {
    "RTDETRDecoder": "whose losses are by query and have no levels",
    "Classify": "a classifier, which has no pyramid levels",
    "SemanticSegment": "whose loss is by pixel, not by level",
    "Depth": "whose loss is by pixel, not by level",
}


def read_model(config: str) -> dict[str, Any]:
    """Read the YAML of a model that detects boxes, with its scale as ``scale``.

    Args:
        config: a name of ultralytics, or the absolute path of a file.

    Raises:
        SpecError: where there is none of that name, it is no model, or it learns from more than boxes.
    """
    path = Path(config)
    if path.is_absolute():
        found = _of_file(path)
    else:
        names = zoo()
        if path.suffix not in (".yaml", ".yml") or path.stem not in names:
            raise _unknown(config, names)
        file, scale = names[path.stem]
        found = {**_of_file(file), "scale": scale}
    _check_head(config, found)
    scales = list(found.get("scales") or ())
    if scales and not found.get("scale"):
        found["scale"] = scales[0]
        if len(scales) > 1:
            warnings.warn(
                f"`{config}` names no scale: `{scales[0]}` of {', '.join(scales)} is taken", stacklevel=2
            )
    return found


@cache
def zoo() -> dict[str, tuple[Path, str]]:
    """Return the file and the scale of each model of the installed package, by name: ``yolov8n-p2``."""
    root = Path(tasks.__file__).parents[1] / "cfg" / "models"
    found: dict[str, tuple[Path, str]] = {}
    for file in sorted(root.rglob("*.yaml")):
        # What comes before the layers is short, and all of it takes a second to parse.
        head = yaml.safe_load(re.split(r"^backbone:", file.read_text(encoding="utf-8"), flags=re.M)[0]) or {}
        found[file.stem] = (file, "")
        split = re.fullmatch(r"(\D+\d+)(.*)", file.stem)
        for scale in head.get("scales") or () if split else ():
            found[f"{split[1]}{scale}{split[2]}"] = (file, scale)  # type: ignore[index]
    return found


def _unknown(config: str, names: dict[str, tuple[Path, str]]) -> SpecError:
    if config.endswith(".pt"):
        yaml_of = f"{Path(config).stem}.yaml"
        fix = f"`config: {yaml_of}` and `weights:` with the path of the .pt"
        return SpecError("model.config", f"`{config}`, which is a file of weights", _EXPECTED, f"write {fix}")
    near = nearest(Path(config).stem, names)
    hint = f"did you mean `{near}.yaml`?" if near else ""
    return SpecError(
        "model.config", f"`{config}` is neither a model of ultralytics nor a file", _EXPECTED, hint
    )


def _of_file(path: Path) -> dict[str, Any]:
    """Read a model's YAML.

    Raises:
        SpecError: where the file is none.
    """
    where = f"model.config: {path}"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(where, f"cannot be read: {error}", "a YAML file") from error
    except yaml.YAMLError as error:
        raise SpecError(where, f"is no YAML: {' '.join(str(error).split())[:200]}", "a YAML file") from error
    missing = [key for key in ("backbone", "head") if not (isinstance(found, dict) and found.get(key))]
    if missing:
        raise SpecError(where, f"has no `{missing[0]}`", "a model's YAML, with `backbone` and `head`")
    scales = found.get("scales")
    if scales:
        # By the file's name, as ultralytics does.
        named = re.search(r"yolov?\d+([a-z])", path.stem)
        found["scale"] = named[1] if named and named[1] in scales else ""
    found["yaml_file"] = str(path)
    return dict(found)


def _check_head(config: str, found: dict[str, Any]) -> None:
    """Refuse a model whose head learns from more than boxes, or has no levels.

    Raises:
        SpecError: naming the head.
    """
    try:
        head = str(found["head"][-1][2])
    except (IndexError, KeyError, TypeError) as error:
        raise SpecError(
            f"model.config: {config}", "its last layer cannot be read", "[from, repeats, Detect, [nc]]"
        ) from error
    if head in _BOXES:
        return
    if head in _NO_LEVELS:
        raise SpecError(
            "model.config", f"`{config}` has the head {head}, {_NO_LEVELS[head]}", "a head Detect"
        )
    needs, fix = _NEEDS.get(head, ("something other than boxes", ""))
    raise SpecError(
        "model.config", f"`{config}` has the head {head}, which learns from {needs}; msbal's data have boxes",
        "a head Detect", fix,
    )  # fmt: skip
