"""Finds backends: each is an entry point of its own distribution."""

from __future__ import annotations

import sys
from functools import cache
from importlib import metadata

from msbal.backend.protocol import Backend
from msbal.errors import BackendError, suggest

ENTRY_POINT_GROUP = "msbal.backends"
OWN_BACKENDS = ("torchvision", "mmdet", "detectron2", "ultralytics")
"""The backends that `msbal backends install` knows."""


def installed_backends() -> dict[str, metadata.EntryPoint]:
    """Return the entry points by name; none is loaded.

    Every spec that is parsed asks for them, a grid's by the dozen, so a search path is read only once.
    """
    return dict(_found_on(tuple(sys.path)))


@cache
def _found_on(path: tuple[str, ...]) -> dict[str, metadata.EntryPoint]:
    """Read the entry points; `path` is ``sys.path``, so that what is put there later is found too."""
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}


def missing(name: str) -> tuple[str, str]:
    """Return, for an error, why a backend cannot be used that has no entry point, and what to do."""
    if name in OWN_BACKENDS:
        return f"`{name}` is not installed", f"run `msbal backends install {name}`"
    return f"`{name}` is unknown", suggest_backend(name)


def suggest_backend(name: str) -> str:
    """Return what to write in the place of an unknown name; a YOLO model's name stands for the backend that has it."""
    if "yolo" in name.lower():
        return "YOLO models are trained by `ultralytics`"
    return suggest(name, {*installed_backends(), *OWN_BACKENDS})


def load_backend(name: str) -> Backend:
    """Load a backend by its name.

    Raises:
        BackendError: where it is not installed, or its own import fails (the cause is named).
    """
    points = installed_backends()
    if name not in points:
        found, fix = missing(name)
        raise BackendError("backend", found, fix=fix)
    try:
        backend = points[name].load()()
    except Exception as error:
        raise BackendError(
            "backend",
            f"`{name}` fails to load: {type(error).__name__}: {error}",
            fix=f"run `msbal backends check {name}` to see what is wrong",
        ) from error
    if not isinstance(backend, Backend):
        raise BackendError("backend", f"`{name}` is a {type(backend).__name__}", "a msbal.backend.Backend")
    return backend
