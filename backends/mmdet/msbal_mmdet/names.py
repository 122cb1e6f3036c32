"""The names of classes in a config, in whichever way it writes them."""

from __future__ import annotations

import inspect
from functools import cache
from types import ModuleType
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry


def kind(part: Any) -> str:
    """The class that a part's ``type`` names, without scope (``mmdet.RetinaHead``) or path; "" where it has none."""
    given = part.get("type") or ""
    return str(getattr(given, "__name__", given)).rpartition(".")[2]


def with_names(config: Config) -> Config:
    """A config in pure Python, which has classes where others have their names, as one with names.

    Everything that looks at a config, here and in mmdet, then finds what it knows.
    """
    imported: set[str] = getattr(config, "_imported_names", None) or set()
    plain = {
        key: _named(value)
        for key, value in config._cfg_dict.items()
        if key not in imported and not isinstance(value, ModuleType)
    }
    return Config(plain, filename=config.filename)


def _named(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _named(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_named, value))
    named: Any = inspect.isclass(value) or inspect.isroutine(value)
    return _name(value) if named else value


@cache
def _name(value: Any) -> str:
    """What its registry calls it; its whole path, which mmengine imports, where it is in none."""
    short = value.__name__
    if any(registry.get(short) is value for registry in _registries()):
        return str(short)
    return f"{value.__module__}.{value.__qualname__}"


@cache
def _registries() -> tuple[Registry, ...]:
    from mmdet import registry

    return tuple(found for found in vars(registry).values() if isinstance(found, Registry))
