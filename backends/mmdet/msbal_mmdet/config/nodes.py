"""Look through a config, in whichever way it names its classes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry


def walk(node: Any) -> Iterator[Any]:
    """Yield every dict of a config, outermost first."""
    if isinstance(node, dict):
        yield node
        for value in list(node.values()):
            yield from walk(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from walk(value)


def kind(node: Any) -> str:
    """Return the class that a dict's ``type`` names, without scope (``mmdet.RetinaHead``) or path; "" for none."""
    given = node.get("type") or ""
    return str(getattr(given, "__name__", given)).rpartition(".")[2]


def kinds(nodes: Any) -> list[str]:
    """Return `kind` of each dict of a list, or of a single one; of None, none."""
    return [kind(node) for node in ([nodes] if isinstance(nodes, dict) else nodes or [])]


def loads_masks(config: Any) -> bool:
    """Return whether a config's training pipeline loads masks."""
    # Some keep their pipeline beside the data loader, some put more around it.
    text = f"{config.get('train_pipeline')} {config.get('train_dataloader')}"
    return "with_mask': True" in text or "LoadPanopticAnnotations" in text


def with_names(config: Config) -> Config:
    """Return a config in pure Python, which has classes where others have their names, as one with names.

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
    """Return its name in its registry; its whole path, which mmengine imports, where it is in none."""
    short = value.__name__
    if any(registry.get(short) is value for registry in _registries()):
        return str(short)
    return f"{value.__module__}.{value.__qualname__}"


@cache
def _registries() -> tuple[Registry, ...]:
    from mmdet import registry

    return tuple(found for found in vars(registry).values() if isinstance(found, Registry))
