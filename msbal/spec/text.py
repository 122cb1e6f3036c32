"""From a file to its keys and values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from msbal.errors import SpecError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML or TOML file.

    Raises:
        SpecError: where it cannot be read, or is something else.
    """
    if path.is_dir():
        raise SpecError(str(path), "is a folder", "a spec file (.yaml or .toml)", _specs_in(path))
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpecError(str(path), "no such file", "a spec", "make one with `msbal init DATA`") from error
    except UnicodeDecodeError as error:
        raise SpecError(str(path), f"not a text file (byte {error.start})", "UTF-8") from error
    except (OSError, ValueError) as error:
        raise SpecError(
            str(path), getattr(error, "strerror", None) or str(error), "a readable file"
        ) from error
    raw: Any
    if path.suffix == ".toml":
        try:
            raw = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise SpecError(str(path), f"TOML syntax: {error}") from error
    else:
        raw = safe_yaml(text, str(path))
    if raw is None:
        raise SpecError(str(path), "empty", "a spec", "make one with `msbal init DATA`")
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise SpecError(
            str(path), f"a {type(raw).__name__}", "keys and values, `backend: torchvision` and so on"
        )
    return raw


def safe_yaml(text: str, where: str) -> Any:
    """A YAML value, built of plain types only.

    Raises:
        SpecError: naming `where`, and the line and column.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise SpecError(f"{where}{place}", f"YAML syntax: {problem}") from error
    except (RecursionError, ValueError, OverflowError, TypeError, AttributeError, KeyError) as error:
        # PyYAML lets these through for values such as a date that does not exist.
        raise SpecError(where, f"YAML value: {error}") from error
    _refuse_endless(value, where)
    return value


MOST_VALUES = 100_000


def _refuse_endless(value: Any, where: str) -> None:
    """Refuse what aliases of aliases make of a few lines: more values than memory holds, or a loop."""
    waiting, seen = [value], 0
    while waiting:
        seen += 1
        if seen > MOST_VALUES:
            raise SpecError(
                where, f"more than {MOST_VALUES} values", "fewer", "are there aliases (`*name`) of aliases?"
            )
        inside = waiting.pop()
        if isinstance(inside, dict):
            waiting.extend(inside.values())
        elif isinstance(inside, (list, tuple, set)):
            waiting.extend(inside)


def _specs_in(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml", ".toml"))[:4]
    return f"there are {', '.join(names)} in it" if names else "make one with `msbal init DATA`"
