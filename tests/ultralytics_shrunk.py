"""Models of ultralytics with as few channels as their layers allow, made of the YAMLs of the installed package."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import yaml

SCALE = [0.33, 0.0625, 256]
"""Depth, width, and the most channels."""
REG_MAX = 4
"""At random, boxes are as many cells wide, less one: of images this small an object then fits one level's best."""


@cache
def shrunk(name: str) -> str:
    """The path of a small model of one of ultralytics' families: ``yolov8-p2``."""
    from msbal_ultralytics.offline import prepare

    prepare()
    from msbal_ultralytics.config import zoo

    model = yaml.safe_load(zoo()[name][0].read_text(encoding="utf-8"))
    model["scales"] = {"n": SCALE}
    model.setdefault("reg_max", REG_MAX)
    path = _folder() / f"{name}.yaml"
    path.write_text(yaml.safe_dump(model), encoding="utf-8")
    return str(path)


@cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="msbal-shrunk-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
