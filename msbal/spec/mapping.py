"""A spec as plain keys and values: read from a file, changed by dotted keys, compared."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from msbal.errors import SpecError, suggest_path
from msbal.spec.balance import balance_models

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_VALUES = 100_000

EXCLUDES = {"schedule.iterations": "epochs", "schedule.epochs": "iterations"}
"""Keys that exclude each other: setting one removes the other."""


def read_mapping(path: Path) -> dict[str, Any]:
    """Read the keys and values of a YAML or TOML file.

    Raises:
        SpecError: where it cannot be read, or is something else.
    """
    where = str(path)
    if path.is_dir():
        raise SpecError(where, "is a folder", "a spec file (.yaml or .toml)", _specs_in(path))
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = suggest_path(path)
        fix = near if near.startswith("did") else "make one with `msbal init DATA`"
        raise SpecError(where, "no such file", "a spec", fix) from error
    except UnicodeDecodeError as error:
        raise SpecError(
            where, f"not a text file (byte {error.start})", "a spec, YAML or TOML in UTF-8"
        ) from error
    except (OSError, ValueError) as error:
        raise SpecError(where, getattr(error, "strerror", None) or str(error), "a readable file") from error
    if path.suffix == ".py":
        raise SpecError(
            where,
            "Python code",
            "a spec, YAML or TOML",
            "a framework's config belongs in a spec, as `model.config`",
        )
    raw: Any
    if path.suffix == ".toml":
        try:
            raw = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise SpecError(where, f"TOML syntax: {error}") from error
    else:
        raw = safe_yaml(text, where)
    if raw is None:
        raise SpecError(where, "empty", "a spec", "make one with `msbal init DATA`")
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        kind = {"list": "a list", "str": "plain text"}.get(type(raw).__name__, f"a {type(raw).__name__}")
        raise SpecError(where, kind, "keys and values, e.g. `backend: torchvision`")
    return raw


class _Loader(yaml.SafeLoader):
    """Plain types only, and no key twice: YAML's own loader would take the last and drop the others."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)  # later, merges (`<<`) may have put keys into it again
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"`{key.value}` is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return node


_SYNTAX = {
    "'\\t'": "indent with spaces, not with tabs",
    "mapping values are not allowed": "write `key: value`, one a line, those of a section two spaces further in",
    "could not find expected ':'": "write `key: value`, with a space after the colon",
    "is given twice": "keep one of them",
    "expected <block end>": "align the keys of a section",
}
"""What to do, by a part of PyYAML's message."""


def safe_yaml(text: str, where: str) -> Any:
    """Parse YAML into plain types only.

    Raises:
        SpecError: naming `where`, and the line and column.
    """
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        fix = next((fix for part, fix in _SYNTAX.items() if part in problem), "")
        raise SpecError(f"{where}{place}", f"YAML syntax: {problem}", fix=fix) from error
    except (RecursionError, ValueError, OverflowError, TypeError, AttributeError, KeyError) as error:
        # PyYAML raises these for values such as a date that does not exist.
        raise SpecError(where, f"YAML value: {error}") from error
    _refuse_endless(value, where)
    return value


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set ``a.b=c`` in place; the value is read as YAML.

    Raises:
        SpecError: where there is no ``=``, or the key leads through a value that has no keys.
    """
    key, equals, text = override.partition("=")
    key = ".".join(part.strip() for part in key.split("."))
    if not equals or not all(key.split(".")):
        name, _, value = (part.strip() for part in override.partition(":"))
        fix = f"write --set {name}={value or 'VALUE'}" if not equals and name and " " not in name else ""
        raise SpecError("--set", f"`{override}`", "KEY=VALUE, e.g. balance.interval=50", fix)
    put(raw, key, safe_yaml(text, f"--set {key}"), where=f"--set {key}")


def put(raw: dict[str, Any], key: str, value: Any, where: str | None = None) -> None:
    """Set a dotted key in place; a new strategy keeps only those keys of the old one that it has too.

    Args:
        where: the key's name in errors.

    Raises:
        SpecError: where the key leads through a value that has no keys.
    """
    parts = key.split(".")
    if not all(part.strip() for part in parts):
        raise SpecError(f"`{key}`", "an empty part", "a dotted key such as balance.interval")
    at = raw
    for i, part in enumerate(parts[:-1]):
        inner = {} if at.get(part) is None else at[part]
        if not isinstance(inner, dict):
            raise SpecError(where or key, f"`{'.'.join(parts[: i + 1])}` is {inner!r}", "keys and values")
        # A copy: a YAML anchor may have put the same mapping elsewhere too.
        at[part] = dict(inner)
        at = at[part]
    if key == "balance.strategy":
        _change_strategy(at, value)
    elif key in EXCLUDES and value is not None:
        at.pop(EXCLUDES[key], None)
    at[parts[-1]] = copy.deepcopy(value)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield each dotted key whose values differ, in order, with both values; None stands for a missing key."""
    old, new = dict(_flatten(before)), dict(_flatten(after))
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            yield key, old.get(key), new.get(key)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each dotted key and its value; mappings only lead to further keys."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _change_strategy(balance: dict[str, Any], strategy: Any) -> None:
    """Drop the keys that only the old strategy has. Keys that neither has stay, to be reported as mistakes."""
    old = balance.get("strategy", "rlo")
    if old == strategy or not isinstance(old, str) or not isinstance(strategy, str):
        return
    models = balance_models()
    if old in models and strategy in models:
        for key in set(models[old].model_fields) - set(models[strategy].model_fields):
            balance.pop(key, None)


def _refuse_endless(value: Any, where: str) -> None:
    """Refuse aliases of aliases that expand to more values than memory holds, or to a loop."""
    waiting, seen = [value], 0
    while waiting:
        seen += 1
        if seen > MAX_VALUES:
            raise SpecError(
                where, f"more than {MAX_VALUES} values", "fewer", "are there aliases (`*name`) of aliases?"
            )
        inside = waiting.pop()
        if isinstance(inside, dict):
            waiting.extend(inside.values())
        elif isinstance(inside, (list, tuple, set)):
            waiting.extend(inside)


def _specs_in(folder: Path) -> str:
    names = sorted(str(path) for path in folder.iterdir() if path.suffix in (".yaml", ".yml", ".toml"))[:4]
    return f"name one of the files in it: {', '.join(names)}" if names else "make one with `msbal init DATA`"
