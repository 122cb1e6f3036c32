"""The names of a YOLO data set's classes, from ``data.yaml`` or a list."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from msbal.data.assembly import class_name
from msbal.data.files import named, printable, read_bytes, read_text, shown
from msbal.errors import DataError

WHAT = "the names of the classes (data.yaml with `names`, or a text file with a name a line)"


@dataclass(frozen=True)
class YoloNames:
    """The classes that the numbers in label files stand for.

    Attributes:
        names: by number, in their order.
        is_pose: whether key points follow a box (ultralytics' ``kpt_shape``).
    """

    names: dict[int, str]
    is_pose: bool = False


def read_names(path: Path) -> YoloNames:
    """Read the names of the classes from a YAML file or a list.

    Raises:
        DataError: where there are no names, or it cannot be read.
    """
    if path.suffix.lower() in {".yaml", ".yml"}:
        config = read_config(path)
        names = _of_config(config, path)
        is_pose = "kpt_shape" in config
    else:
        text = read_text(path, WHAT)
        names, is_pose = dict(enumerate(line.strip() for line in text.rstrip().splitlines())), False
    names = {number: class_name(name) for number, name in sorted(names.items())}
    if not names:
        raise DataError(named(path), "names zero classes", WHAT)
    for number, name in names.items():
        if not name:
            raise DataError(named(path), f"class {number} has an empty name", "a name for each")
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise DataError(
            named(path), f"names `{printable(twice[0])}` twice", "a name of its own for each class"
        )
    return YoloNames(names, is_pose)


def read_config(path: Path) -> dict[str, Any]:
    """Return the keys and values of a YAML file; every plain value is a text, so that a class may be called ``no``.

    Raises:
        DataError: where it is something else, or cannot be read.
    """
    raw = read_bytes(path, "a YAML file with `names`, `train` and `val`")
    try:
        config = yaml.load(raw, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(named(path), f"is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise DataError(named(path), "has no keys", "`names`, `train` and `val`")
    return config


def _of_config(config: dict[str, Any], path: Path) -> dict[int, str]:
    names = config.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    try:
        if isinstance(names, dict) and all(isinstance(name, str) for name in names.values()):
            return {int(number): name for number, name in names.items()}
        if names is None and "nc" in config:
            return {number: f"class_{number}" for number in range(min(int(config["nc"]), 10**5))}
    except (TypeError, ValueError):
        pass
    found = "has no `names`" if names is None else f"`names` is {shown(names)}"
    raise DataError(named(path), found, "a list of names, or `number: name` for each")
